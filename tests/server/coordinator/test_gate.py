"""The real SuperLink with TLS behind the gate; sites dial from 127.0.0.2, which is not the
coordinator's address."""

import datetime as dt
import json
import time
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from flwr.proto.control_pb2 import RegisterNodeRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree, PushObjectRequest
from flwr.proto.node_pb2 import Node

from common.codec import decode
from common.kit import HELLO_PATH, TOKEN_HEADER, Hello, Refused
from server.coordinator.control import control_of
from server.coordinator.refusals import refusals_since

PROJECT = Path(__file__).parents[3]
P384_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
PROTOBUF = {"content-type": "application/protobuf"}


def test_a_site_that_is_known_gets_a_hello(served):
    answer = served.ask("GET", HELLO_PATH, headers=served.kit.signed("alpha"))
    hello = decode(Hello, answer.json(), source="answer")
    assert (hello.federation, hello.site, hello.version) == ("gliomas", "alpha", "0.1.0")
    assert hello.package_sha256 == "0" * 64
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(hello.time)
    assert abs(age.total_seconds()) < 20


def test_a_site_that_is_known_can_activate_its_node_and_pull(served):
    node = served.activate("beta")
    assert served.node_states()[served.kit.public_key("beta")] == "online"
    answer = served.fleet(
        "pull-messages", PullMessagesRequest(node=Node(node_id=node)), site="beta"
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("site", "reason"),
    [
        ("stranger", "unknown-site"),
        ("revoked", "revoked"),
        ("expired", "expired"),
        ("early", "not-yet-valid"),
    ],
)
def test_a_key_that_is_not_valid_now_is_refused_with_its_reason(served, site, reason):
    before = served.node_states()
    request = ActivateNodeRequest(public_key=served.kit.public_key(site), heartbeat_interval=30)
    content = request.SerializeToString()
    headers = {**PROTOBUF, **served.kit.signed(site)}
    for path in ("/v1/fleet/activate-node", HELLO_PATH):
        headers = {**PROTOBUF, **served.kit.signed(site)}
        refused = served.refusal("POST", path, headers=headers, content=content)
        assert refused.reason == reason
    assert served.node_states() == before


def test_requests_without_a_key_or_with_two_are_from_nobody(served):
    assert served.refusal("GET", HELLO_PATH).reason == "unknown-site"
    twice = [*served.kit.signed("alpha").items(), *served.kit.signed("beta").items()]
    assert served.refusal("GET", HELLO_PATH, headers=twice).reason == "unknown-site"


@pytest.mark.parametrize("seconds", [-400, -310, 10, 400])
def test_a_clock_that_is_off_is_named(served, seconds):
    at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    refused = served.refusal("GET", HELLO_PATH, headers=served.kit.signed("alpha", at))
    assert refused.reason == "clock"
    assert "clock" in refused.says


@pytest.mark.parametrize("time", ["yesterday", "2026-01-01T00:00:00", ""])
def test_a_time_that_is_none_is_refused(served, time):
    headers = {**served.kit.signed("alpha"), "flwr-timestamp": time}
    assert served.refusal("GET", HELLO_PATH, headers=headers).reason == "clock"


def test_a_signature_by_another_key_or_of_another_time_is_refused(served):
    alpha, beta = served.kit.signed("alpha"), served.kit.signed("beta")
    for signature in (beta["flwr-signature"], "", "AAAA", "not base64"):
        headers = {**alpha, "flwr-signature": signature}
        assert served.refusal("GET", HELLO_PATH, headers=headers).reason == "signature"


def test_a_request_that_was_used_is_refused_also_with_its_other_valid_signature(served):
    headers = served.kit.signed("alpha")
    assert served.ask("GET", HELLO_PATH, headers=headers).status_code == 200
    assert served.refusal("GET", HELLO_PATH, headers=headers).reason == "replayed"
    assert served.fleet("pull-messages", PullMessagesRequest(), headers=headers).status_code == 403
    r, s = decode_dss_signature(b64decode(headers["flwr-signature"]))
    other = encode_dss_signature(r, P384_ORDER - s)
    mirrored = {**headers, "flwr-signature": b64encode(other).decode()}
    assert served.refusal("GET", HELLO_PATH, headers=mirrored).reason == "replayed"


def test_what_was_signed_before_the_coordinator_started_has_to_be_signed_again(served):
    at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=250)
    headers = served.kit.signed("alpha", at)
    assert served.refusal("GET", HELLO_PATH, headers=headers, status=503).reason == "replayed"


def test_a_site_that_is_revoked_or_added_is_so_at_once(served):
    served.kit.change_site("alpha", revoked="2026-01-01T00:00:00+00:00")
    try:
        headers = served.kit.signed("alpha")
        assert served.refusal("GET", HELLO_PATH, headers=headers).reason == "revoked"
    finally:
        served.kit.change_site("alpha", revoked=None)
    assert served.ask("GET", HELLO_PATH, headers=served.kit.signed("alpha")).status_code == 200


def test_a_kit_that_cannot_be_read_lets_nobody_in(served):
    text = served.kit.folder.file.read_text()
    served.kit.folder.file.write_text(text.replace("[sites", "[sights"))
    try:
        served.refusal("GET", HELLO_PATH, headers=served.kit.signed("alpha"), status=503)
        token = {TOKEN_HEADER: served.kit.token}
        served.refusal("POST", "/v1/control/list-nodes", headers=token, status=503)
    finally:
        served.kit.folder.file.write_text(text)
    assert served.ask("GET", HELLO_PATH, headers=served.kit.signed("alpha")).status_code == 200


FORBIDDEN_TO_SITES = [
    "/v1/control/list-nodes",
    "/v1/control/register-node",
    "/v1/control/start-run",
    "/v1/runtime/acquire-task",
    "/v1/runtime/push-messages",
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    "/v1/fleet/../control/list-nodes",
    "/v1/fleet/%2e%2e/control/list-nodes",
    "/v1/fleet//pull-messages",
    "//v1/fleet/pull-messages",
    "/V1/FLEET/pull-messages",
    "/v1/fleet/pull%2dmessages",
    "/v1%2ffleet/pull-messages",
    "/v1/fleet/pull-messages/",
    "/v1/fleet/pull-messages;x",
    "/responses",
    "/docs",
    "/openapi.json",
    "/health/",
    "/%68ealth",
    "/",
]


@pytest.mark.parametrize("path", FORBIDDEN_TO_SITES)
def test_sites_reach_nothing_else_whatever_they_carry_and_however_they_write_it(served, path):
    before = served.node_states()
    key = served.kit.public_key("stranger")
    for request in (RegisterNodeRequest(public_key=key), RegisterNodeFleetRequest(public_key=key)):
        headers = {
            **PROTOBUF,
            **served.kit.signed("alpha"),
            TOKEN_HEADER: served.kit.token,
            "x-forwarded-for": "127.0.0.1",
            "forwarded": "for=127.0.0.1",
        }
        refused = served.refusal("POST", path, headers=headers, content=request.SerializeToString())
        assert refused.reason == "not-for-sites"
    assert served.node_states() == before


@pytest.mark.parametrize("path", ["/v1/control/list-nodes", "/docs", "/openapi.json", "/responses"])
@pytest.mark.parametrize("headers", [{}, {TOKEN_HEADER: "guess"}, {TOKEN_HEADER: ""}])
def test_control_needs_the_token_on_the_coordinators_machine_as_well(served, path, headers):
    refused = served.refusal("POST", path, source="127.0.0.1", headers={**PROTOBUF, **headers})
    assert refused.reason == "token"


def test_the_runtime_is_open_to_this_machine_where_flower_asks_for_its_secret(served):
    answer = served.ask(
        "POST", "/v1/runtime/acquire-task", source="127.0.0.1", headers=PROTOBUF, content=b""
    )
    assert answer.status_code == 401


def test_a_body_that_is_too_large_is_refused_by_its_length_and_while_it_streams(served):
    size = 8 * 2**20 + 1

    def stream():
        for _ in range(9):
            yield bytes(2**20)

    for content in (bytes(size), stream()):
        headers = {**PROTOBUF, **served.kit.signed("alpha")}
        refused = served.refusal(
            "POST", "/v1/fleet/push-object", headers=headers, content=content, status=413
        )
        assert refused.reason == "too-large"
        assert "at most 8 MiB" in refused.says


def test_a_message_in_chunks_that_is_too_large_as_a_whole_is_refused(served):
    node = Node(node_id=served.activate("alpha"))
    found = []
    for name in "aabc":  # the first comes twice and counts once
        chunk = PushObjectRequest(
            node=node, run_id=1, object_id=name, object_content=bytes(3 << 20)
        )
        found.append(served.fleet("push-object", chunk).status_code)
    assert found[:3] != [413] * 3
    assert 413 not in found[:3]
    assert found[3] == 413


def test_a_site_can_push_only_answers_and_only_its_own(served):
    node = served.activate("alpha")
    other = served.activate("beta")

    def pushed(**fields) -> Refused:
        whole = {
            "run_id": 1,
            "message_id": "m",
            "src_node_id": node,
            "dst_node_id": 1,
            "reply_to_message_id": "q",
            "ttl": 10.0,
            "message_type": "train",
            "created_at": time.time(),
            **fields,
        }
        request = PushMessagesRequest(
            node=Node(node_id=node),
            messages_list=[Message(metadata=Metadata(**whole))],
            message_object_trees=[ObjectTree(object_id="m")],
        )
        return served.fleet("push-messages", request)

    for fields in (
        {"reply_to_message_id": "", "src_node_id": 1, "dst_node_id": other},
        {"reply_to_message_id": ""},
        {"src_node_id": other},
        {"dst_node_id": other},
    ):
        answer = pushed(**fields)
        assert answer.status_code == 403
        assert answer.json()["reason"] == "not-for-sites"
    assert "reason" not in pushed().json()  # Flower's own words: there is no such run


def test_websockets_are_refused(served):
    headers = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    assert served.ask("GET", "/v1/control/list-nodes", headers=headers).status_code == 403


def test_every_refusal_is_on_the_disk_with_site_reason_and_address_and_without_secrets(served):
    served.refusal("GET", HELLO_PATH, headers=served.kit.signed("revoked"))
    since = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    found = refusals_since(served.kit.folder.refused, since)
    assert ("revoked", "revoked", "127.0.0.2") in {(r.site, r.reason, r.address) for r in found}
    for text in (served.kit.folder.refused.read_text(), served.output.read_text()):
        assert served.kit.token not in text
    lines = served.kit.folder.refused.read_text().splitlines()
    assert all(json.loads(line)["count"] >= 1 for line in lines)


def test_registering_again_changes_nothing_and_a_revoked_key_is_gone_for_ever(served):
    with control_of(served.kit.folder) as control:
        assert control.register(served.kit.folder.read()) == []
        served.kit.change_site("early", revoked="2026-01-01T00:00:00+00:00")
        unregistered = "site early: a key that it has no more was unregistered"
        assert control.register(served.kit.folder.read()) == [unregistered]
        assert served.kit.public_key("early") not in served.node_states()
        served.kit.change_site("early", revoked=None)
        says = "site early: its key was revoked before and stays so; make it a new kit"
        assert control.register(served.kit.folder.read()) == [says]


def test_a_site_with_a_new_key_takes_the_place_of_its_old_one(served):
    sites = served.kit.folder.read().sites
    with control_of(served.kit.folder) as control:
        served.kit.change_site("expired", public_key=served.kit.ssh_line("stranger"))
        try:
            assert control.register(served.kit.folder.read()) == [
                "site early: its key was revoked before and stays so; make it a new kit",
                "site expired was registered",
                "site expired: a key that it has no more was unregistered",
            ]
        finally:
            served.kit.change(sites=sites)
    assert served.kit.public_key("stranger") in served.node_states()


def test_a_run_is_listed_with_its_folder_and_can_be_stopped(served, tmp_path):
    with control_of(served.kit.folder) as control:
        number = control.start(tmp_path / "run", admit="gamma", without="")
        run = next(run for run in control.runs() if run.id == number)
        assert run.folder == str(tmp_path / "run")
        assert not run.is_over
        control.stop(number)
        assert next(run for run in control.runs() if run.id == number).is_over
