"""A faulty site among seven, in a real round: what it sends does not reach the shared model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message

from client.app import app
from common.axes import Weights
from common.messages import Update
from common.task import load_task
from common.wire import body_of, to_content, weights_of
from server.event_log import EventLog
from server.flower_sites import FlowerSites
from server.run import run
from server.run_folder import RunFolder, latest_checkpoint
from simulation.grid import InProcessGrid
from simulation.phantoms import PhantomStudy, partition_of, write_study

N_SITES, FAULTY = 7, 4  # numbers of nodes
ROBUST = ("median", "trimmed-mean", "krum", "multi-krum", "bulyan")
Attack = Callable[[Weights, Weights], Weights]


class Sent:
    """The ClientApp with one faulty node before it; remembers the updates of the others."""

    def __init__(self, attack: Attack) -> None:
        self._attack = attack
        self.honest: dict[str, list[Weights]] = {}

    def __call__(self, message: Message, context: Context) -> Message:
        reply = app(message, context)
        if message.metadata.message_type != "train":
            return reply
        own = weights_of(reply.content)
        if context.node_id != FAULTY:
            method = json.loads(message.content.config_records["body"]["json"])["method"]
            self.honest.setdefault(method, []).append(own)
            return reply
        altered = self._attack(weights_of(message.content), own)
        return Message(to_content(body_of(Update, reply.content), altered), reply_to=message)


@pytest.fixture(scope="module")
def study(tiny_study, phantom_site, tmp_path_factory):
    """Seven sites with a case each."""
    site = phantom_site("site", 1)
    folder = tmp_path_factory.mktemp("seven")
    phantoms = PhantomStudy(
        seed=5,
        field_of_view_mm=(140.0, 168.0, 144.0),
        sites=tuple(replace(site, name=f"site-{n}") for n in range(1, N_SITES + 1)),
    )
    write_study(phantoms, folder)
    return replace(tiny_study, data=folder, sites=dict(partition_of(phantoms).sites))


def federate(study, home: Path, attack: Attack, **federation: object) -> tuple[RunFolder, Sent]:
    """Run one round; return its folder and what the honest sites sent."""
    wanted = replace(study.config.federation, rounds=1, local_steps=2, n_faulty=1, **federation)
    config = replace(
        study.config,
        federation=wanted,
        model=replace(study.config.model, norm="instance"),
        training=replace(study.config.training, compile="off"),
    )
    files = study.write_sites(home).values()
    nodes = {n: {"site": str(path)} for n, path in enumerate(files, start=1)}
    sent, folder = Sent(attack), RunFolder(home / "run")
    sites = FlowerSites(InProcessGrid(sent, nodes))  # type: ignore[arg-type]
    run(config, load_task(config.task), sites, folder, EventLog(folder.events), device="")
    return folder, sent


def within_the_honest(folder: RunFolder, sent: Sent, method: str) -> bool:
    """Return whether every weight lies between the least and the greatest of the honest ones."""
    kept = latest_checkpoint(folder.checkpoints(method))
    assert kept is not None
    honest = sent.honest[method]
    assert len(honest) == N_SITES - 1
    stacked = {name: np.stack([one[name] for one in honest]) for name in honest[0]}
    return all(
        (values.min(axis=0) <= kept[1]["global"][name]).all()
        and (kept[1]["global"][name] <= values.max(axis=0)).all()
        for name, values in stacked.items()
    )


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(
            lambda sent, own: {n: w - (own[n] - w) for n, w in sent.items()}, id="sign flip"
        ),
        pytest.param(
            lambda sent, own: {n: w + 100 * (own[n] - w) for n, w in sent.items()}, id="100x"
        ),
        pytest.param(
            lambda sent, _: {n: np.full_like(w, 1) for n, w in sent.items()}, id="constant"
        ),
    ],
)
def test_robust_methods_stay_within_the_honest_updates_and_the_mean_does_not(
    study, tmp_path: Path, attack: Attack
):
    methods = ("fedavg", *ROBUST)
    folder, sent = federate(study, tmp_path, attack, methods=methods, min_sites=N_SITES)
    inside = {method: within_the_honest(folder, sent, method) for method in methods}
    assert inside == {"fedavg": False, **dict.fromkeys(ROBUST, True)}


def test_an_update_that_is_not_finite_is_refused_and_reported(study, tmp_path: Path):
    def not_a_number(sent: Weights, own: Weights) -> Weights:
        return {name: np.full_like(tensor, np.nan) for name, tensor in own.items()}

    # what is refused is one of the faulty: no robust method stops, though bulyan needs all seven
    methods = ROBUST[1:]  # the median promises nothing about a number of faulty sites
    folder, sent = federate(study, tmp_path, not_a_number, methods=methods, min_sites=N_SITES)
    events = [json.loads(line) for line in folder.events.read_text().splitlines()]
    failed = [event for event in events if event["event"] == "SiteFailed"]
    assert [(e["method"], e["site"], e["code"]) for e in failed] == [
        (method, f"site-{FAULTY}", "message") for method in methods
    ]
    assert all("expected finite values" in event["reason"] for event in failed)
    assert all(within_the_honest(folder, sent, method) for method in methods)
