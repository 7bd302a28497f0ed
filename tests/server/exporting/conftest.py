"""A small run as it lies on the disk: plain lines with fixed times, a configuration, scores."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

CONFIG = """
task = "/home/someone/tasks/brain.toml"

[federation]
seed = 7
rounds = 2
methods = ["fedavg"]
exclude_after = 3
upload = "float16"

[model]
deep_supervision = true
start = { run = "../runs/public", method = "fedavg" }

[training]
learning_rate = 0.003
loss = [{ term = "dice", weight = 1.0 }, { term = "cross-entropy", weight = 0.5 }]

[simulation]
data = 'C:\\data\\brains'
"""
SCORES = """case,region,dice,hd95,sensitivity,specificity
case-0001,WT,0.5,4.0,0.75,1.0
case-0001,ET,,373.1287,0.0,1.0
case-0002,WT,1.0,0.0,1.0,1.0
case-0002,ET,0.25,inf,0.5,1.0
"""
RANKING = {
    "scheme": "brats",
    "ties": "min",
    "methods": ["fedavg"],
    "mean_rank": {"fedavg": 1.25},
    "score": {"fedavg": 0.625},
    "final_rank": {"fedavg": 1},
    "permutation": [],
}


def line_at(second: int, event: str, **fields: Any) -> dict[str, Any]:
    """Return an event as it stands in a log, with a time on New Year's Day 2026."""
    return {"time": f"2026-01-01T00:00:{second:02d}.500+00:00", "event": event, **fields}


def trained(
    second: int, round_: int, site: str, loss: float | None, n_cases: int
) -> dict[str, Any]:
    told = {} if loss is None else {"loss": loss}
    return line_at(
        second,
        "SiteTrained",
        method="fedavg",
        round=round_,
        site=site,
        n_cases=n_cases,
        n_steps=10,
        **{**told, "update_norm": 1.5, "seconds": 2.25, "upload_bytes": 1000},
        download_bytes=100,
    )


def validated(second: int, round_: int, site: str, wt: float, et: float) -> dict[str, Any]:
    named = {"method": "fedavg", "round": round_, "site": site}
    return line_at(second, "SiteValidated", **named, dice={"WT": wt, "ET": et})


def finished(second: int, round_: int, n_sites: int = 2) -> dict[str, Any]:
    named = {"method": "fedavg", "round": round_}
    return line_at(second, "RoundFinished", **named, n_sites=n_sites, seconds=3.5)


STARTED = line_at(
    0,
    "RunStarted",
    run="study",
    task="brats-2021",
    methods=["fedavg"],
    seed=7,
    resumed=False,
    versions={"torch": "2.13"},
    device="CPU",
)
WHOLE = (
    STARTED,
    line_at(1, "SiteJoined", site="a", role="training", n_cases=3),
    line_at(2, "SiteJoined", site="b", role="training"),
    trained(3, 1, "a", 1.0, 3),
    trained(4, 1, "b", 0.5, 1),
    finished(5, 1),
    trained(6, 2, "a", 0.5, 3),
    validated(7, 1, "a", 0.5, 0.25),
    trained(8, 2, "b", 0.25, 1),
    validated(9, 1, "b", 0.75, 0.5),
    finished(10, 2),
    validated(11, 2, "a", 1.0, 0.5),
    line_at(12, "HeldOutScored", method="fedavg", site="h", n_cases=2, note="", metrics="cases"),
    line_at(
        13,
        "FloorMeasured",
        site="h",
        region="WT",
        channel="flair",
        mean_dice=0.375,
        threshold=0.9,
    ),
    line_at(14, "RunFinished", seconds=14.0, peak_memory_bytes=1024),
)


def text_of(*lines: Mapping[str, Any]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture(scope="session")
def lines() -> SimpleNamespace:
    """Return what makes lines of a log, and the lines of a whole run."""
    return SimpleNamespace(
        whole=WHOLE,
        started=STARTED,
        at=line_at,
        trained=trained,
        validated=validated,
        finished=finished,
        text_of=text_of,
    )


@pytest.fixture
def run_dir(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a run directory with these lines; the whole run without any."""

    def write(*lines: Mapping[str, Any]) -> Path:
        folder = tmp_path / "study"
        (folder / "scores" / "fedavg").mkdir(parents=True)
        (folder / "events.jsonl").write_text(text_of(*(lines or WHOLE)))
        (folder / "config.toml").write_text(CONFIG)
        (folder / "scores" / "fedavg" / "h.csv").write_text(SCORES)
        (folder / "ranking.json").write_text(json.dumps(RANKING))
        return folder

    return write
