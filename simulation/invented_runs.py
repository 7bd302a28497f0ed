"""Folders of runs that never ran: for the dashboard's tests, pictures and measurements.

The files are those of `server.run_folder`; nothing else tells them from a run's.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from common.codec import decode, encode, write_json, write_toml
from common.config import RunConfig
from common.evaluation.empty_rules import BRATS_RULES, RegionScore
from common.evaluation.scores import ScoreTable, definition_of, write_scores
from common.files import make_folder
from common.planning.planner import plan_summary
from common.planning.summary import PlanSummary
from common.ranks.ranking import rank_methods
from server.events import Event
from server.run_folder import RunFolder
from simulation.invented_events import HELD_OUT, InventedRun, Timed, dice_of, events_of

N_HELD_OUT_CASES = 24
SUMMARY = PlanSummary(
    name="brats-2021",
    channels=("t1", "t1ce", "t2", "flair"),
    n_training_cases=1251,
    n_foreground_classes=3,
    target_spacing_mm=(1.0, 1.0, 1.0),
    median_shape_at_target=(138.0, 171.0, 138.0),
)
OLDER_LINES: tuple[dict[str, Any], ...] = (
    {"event": "SiteTrained", "method": "fedavg", "round": 1, "site": "site-01", "loss": 0.5},
    {"event": "RoundEnded", "method": "fedavg", "round": 1, "duration": 12.5},
    {"event": "SiteJoined", "site": "site-01", "role": "training", "n_cases": 9, "city": "Bern"},
)
"""As an older version might have written them: fields that lack, an event of another name, a field
too many."""
CORRUPT_LINES = (
    b'{"time": "2026-01-01T00:00:00.000+00:00", "event": "SiteTra',
    b"\x00" * 64,
    b'{"time": "2026-01-01T00:00:00.000+00:00", "event": "Note", "text": "\xff\xfe"',
)


def write_invented(
    runs: Path, run: InventedRun, until: datetime, *, spoilt: Sequence[bytes] = ()
) -> RunFolder:
    """Write the folder of a run.

    Args:
        runs: folder to write it into.
        run: what it is to look like.
        until: when its last event was logged.
        spoilt: lines that stand in its log behind the second event, for example `CORRUPT_LINES`
            or `older_lines`.
    """
    folder = RunFolder(make_run_folder(runs / run.name))
    timed = list(events_of(run))
    began = until - timedelta(seconds=timed[-1][0])
    lines = [log_line(began + timedelta(seconds=seconds), event) for seconds, event in timed]
    folder.events.write_bytes(b"\n".join([*lines[:2], *spoilt, *lines[2:], b""]))
    write_toml(folder.config, config_of(run))
    if run.ending not in {"waiting", "approval"}:
        write_json(folder.plan, plan_summary(SUMMARY))
    if run.is_whole:
        _write_scores(folder, run)
    return folder


def make_run_folder(path: Path) -> Path:
    """Make a folder and return it."""
    make_folder(path)
    return path


def older_lines(time: datetime) -> tuple[bytes, ...]:
    """Return `OLDER_LINES` as lines of a log."""
    at = time.isoformat(timespec="milliseconds")
    return tuple(json.dumps({"time": at, **plain}).encode() for plain in OLDER_LINES)


def log_line(time: datetime, event: Event) -> bytes:
    """Return an event as `EventLog` writes it, without the line end."""
    at = time.isoformat(timespec="milliseconds")
    return json.dumps({"time": at, "event": type(event).__name__, **_plain(event)}).encode()


def timed_lines(timed: Sequence[Timed], began: datetime) -> bytes:
    """Return events as a piece of a log."""
    lines = (log_line(began + timedelta(seconds=seconds), event) for seconds, event in timed)
    return b"".join(line + b"\n" for line in lines)


def config_of(run: InventedRun) -> RunConfig:
    """Return a configuration that a run could have had."""
    federation: dict[str, Any] = {
        "seed": run.seed,
        "methods": list(run.methods),
        "rounds": run.n_rounds,
        "local_steps": 50,
        "held_out": [HELD_OUT],
        "min_sites": max(1, run.n_sites * 3 // 4),
        "proximal_mu": 0.01,
    }
    if run.masked and run.n_sites >= 3:
        federation["min_sites"] = max(3, federation["min_sites"])
    plain = {**_SECTIONS, "task": "brats-2021", "federation": federation}
    if run.private:
        privacy = {"delta": 1e-5, "clip_norm": 1.0, "sampling_rate": 0.05, "epsilon": 8.0}
        plain["privacy"] = privacy
    return decode(RunConfig, plain, source=run.name)


_SECTIONS: dict[str, Any] = {
    "model": {
        "configuration": "3d_fullres",
        "norm": "instance",
        "batch_norm": "local-statistics",
        "output": "labels",
        "base_features": 32,
        "deep_supervision": True,
    },
    "planning": {"rules": "paper", "memory_gb": 8},
    "training": {
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.99,
        "weight_decay": 3e-5,
        "schedule": {"name": "poly", "power": 0.9},
        "gradient_clip_norm": 12,
        "augmentation": {"preset": "none"},
        "validation_fraction": 0.2,
    },
    "evaluation": {
        "hd95": "pooled",
        "mirroring": False,
        "calibration_patches": 8,
        "ties": "min",
        "pictures": False,
    },
}


def _plain(event: Event) -> dict[str, Any]:
    """Return `encode(event)`, quickly: the events of a thousand rounds are many."""
    fields = {name: value for name, value in vars(event).items() if value is not None}
    return {
        name: value if isinstance(value, str | int | float | dict) else encode(value)
        for name, value in fields.items()
    }


def _write_scores(folder: RunFolder, run: InventedRun) -> None:
    rng = np.random.default_rng(run.seed)
    tables = {method: {HELD_OUT: _scores(run, method, rng)} for method in run.methods}
    definition = definition_of("brats-2021", "pooled", BRATS_RULES)
    for method, by_site in tables.items():
        for site, table in by_site.items():
            write_scores(folder.scores(method, site), table, definition)
    write_json(folder.ranking, rank_methods(tables, scheme="brats", ties="min"))


def _scores(run: InventedRun, method: str, rng: np.random.Generator) -> ScoreTable:
    mean = dice_of(run, method, run.n_rounds, HELD_OUT)
    return {
        f"case-{n + 1:03d}": {
            region: _score(min(1.0, abs(value + 0.08 * float(rng.normal()))))
            for region, value in mean.items()
        }
        for n in range(N_HELD_OUT_CASES)
    }


def _score(dice: float) -> RegionScore:
    hd95 = 1.0 + 30.0 * (1.0 - dice)
    return RegionScore(dice=dice, hd95=hd95, sensitivity=dice, specificity=0.999)
