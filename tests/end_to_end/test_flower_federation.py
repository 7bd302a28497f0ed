"""A SuperLink and two SuperNodes on loopback against the in-process carrier: equal weights.

Also when a site and the coordinator are killed: the weights are those that the replies imply which
arrived in the end.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, Message

from client.app import app
from common.messages import TrainTask
from common.task import load_task
from common.wire import body_of
from server.event_log import EventLog
from server.flower_sites import FlowerSites
from server.run import run
from server.run_folder import RunFolder, latest_checkpoint
from simulation.grid import InProcessGrid

ROUNDS = 6  # while a site is away for two or three, and one for the coordinator's death


class Losing(InProcessGrid):
    """Loses what a node is asked to train in some rounds, as if its process had died."""

    lost: frozenset[tuple[int, int]] = frozenset()

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message_id in message_ids:
            asked = self._waiting[message_id]
            training = asked.metadata.message_type == "train"
            round_ = body_of(TrainTask, asked.content).round if training else 0
            if (asked.metadata.dst_node_id, round_) in self.lost:
                del self._waiting[message_id]
                yield Message(Error(3, "node unavailable"), reply_to=asked)
            else:
                yield from super().pull_messages([message_id])


def in_process(study, folder: Path, lost: frozenset[tuple[int, int]] = frozenset()) -> RunFolder:
    """Run a study in this process; nodes are numbered by the names of the sites."""
    done = RunFolder(folder / "run")
    files = study.write_sites(folder)
    grid = Losing(app, {n: {"site": str(path)} for n, path in enumerate(files.values(), start=1)})
    grid.lost = lost
    task = load_task(study.config.task)
    run(study.config, task, FlowerSites(grid), done, EventLog(done.events), device="test")
    return done


def assert_equal_state(one: RunFolder, other: RunFolder, *, round_: int) -> None:
    first = latest_checkpoint(one.checkpoints("fedavg"))
    second = latest_checkpoint(other.checkpoints("fedavg"))
    assert first is not None
    assert second is not None
    assert first[0] == second[0] == round_
    assert first[1]["global"].keys() == second[1]["global"].keys()
    for name, tensor in first[1]["global"].items():
        np.testing.assert_array_equal(tensor, second[1]["global"][name], err_msg=name)


@pytest.fixture(scope="module")
def sites(tiny_study, flower, tmp_path_factory) -> dict[str, Path]:
    """Start both sites, and wait for them: a run that needs one site begins without the other."""
    files = tiny_study.write_sites(tmp_path_factory.mktemp("sites"))
    for site, path in files.items():
        flower.start(site, path)
    flower.wait_for_sites(len(files))
    return files


@pytest.mark.timeout(600)
def test_real_flower_and_the_in_process_carrier_end_with_the_same_weights(
    tiny_study, tmp_path, flower, sites
):
    real = tmp_path / "undisturbed"
    tiny_study.write_run(real)
    flower.run_to_its_end(real)
    assert_equal_state(RunFolder(real), in_process(tiny_study, tmp_path / "one"), round_=2)


@pytest.mark.timeout(900)
def test_a_site_and_the_coordinator_that_are_killed_cost_their_replies_and_nothing_else(
    tiny_study, tmp_path, flower, sites, events
):
    federation = replace(tiny_study.config.federation, rounds=ROUNDS, min_sites=1, retries=0)
    study = replace(tiny_study, config=tiny_study.config_with(federation=federation))
    real = tmp_path / "killed"
    study.write_run(real)
    flower.start_run(real)

    flower.wait_for_event(real, event="RoundFinished", round=1)
    flower.kill("beta")  # while it trains in round 2
    flower.wait_for_event(real, event="SiteFailed", round=2, site="beta")
    flower.start("beta", sites["beta"])
    flower.wait_for_event(real, event="SiteTrained", site="beta", times=2)  # it was found again
    flower.kill_server_app()
    flower.run_to_its_end(real)

    trained = [event for event in events(real, "SiteTrained") if event["site"] == "beta"]
    missed = set(range(1, ROUNDS + 1)) - {event["round"] for event in trained}
    assert 2 in missed
    assert {1, ROUNDS}.isdisjoint(missed)
    expected = in_process(study, tmp_path / "one", frozenset((2, n) for n in missed))
    assert_equal_state(RunFolder(real), expected, round_=ROUNDS)
