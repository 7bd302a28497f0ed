import asyncio
import re

import pytest

from server.dashboard.access import Access
from server.dashboard.guard import guarded

TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of tests
OPEN = Access("127.0.0.1", 8470, ("127.0.0.1", "localhost"))
CLOSED = Access("127.0.0.1", 8470, ("127.0.0.1", "localhost"), token=TOKEN)
HOST = {"host": "127.0.0.1:8470"}
PAGE = b"<!doctype html><script>let a</script><script type=module src=x></script>&lt;script>"


async def site(scope, receive, send):
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": PAGE[:40], "more_body": True})
    await send({"type": "http.response.body", "body": PAGE[40:]})


def answer(access, path="/", *, headers=HOST, kind="http", method="GET", body=b"", query=b""):
    """Return the messages that a request is answered with."""
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [(name.encode(), text.encode()) for name, text in headers.items()],
    }
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    asyncio.run(guarded(site, access)(scope, receive, send))
    return sent


def status(*given, **named):
    return answer(*given, **named)[0]["status"]


def headers_of(sent):
    return {name.decode(): text.decode() for name, text in sent[0]["headers"]}


def test_a_page_is_shown_with_a_policy_whose_nonce_its_scripts_carry():
    sent = answer(OPEN)
    policy = headers_of(sent)["content-security-policy"]
    nonce = re.search(r"'nonce-([\w-]{20,})'", policy)[1]
    assert sent[1]["body"].count(f'<script nonce="{nonce}"'.encode()) == 2
    assert b"&lt;script>" in sent[1]["body"]
    assert headers_of(sent)["content-length"] == str(len(sent[1]["body"]))
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    assert "default-src 'none'" in policy
    assert headers_of(sent)["x-frame-options"] == "DENY"


def test_every_page_has_a_nonce_of_its_own():
    policies = {headers_of(answer(OPEN))["content-security-policy"] for _ in range(3)}
    assert len(policies) == 3


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8470", ""])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_foreign_host_name_is_refused(host, kind):
    path = "/" if kind == "http" else "/_nicegui_ws/socket.io/"
    sent = answer(OPEN, path, headers={"host": host}, kind=kind)
    refused = {"http": 421, "websocket": 1008}[kind]
    assert sent[0].get("status", sent[0].get("code")) == refused


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:8470"])
def test_another_pages_request_is_refused(origin):
    assert status(OPEN, headers={**HOST, "origin": origin}) == 403
    sent = answer(
        OPEN, "/_nicegui_ws/socket.io/", headers={**HOST, "origin": origin}, kind="websocket"
    )
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_the_pages_own_socket_is_let_through():
    headers = {**HOST, "origin": "http://127.0.0.1:8470"}
    sent = answer(OPEN, "/_nicegui_ws/socket.io/", headers=headers, kind="websocket")
    assert sent == [{"type": "websocket.accept"}]


def test_a_socket_needs_the_token_as_well():
    path, headers = "/_nicegui_ws/socket.io/", {**HOST, "origin": "http://127.0.0.1:8470"}
    closed = answer(CLOSED, path, headers=headers, kind="websocket")
    assert closed == [{"type": "websocket.close", "code": 1008}]
    headers["cookie"] = f"consilium-dashboard={CLOSED.cookie()}"
    opened = answer(CLOSED, path, headers=headers, kind="websocket")
    assert opened == [{"type": "websocket.accept"}]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_the_dashboard_is_read_only(method):
    assert status(OPEN, method=method) == 405
    assert status(OPEN, "/access", method=method) == 405


def test_long_polling_is_no_way_round_the_socket():
    assert status(OPEN, "/_nicegui_ws/socket.io/") == 404


def test_an_oversized_address_is_refused():
    assert status(OPEN, query=b"a=" + b"x" * 2100) == 414
    assert status(OPEN, "/runs/" + "x" * 2100) == 414


def test_without_the_token_a_page_asks_for_it_and_shows_nothing_else():
    sent = answer(CLOSED, "/runs/secret")
    assert sent[0]["status"] == 401
    assert b'type="password"' in sent[1]["body"]
    assert b"secret" not in sent[1]["body"]


def test_the_right_token_becomes_a_cookie_that_no_script_can_read():
    sent = answer(CLOSED, "/access", method="POST", body=f"token={TOKEN}".encode())
    assert sent[0]["status"] == 303
    cookie = headers_of(sent)["set-cookie"]
    assert cookie.startswith(f"consilium-dashboard={CLOSED.cookie()}; ")
    assert {"HttpOnly", "Secure", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in cookie


@pytest.mark.parametrize("body", [b"token=wrong", b"", b"\xff\xfe", b"token=" + b"x" * 5000])
def test_a_wrong_token_is_refused(body, monkeypatch):
    monkeypatch.setattr("server.dashboard.guard.WRONG_TOKEN_SECONDS", 0.0)
    sent = answer(CLOSED, "/access", method="POST", body=body)
    assert sent[0]["status"] == 401
    assert "set-cookie" not in headers_of(sent)


def test_the_form_of_another_page_cannot_show_a_token():
    headers = {**HOST, "origin": "http://evil.example"}
    body = f"token={TOKEN}".encode()
    assert status(CLOSED, "/access", method="POST", headers=headers, body=body) == 403
