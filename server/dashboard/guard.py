"""The gate before every page, file and socket of the dashboard, as an ASGI application.

A foreign web page can make a browser send requests to loopback, by a host name of its own (DNS
rebinding) or by a WebSocket from its own origin; Host and Origin tell these apart from ours.
"""

import asyncio
import re
import secrets
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.dashboard.access import COOKIE, COOKIE_SECONDS, Access
from server.dashboard.entrance import entrance_page

ENTRANCE = "/access"
MOST_ADDRESS_BYTES = 2048  # path and query: the pages' own stay below 300
MOST_FORM_BYTES = 4096
WRONG_TOKEN_SECONDS = 1.0  # guessing takes its time
SOCKETS = "/_nicegui_ws"
Refusal: TypeAlias = tuple[HTTPStatus, str]
"""What a request is answered, and why."""
POLICY = (  # Vue compiles its templates in the browser: 'unsafe-eval'; Quasar sets styles in line
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer a form's Origin would be null
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def guarded(app: ASGIApp, access: Access) -> ASGIApp:
    """Return an application that lets through what may see the dashboard, and nothing else."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]
        }
        refusal = _refusal(scope, headers, access)
        if scope["type"] == "websocket":
            if refusal is not None or not access.admits(headers):
                await send({"type": "websocket.close", "code": 1008})
                return
            await app(scope, receive, send)
        elif refusal is not None:
            await _answer(send, *refusal)
        elif access.admits(headers):
            await app(scope, receive, _hardened(send))
        else:
            await _enter(scope, receive, send, access)

    return guard


def _refusal(scope: Scope, headers: Mapping[str, str], access: Access) -> Refusal | None:
    """Return why a request is refused whoever sends it; None for a proper one."""
    size = len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])
    if size > MOST_ADDRESS_BYTES:
        return HTTPStatus.REQUEST_URI_TOO_LONG, "the address is too long"
    host = headers.get("host", "")
    if not access.knows_host(host):
        return HTTPStatus.MISDIRECTED_REQUEST, "this is not the host that was asked for"
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"{access.scheme}://{host.lower()}":
        return HTTPStatus.FORBIDDEN, "asked for by another page"
    if scope["path"].startswith(SOCKETS) != (scope["type"] == "websocket"):
        return HTTPStatus.NOT_FOUND, "sockets and pages have addresses of their own"
    if scope["type"] == "http" and scope["method"] not in _methods(scope, access):
        return HTTPStatus.METHOD_NOT_ALLOWED, "the dashboard is read-only"
    return None


def _methods(scope: Scope, access: Access) -> Iterable[str]:
    shows_token = access.token is not None and scope["path"] == ENTRANCE
    return ("GET", "HEAD", "POST") if shows_token else ("GET", "HEAD")


async def _enter(scope: Scope, receive: Receive, send: Send, access: Access) -> None:
    """Ask for the token; a right one becomes a cookie that scripts cannot read."""
    if scope["method"] != "POST":
        await _answer(send, HTTPStatus.UNAUTHORIZED, entrance_page(), html=True)
        return
    form = await _body(receive)
    shown = parse_qs(form.decode("latin-1")).get("token", [""])[0] if form is not None else ""
    if not access.is_token(shown.strip()):
        await asyncio.sleep(WRONG_TOKEN_SECONDS)
        await _answer(send, HTTPStatus.UNAUTHORIZED, entrance_page(wrong=True), html=True)
        return
    cookie = (
        f"{COOKIE}={access.cookie()}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; Secure; "
        "SameSite=Strict"
    )
    await _answer(send, HTTPStatus.SEE_OTHER, "", extra={"location": "/", "set-cookie": cookie})


async def _body(receive: Receive) -> bytes | None:
    """Return a request's body; None for one that is no form with a token."""
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if message["type"] != "http.request" or len(body) > MOST_FORM_BYTES:
            return None
        if not message.get("more_body", False):
            return body


async def _answer(
    send: Send,
    status: HTTPStatus,
    text: str,
    *,
    html: bool = False,
    extra: Mapping[str, str] | None = None,
) -> None:
    body = text.encode()
    kind = "text/html" if html else "text/plain"
    headers = {
        "content-type": f"{kind}; charset=utf-8",
        "content-length": str(len(body)),
        "cache-control": "no-store",
        **(extra or {}),
    }
    start = {"type": "http.response.start", "status": int(status), "headers": _encoded(headers)}
    guarded_send = _hardened(send)
    await guarded_send(start)
    await guarded_send({"type": "http.response.body", "body": body})


def _hardened(send: Send) -> Send:
    """Return a sender that adds the headers, and the nonce to the scripts of our own pages.

    The pages' data stand in them with every < escaped: each script tag is the template's.
    """
    nonce = secrets.token_urlsafe(16)
    held: list[Message] = []

    async def harden(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": _with_policy(message["headers"], nonce)}
            if _is_html(message):
                held.append(message)
                return
        elif held and message["type"] == "http.response.body":
            held.append(message)
            if not message.get("more_body", False):
                await _send_page(send, held, nonce)
            return
        await send(message)

    return harden


async def _send_page(send: Send, held: list[Message], nonce: str) -> None:
    start, *parts = held
    body = b"".join(part.get("body", b"") for part in parts)
    body = re.sub(rb"<script\b", b'<script nonce="' + nonce.encode() + b'"', body)
    headers = [(name, text) for name, text in start["headers"] if name != b"content-length"]
    await send({**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


def _with_policy(headers: Iterable[tuple[bytes, bytes]], nonce: str) -> list[tuple[bytes, bytes]]:
    added = {**HEADERS, "content-security-policy": POLICY.format(nonce=nonce)}
    return [*headers, *_encoded(added)]


def _is_html(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and text.startswith(b"text/html")
        for name, text in start["headers"]
    )


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), text.encode("latin-1")) for name, text in headers.items()]
