"""Who may ask the viewer: only a browser on this machine that knows the secret of this start.

Other users of the machine reach its loopback too, but not the secret in the address. A page from
elsewhere whose name was made to point here (DNS rebinding) sends its own name as the host.
"""

import hmac
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")  # any port: it may be forwarded by ssh
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # NiiVue's font and shading
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",  # images of patients do not stay in a browser's cache
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address is a secret
    "X-Content-Type-Options": "nosniff",
}


def guarded(app: ASGIApp, token: str) -> ASGIApp:
    """Return an application that answers only what may be asked, and says so to the browser.

    Args:
        app: what answers, below ``/<token>/``.
        token: the secret that every address begins with.
    """

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await (refusal(scope, token) or app)(scope, receive, send_with_headers)

    return guard


def refusal(scope: Scope, token: str) -> Response | None:
    """Return why a request is not answered, or None; the application knows GET only."""
    if host_name(Headers(scope=scope).get("host", "")) not in LOOPBACK_NAMES:
        return PlainTextResponse("expected a loopback address as the host", 421)
    first = scope["path"].split("/")[1:2]
    if not hmac.compare_digest("".join(first).encode(), token.encode()):
        return PlainTextResponse("expected the whole address that consilium view printed", 404)
    return None


def host_name(host: str) -> str:
    """Return the host without its port; an IPv6 address keeps its brackets."""
    name, _, port = host.rpartition(":")
    return name.lower() if name and port.isdigit() else host.lower()
