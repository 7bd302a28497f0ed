"""The gate in front of the SuperLink: who may ask for what, before Flower sees a request.

Flower's control interface has no authentication and shares the port with the sites. Here sites
reach the ten calls that a node needs, with a key that is known and valid now, a fresh signature and
a bounded body; control needs the coordinator's address and token. What is not allowed is refused.
"""

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.codec import canonical_json
from common.errors import ConfigError
from common.kit import HELLO_PATH, TOKEN_HEADER, Hello, Refused
from server.coordinator.identity import Headers, Identities
from server.coordinator.live_kit import LiveKit, Rules, plain_address
from server.coordinator.message_bounds import PushedBytes, demand_own_answer, too_large
from server.coordinator.refusals import TRY_AGAIN, RefusalError, RefusalLog

HEALTH_PATH = "/health"
PUSH_MESSAGES, PUSH_OBJECT = "/v1/fleet/push-messages", "/v1/fleet/push-object"
SITE_PATHS = frozenset(
    {
        PUSH_MESSAGES,
        PUSH_OBJECT,
        "/v1/fleet/activate-node",
        "/v1/fleet/deactivate-node",
        "/v1/fleet/send-node-heartbeat",
        "/v1/fleet/pull-messages",
        "/v1/fleet/get-run",
        "/v1/fleet/get-fab",
        "/v1/fleet/pull-object",
        "/v1/fleet/confirm-message-received",
    }
)
"""All that a node needs; registering itself is not among it."""
RUNTIME = "/v1/runtime/"  # executor and ServerApp: they have a secret and a token of Flower's
MAX_DRAINED_BYTES = 2**24  # of a body that is refused, so that its sender reads the answer
MAX_DRAINING_S = 5.0

_log = logging.getLogger("consilium.gate")


@dataclass(frozen=True)
class _Asked:
    """What the gate looks at."""

    method: str
    path: str
    """As Flower's router sees it; empty when it was written in a roundabout way."""
    shown: str
    """The same for the log."""
    address: str
    at_home: bool
    """It comes from this machine."""
    headers: Headers


class Gate:
    """ASGI middleware; fails closed."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        kit: LiveKit,
        token: bytes,
        log: Path,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Stand before an application.

        Args:
            app: Flower's SuperLink, with its own middleware.
            kit: whom to let in.
            token: that control needs.
            log: file that every refusal is appended to.
            now: the coordinator's clock.
        """
        self._app, self._kit, self._token, self._now = app, kit, token, now
        self._identities, self._pushed = Identities(now()), PushedBytes()
        self._refusals = RefusalLog(log, now)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        else:
            asked, incoming = _asked(scope), _Incoming(receive)
            try:
                await self._pass(asked, scope, incoming, send)
            except ConnectionResetError:
                return
            except RefusalError as refused:
                self._refusals.append(refused, asked.address, asked.shown)
                await incoming.drain()
                answer = Refused(reason=refused.reason, says=refused.says)
                await _answer(send, refused.status, answer)

    async def _pass(self, asked: _Asked, scope: Scope, incoming: "_Incoming", send: Send) -> None:
        if asked.path == HEALTH_PATH and asked.method in {"GET", "HEAD"}:
            await self._app(scope, incoming, send)  # reads no body
            return
        rules = self._rules()
        site = self._admit(asked, rules)
        body = await _whole_body(asked, incoming, rules.max_bytes, site)
        if asked.path == HELLO_PATH and site is not None:
            await _answer(send, 200, self._hello(rules, site))
            return
        if site is not None and asked.path == PUSH_MESSAGES:
            demand_own_answer(body, site)
            send = self._beginning(site, send)
        elif site is not None and asked.path == PUSH_OBJECT:
            self._pushed.add(site, body, rules.max_bytes)
        await self._app(scope, _replaying(body, incoming), send)

    def _rules(self) -> Rules:
        try:
            return self._kit.read()
        except ConfigError as error:
            _log.error("nobody is let in: %s", error)
            says = "the coordinator's own kit cannot be read; try again later"
            raise RefusalError("unknown-site", says, status=TRY_AGAIN) from None

    def _admit(self, asked: _Asked, rules: Rules) -> str | None:
        """Return the site that asks, or None for the coordinator."""
        if asked.path in SITE_PATHS and asked.method == "POST":
            return self._identities.site_of(asked.headers, rules, self._now())
        if asked.path == HELLO_PATH and asked.method in {"GET", "POST"}:
            return self._identities.site_of(asked.headers, rules, self._now())
        if not asked.at_home and asked.address not in rules.admin:
            says = "only the coordinator may ask for this; sites and others may not"
            raise RefusalError("not-for-sites", says)
        if not asked.path.startswith(RUNTIME):
            self._demand_token(asked.headers)
        return None

    def _demand_token(self, headers: Headers) -> None:
        given = [value for name, value in headers if name.lower() == TOKEN_HEADER.encode()]
        if len(given) != 1 or not hmac.compare_digest(given[0].strip(), self._token):
            raise RefusalError("token", "expected the token of the coordinator's kit")

    def _hello(self, rules: Rules, site: str) -> Hello:
        return Hello(
            federation=rules.kit.federation,
            site=site,
            version=rules.kit.version,
            package_sha256=rules.kit.package_sha256,
            time=self._now().astimezone(UTC).isoformat(timespec="seconds"),
        )

    def _beginning(self, site: str, send: Send) -> Send:
        """Return `send` that takes note when Flower accepts a site's next message."""

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                self._pushed.begin(site)
            await send(message)

        return noting


class _Incoming:
    """A request's body, which knows when it has ended."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._ended = receive, False

    async def __call__(self) -> Message:
        message = await self._receive()
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Read on, within bounds: who is still sending misses the answer."""
        total = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MAX_DRAINING_S):
                while not self._ended and total < MAX_DRAINED_BYTES:
                    total += len((await self()).get("body", b""))


def _asked(scope: Scope) -> _Asked:
    raw = scope.get("raw_path") or scope["path"].encode()
    plain = raw.partition(b"?")[0] == scope["path"].encode() and not scope.get("root_path")
    host = plain_address(scope["client"][0]) if scope.get("client") else ""
    here = plain_address(scope["server"][0]) if scope.get("server") else ""
    return _Asked(
        method=scope["method"],
        path=scope["path"] if plain else "",
        shown=raw.decode("latin-1"),
        address=host,
        at_home=host not in {"", "0.0.0.0"} and host == here,  # noqa: S104 - compared, not bound
        headers=scope["headers"],
    )


async def _whole_body(asked: _Asked, receive: Receive, max_bytes: int, site: str | None) -> bytes:
    """Return a request's body; Flower reads it whole as well."""
    lengths = [value for name, value in asked.headers if name.lower() == b"content-length"]
    if any(value.isdigit() and int(value) > max_bytes for value in lengths):
        raise too_large(max_bytes, site)
    parts: list[bytes] = []
    total, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        parts.append(message.get("body", b""))
        total, more = total + len(parts[-1]), message.get("more_body", False)
        if total > max_bytes:
            raise too_large(max_bytes, site)
    return b"".join(parts)


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read already, then what follows."""
    left = [body]

    async def again() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return again


async def _answer(send: Send, status: int, value: object) -> None:
    body = canonical_json(value)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status >= 400:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
