"""A federation whose updates are seen only as their sum is the plain one, and shows no update."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from client.app import app
from common.secure_aggregation import SecureAggregation
from common.task import load_task
from common.wire import weights_of
from server.event_log import EventLog
from server.flower_sites import FlowerSites
from server.run import run
from server.run_folder import RunFolder, load_model
from simulation.grid import InProcessGrid

TASK = load_task("brats-2021")
SITES = ("alpha", "beta", "gamma")
ERROR = 3 * 2.0**-29 * 7 / 4 + 2.0**-22  # stated bound, and the weights' own rounding twice


class Recording(InProcessGrid):
    """Keeps what the sites answer to the question of a round."""

    def __init__(self, files: dict[str, Path]) -> None:
        super().__init__(app, {n: {"site": str(p)} for n, p in enumerate(files.values(), start=1)})
        self.kinds: list[str] = []
        self.updates: list[tuple[dict, dict[str, np.ndarray]]] = []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message_id in message_ids:
            kind = self._waiting[message_id].metadata.message_type
            for reply in super().pull_messages([message_id]):
                self.kinds.append(kind)
                if kind == "train":
                    body = json.loads(reply.content.config_records["body"]["json"])
                    arrays = {n: np.array(w) for n, w in weights_of(reply.content).items()}
                    self.updates.append((body, arrays))
                yield reply


def trained(study, home: Path, secure: SecureAggregation | None) -> tuple[RunFolder, Recording]:
    cases = tuple(case for names in study.sites.values() for case in names)
    federation = replace(study.config.federation, rounds=1, min_sites=3, secure_aggregation=secure)
    study = replace(
        study,
        config=study.config_with(federation=federation),
        sites=dict(zip(SITES, (cases[:2], cases[2:4], cases[4:]), strict=True)),
    )
    grid, folder = Recording(study.write_sites(home)), RunFolder(home / "run")
    run(study.config, TASK, FlowerSites(grid), folder, EventLog(folder.events), device="test")
    return folder, grid


@pytest.fixture(scope="module")
def plain(tiny_study, tmp_path_factory) -> tuple[RunFolder, Recording]:
    return trained(tiny_study, tmp_path_factory.mktemp("plain"), None)


@pytest.fixture(scope="module")
def secure(tiny_study, tmp_path_factory) -> tuple[RunFolder, Recording]:
    home = tmp_path_factory.mktemp("secure")
    return trained(tiny_study, home, SecureAggregation(min_sites=3))


def test_the_model_is_that_of_the_plain_federation_within_the_stated_error(plain, secure) -> None:
    one, other = (load_model(folder.model("fedavg")) for folder, _ in (plain, secure))
    assert set(one) == set(other)
    for name, tensor in one.items():
        assert np.abs(tensor - other[name]).max() < ERROR, name


def test_no_answer_holds_what_a_site_learned(plain, secure) -> None:
    known = [arrays for _, arrays in plain[1].updates]
    assert len(known) == len(secure[1].updates) == 3
    for body, arrays in secure[1].updates:
        assert {*body} == {"round", "n_cases", "n_steps", "seconds", "masked"}
        (vector,) = arrays.values()
        seen = vector.tobytes()
        for update in known:
            for tensor in update.values():
                piece = tensor.reshape(-1)[:2].tobytes()
                assert tensor.size < 2 or piece not in seen


def test_the_log_tells_the_sums_of_a_round_and_nothing_of_a_site(secure) -> None:
    events = [json.loads(line) for line in secure[0].events.read_text().splitlines()]
    (opened,) = (event for event in events if event["event"] == "SumOpened")
    assert (opened["sites"], opened["count"]) == ([*SITES], 4)
    assert opened["loss"] > 0
    kinds = {event["event"] for event in events}
    assert kinds.isdisjoint({"SiteTrained", "SiteValidated"})
    assert "evaluate.validate" not in secure[1].kinds
    asked = [kind for kind in secure[1].kinds if not kind.endswith(("measure", "prepare"))]
    assert asked == [
        k for k in ("query.keys", "train", "query.agree", "query.unmask") for _ in "abc"
    ]
