"""Flower's own sending, with the ledger in front of it."""

import hashlib
import logging
import threading
import time
from pathlib import Path

import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode as FlowerCode
from flwr.supernode import start_client_internal

from client.egress import recording
from client.egress.entry import records_of
from client.egress.questions import keep_question
from client.egress.reading import read, verify
from client.policy import Policy
from client.site import SiteConfig
from common.errors import ConfigError
from common.messages import TrainTask

PATIENT = "Mustermann_Erika"


def inflated_error(content: bytes) -> tuple[int, str]:
    error = Message.inflate(content).error
    return error.code, error.reason


def test_an_answer_is_in_the_ledger_before_it_is_sent_and_arrives_whole(node, update):
    contents = node.reply(update)
    node.push()
    assert node.received == contents
    assert node.lines_before_send == [1]
    (entry,) = read(node.ledger)
    assert {sent.id: sent.bytes for sent in entry.objects} == {
        id_: len(content) for id_, content in contents.items()
    }
    assert entry.bytes == sum(map(len, contents.values()))
    assert (entry.n, entry.kind, entry.run, entry.error) == (1, "train", "77", None)
    assert verify(node.ledger) == ()


def test_ids_are_the_hashes_of_what_arrives(node, update):
    node.reply(update)
    node.push()
    (entry,) = read(node.ledger)
    found = {hashlib.sha256(content).hexdigest() for content in node.received.values()}
    assert found == {sent.id for sent in entry.objects}


def test_everything_but_the_weights_stands_in_the_ledger_in_full(node, update):
    node.reply(update)
    node.push()
    (entry,) = read(node.ledger)
    records = records_of(entry)
    assert records["body"] == {
        "round": 3,
        "n_cases": 4,
        "n_steps": 2,
        "loss": 0.5,
        "seconds": 1.0,
    }
    assert records["index"][0]["name"] == "w"
    kinds = {sent.kind: sent.content for sent in entry.objects}
    assert kinds["Message"]["metadata"]["message_type"] == "train"
    assert kinds["Array"]["shape"] == [60]
    assert kinds["ArrayChunk"] is None


def test_run_method_and_round_are_those_of_the_question(node, update):
    policy = Policy(metrics="cases", validation_means=True, pictures=False, fingerprint="exact")
    site = SiteConfig(name="a", data="d", state=str(node.ledger.parent), policy=policy)
    task = TrainTask(run="trial", plan_hash="0", method="fedavg", round=3, proximal_mu=0)
    keep_question(site, "a" * 64, task)
    node.reply(update)
    node.push()
    (entry,) = read(node.ledger)
    assert (entry.run, entry.method, entry.round) == ("trial", "fedavg", 3)


def test_a_question_of_another_message_gives_no_name(node, update):
    policy = Policy(metrics="cases", validation_means=True, pictures=False, fingerprint="exact")
    site = SiteConfig(name="a", data="d", state=str(node.ledger.parent), policy=policy)
    keep_question(
        site,
        "b" * 64,
        TrainTask(run="trial", plan_hash="0", method="fedavg", round=3, proximal_mu=0),
    )
    node.reply(update)
    node.push()
    (entry,) = read(node.ledger)
    assert (entry.run, entry.method, entry.round) == ("77", None, None)


@pytest.mark.parametrize(
    ("code", "reason", "sent"),
    [
        (FlowerCode.CLIENT_APP_RAISED_EXCEPTION, f"<'/data/{PATIENT}'>", "flower-2"),
        (FlowerCode.LOAD_CLIENT_APP_EXCEPTION, "An exception was raised", "flower-1"),
        (FlowerCode.CLIENT_APP_CRASHED, "ClientApp stopped responding.", "flower-8"),
        (FlowerCode.UNKNOWN, "policy:task", "flower-0"),
        (4100, "policy:task", "policy:task"),
        (4100, f"no {PATIENT}", "internal"),
    ],
)
def test_the_text_of_an_error_never_leaves(node, answer_to, code: int, reason: str, sent: str):
    contents = node.reply(answer_to("query.measure", Error(code, reason)))
    node.push()
    (message,) = node.sent
    assert (message.error.code, message.error.reason) == (code, sent)
    assert [inflated_error(content) for content in node.received.values()] == [(code, sent)]
    assert list(node.received) == [message.metadata.message_id]
    assert message.metadata.reply_to_message_id == "a" * 64
    for id_, content in node.received.items():
        assert hashlib.sha256(content).hexdigest() == id_
        assert PATIENT.encode() not in content
    (entry,) = read(node.ledger)
    assert (entry.kind, entry.error) == ("measure", sent)
    assert [kept.id for kept in entry.objects] == list(node.received)
    assert PATIENT.encode() not in node.ledger.read_bytes()
    assert len(node.store) == 0  # Flower cleans up what it knows
    assert len(contents) == 1


def test_nothing_is_sent_that_cannot_be_recorded(node, update, caplog, answer_to):
    node.ledger.parent.mkdir()
    node.ledger.symlink_to("/dev/full")  # every write says that the disk is full
    for answer in (update, answer_to("query.measure", Error(4100, "data"))):
        node.reply(answer)
        with caplog.at_level(logging.ERROR, logger="consilium.egress"):
            node.push()
    assert (node.sent, node.received) == ([], {})
    assert caplog.text.count("NOTHING WAS SENT") == 2


def test_objects_that_come_after_the_message_are_waited_for(node, update):
    contents = node.reply(update, put=False)

    def hand_over() -> None:
        for id_, content in contents.items():
            time.sleep(0.02)
            node.store.put(id_, content)

    thread = threading.Thread(target=hand_over)
    thread.start()
    node.push()
    thread.join()
    assert node.received == contents
    assert verify(node.ledger) == ()


def test_an_answer_whose_objects_never_come_is_dropped(node, update, monkeypatch):
    monkeypatch.setattr(recording, "PATIENCE_S", 0.1)
    node.reply(update, put=False)
    node.push()
    assert node.sent == []
    assert not node.ledger.exists()


def test_an_object_that_is_not_what_it_is_called_is_not_sent(node, update):
    node.store.verify = False
    contents = node.reply(update, put=False)
    for id_, content in contents.items():
        node.store.put(id_, content + b"x" if b"ArrayChunk" in content[:20] else content)
    node.push()
    assert (node.sent, node.received) == ([], {})


def test_what_the_coordinator_has_already_is_in_the_ledger_and_not_sent_again(node, update):
    contents = node.reply(update)
    chunk = next(id_ for id_, content in contents.items() if content.startswith(b"ArrayChunk"))
    node.received[chunk] = contents[chunk]
    node.push()
    (entry,) = read(node.ledger)
    assert {sent.id for sent in entry.objects} == set(contents)


def test_one_answer_is_one_line_also_when_the_hook_is_put_in_twice(make_node, update, tmp_path):
    make_node(tmp_path / "old" / "egress.jsonl")
    node = make_node(tmp_path / "state" / "egress.jsonl")
    node.reply(update)
    node.push()
    assert len(list(read(node.ledger))) == 1
    assert not (tmp_path / "old").exists()


def other_loop() -> None:
    """Do not send through the module's own name."""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_push_messages", None),
        ("_push_messages", other_loop),
        ("start_client_internal", other_loop),
    ],
)
def test_another_flower_is_refused_before_anything_starts(
    monkeypatch, tmp_path: Path, name: str, value: object
):
    monkeypatch.setattr(start_client_internal, name, value)
    with pytest.raises(ConfigError, match="cannot write down what leaves the building"):
        recording.install(tmp_path / "egress.jsonl")
