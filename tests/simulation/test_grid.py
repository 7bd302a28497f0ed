"""The in-process grid carries messages as a network would, and errors only as codes."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_to_proto

from client.app import app
from client.dataset.nifti import grid_of, write_image, write_labels
from common import messages
from common.axes import Weights
from common.planning.fingerprint import Fingerprint, empty
from common.task import load_task
from common.wire import body_of, to_content
from simulation.grid import InProcessGrid

PATIENT = "Mueller_Hans_1950"
TASK = load_task("brats-2021")
WEIGHTS: Weights = {"w": np.ones(3, np.float32)}


def message(node: int, kind: str, content: RecordDict | None = None) -> Message:
    return Message(content or RecordDict(), node, kind)


def answers(grid: InProcessGrid, *asked: Message) -> list[Message]:
    return list(grid.pull_messages(grid.push_messages(asked)))


# Carrying


def counting_app(calls: list[tuple[int, str]]) -> ClientApp:
    """Return an app that counts, in each node's state, how often it was asked."""
    counting = ClientApp()

    @counting.query()
    def count(asked: Message, context: Context) -> Message:
        before = context.state.config_records.get("seen", ConfigRecord({"n": 0}))["n"]
        assert isinstance(before, int)
        context.state["seen"] = ConfigRecord({"n": before + 1})
        calls.append((context.node_id, str(context.node_config["site"])))
        return Message(RecordDict({"n": ConfigRecord({"n": before + 1})}), reply_to=asked)

    return counting


@pytest.fixture
def calls() -> list[tuple[int, str]]:
    return []


@pytest.fixture
def grid(calls: list[tuple[int, str]]) -> InProcessGrid:
    nodes = {3: {"site": "c"}, 1: {"site": "a"}, 2: {"site": "b"}}
    return InProcessGrid(counting_app(calls), nodes)


def counts(replies: list[Message]) -> list[object]:
    return [reply.content.config_records["n"]["n"] for reply in replies]


def test_all_sites_are_always_there(grid: InProcessGrid) -> None:
    assert list(grid.get_node_ids()) == [3, 1, 2]


def test_every_node_keeps_a_context_of_its_own(
    grid: InProcessGrid, calls: list[tuple[int, str]]
) -> None:
    assert counts(answers(grid, message(1, "query"), message(1, "query"))) == [1, 2]
    assert counts(answers(grid, message(2, "query"), message(1, "query"))) == [1, 3]
    assert calls == [(1, "a"), (1, "a"), (2, "b"), (1, "a")]


def test_two_grids_share_no_context() -> None:
    for _ in range(2):
        fresh = InProcessGrid(counting_app([]), {1: {"site": "a"}})
        assert counts(answers(fresh, message(1, "query"))) == [1]


def test_replies_come_in_the_order_in_which_they_are_pulled(
    grid: InProcessGrid, calls: list[tuple[int, str]]
) -> None:
    ids = list(grid.push_messages([message(node, "query") for node in (1, 2, 3)]))
    replies = list(grid.pull_messages(reversed(ids)))
    assert [reply.metadata.src_node_id for reply in replies] == [3, 2, 1]
    assert [reply.metadata.reply_to_message_id for reply in replies] == ids[::-1]
    assert [node for node, _ in calls] == [3, 2, 1]


def test_a_site_works_when_its_reply_is_pulled_and_not_before(
    grid: InProcessGrid, calls: list[tuple[int, str]]
) -> None:
    ids = grid.push_messages([message(1, "query"), message(2, "query")])
    pulled = iter(grid.pull_messages(ids))
    assert calls == []
    next(pulled)
    assert calls == [(1, "a")]
    next(pulled)
    assert calls == [(1, "a"), (2, "b")]


def test_a_message_is_answered_once_and_unknown_ones_never(grid: InProcessGrid) -> None:
    ids = list(grid.push_messages([message(1, "query")]))
    assert len(list(grid.pull_messages(ids))) == 1
    assert list(grid.pull_messages(ids)) == []
    assert list(grid.pull_messages(["unknown"])) == []


def test_messages_have_different_numbers(grid: InProcessGrid) -> None:
    asked = message(1, "query")
    ids = list(grid.push_messages([asked, message(1, "query")]))
    assert len(set(ids)) == 2
    assert asked.metadata.message_id == ids[0]


def test_sending_and_receiving_gives_all_replies(grid: InProcessGrid) -> None:
    replies = list(grid.send_and_receive([message(2, "query"), message(1, "query")], timeout=1.0))
    assert [reply.metadata.src_node_id for reply in replies] == [2, 1]


def test_flowers_older_spelling_of_a_message_works(grid: InProcessGrid) -> None:
    asked = grid.create_message(RecordDict(), "query", 2, "group", ttl=60.0)
    assert (asked.metadata.dst_node_id, asked.metadata.group_id) == (2, "group")
    assert counts(answers(grid, asked)) == [1]


def test_there_is_no_other_run(grid: InProcessGrid) -> None:
    with pytest.raises(NotImplementedError):
        _ = grid.run


# Errors


def wire_bytes(reply: Message) -> bytes:
    """Return the very bytes that would cross Flower's wire."""
    return bytes(message_to_proto(reply).SerializeToString())


def site_file(folder: Path, data: Path) -> dict[str, str]:
    path = folder / PATIENT / "site.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'name = "site-a"\ndata = "{data}"\nstate = "{folder / PATIENT / "state"}"\n'
        '[policy]\nmetrics = "cases"\nvalidation_means = true\npictures = true\n'
        'fingerprint = "exact"\n'
    )
    return {"site": str(path)}


def write_case(data: Path, *, truncated: bool = False) -> None:
    voxels = np.random.default_rng(1).uniform(1, 2, (4, 5, 6)).astype(np.float32)
    grid = grid_of((1.0, 1.0, 1.0), (4, 5, 6))
    for channel in TASK.channels:
        write_image(data / PATIENT / f"{PATIENT}_{channel}.nii.gz", voxels, grid)
    labels = data / PATIENT / f"{PATIENT}_seg.nii.gz"
    write_labels(labels, np.ones((4, 5, 6), np.uint8), grid)
    if truncated:
        os.truncate(data / PATIENT / f"{PATIENT}_t1.nii.gz", 40)


def asked() -> Iterator[tuple[str, RecordDict]]:
    """Yield one message of every kind that a coordinator sends."""
    yield "query.measure", to_content(messages.MeasureTask(run="r", task=TASK))
    common = {"run": "r", "plan_hash": "0"}
    train = messages.TrainTask(**common, method="fedavg", round=1, proximal_mu=0.0)
    yield "train", to_content(train, WEIGHTS)
    validate = messages.ValidateTask(**common, method="fedavg", round=1)
    yield "evaluate.validate", to_content(validate, WEIGHTS)
    test = messages.TestTask(**common, method="fedavg", pictures=True)
    yield "evaluate.test", to_content(test, WEIGHTS)
    yield "evaluate.floor", to_content(messages.FloorTask(run="r", plan_hash="h"))
    yield "query.prepare", to_content(messages.MeasureTask(run="r", task=TASK))  # malformed
    yield "train", RecordDict()


def error_of(reply: Message) -> tuple[int, str]:
    assert reply.has_error()
    return reply.error.code, str(reply.error.reason)


@pytest.mark.parametrize("damage", ["missing folder", "empty folder", "truncated", "no modality"])
@pytest.mark.parametrize("kind", ["query.measure"])
def test_damaged_data_becomes_a_code_and_the_text_stays_in_the_sites_log(
    tmp_path: Path, damage: str, kind: str
) -> None:
    data = tmp_path / f"data_{PATIENT}"
    if damage != "missing folder":
        data.mkdir()
    if damage in {"truncated", "no modality"}:
        write_case(data, truncated=damage == "truncated")
    if damage == "no modality":
        (data / PATIENT / f"{PATIENT}_flair.nii.gz").unlink()
    grid = InProcessGrid(app, {1: site_file(tmp_path, data)})
    (reply,) = answers(grid, message(1, kind, dict(asked())[kind]))
    assert error_of(reply) == (4100, "data")
    assert PATIENT.encode() not in wire_bytes(reply)
    log = tmp_path / PATIENT / "state" / "site.log"
    assert PATIENT in log.read_text()  # the hospital, and only it, reads what is wrong


def test_every_kind_of_message_fails_with_a_code_only(tmp_path: Path) -> None:
    grid = InProcessGrid(app, {1: site_file(tmp_path, tmp_path / f"absent_{PATIENT}")})
    replies = answers(grid, *[message(1, kind, content) for kind, content in asked()])
    assert [error_of(reply) for reply in replies] == [
        (4100, "data"),
        (4100, "policy:plan"),
        (4100, "policy:plan"),
        (4100, "policy:plan"),
        (4100, "policy:plan"),
        (4100, "message"),
        (4100, "message"),
    ]
    for reply in replies:
        assert PATIENT.encode() not in wire_bytes(reply)


def test_a_full_disk_of_a_site_becomes_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), PATIENT)

    data = tmp_path / f"data_{PATIENT}"
    write_case(data)
    grid = InProcessGrid(app, {1: site_file(tmp_path, data)})
    monkeypatch.setattr(os, "fsync", full)
    (reply,) = answers(grid, message(1, *next(asked())))
    assert error_of(reply) == (4100, "disk")
    assert PATIENT.encode() not in wire_bytes(reply)
    log = (tmp_path / PATIENT / "state" / "site.log").read_text()
    assert "cannot be written: No space left on device" in log


def test_a_state_folder_that_cannot_be_made_becomes_the_code_of_the_disk(tmp_path: Path) -> None:
    grid = InProcessGrid(app, {1: site_file(tmp_path, tmp_path)})
    (tmp_path / PATIENT / "state").write_text("a file where the folder should be")
    (reply,) = answers(grid, message(1, *next(asked())))
    assert error_of(reply) == (4100, "disk")


@pytest.mark.parametrize("text", [None, "name = 3\n", f'{PATIENT} = "x"\n', "[\n"])
def test_a_broken_site_file_becomes_a_code(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / f"{PATIENT}.toml"
    if text is not None:
        path.write_text(text)
    grid = InProcessGrid(app, {1: {"site": str(path)}})
    (reply,) = answers(grid, message(1, *next(asked())))
    assert error_of(reply) == (4100, "config")
    assert PATIENT.encode() not in wire_bytes(reply)


def test_a_node_without_a_site_file_becomes_a_code(tmp_path: Path) -> None:
    grid = InProcessGrid(app, {1: {PATIENT: "x"}})
    (reply,) = answers(grid, message(1, *next(asked())))
    assert error_of(reply) == (4100, "internal")
    assert PATIENT.encode() not in wire_bytes(reply)


def test_a_good_answer_names_no_case_either(tmp_path: Path) -> None:
    data = tmp_path / f"data_{PATIENT}"
    write_case(data)
    grid = InProcessGrid(app, {1: site_file(tmp_path, data)})
    (reply,) = answers(grid, message(1, *next(asked())))
    assert not reply.has_error()
    measured = body_of(messages.Measured, reply.content)
    assert (measured.site, measured.fingerprint.n_cases) == ("site-a", 1)
    assert isinstance(measured.fingerprint, Fingerprint)
    assert measured.fingerprint != empty(TASK)
    assert PATIENT.encode() not in wire_bytes(reply)
