"""The round that validation liked best is kept, whatever comes after it."""

from pathlib import Path

import numpy as np
import pytest

from server.best_round import best_state, keep_if_best
from server.event_log import EventLog
from server.events import SiteValidated, SumOpened
from server.run_folder import RunFolder


def run_of(tmp_path: Path, curve: dict[int, tuple[float, ...]]) -> RunFolder:
    """Write the validation of every round, one Dice per site."""
    folder = RunFolder(tmp_path / "run")
    log = EventLog(folder.events)
    log.append(SiteValidated(method="fedprox", round=1, site="a", dice={"WT": 1.0}))
    for round_, by_site in curve.items():
        for site, dice in zip("abc", by_site, strict=False):
            log.append(SiteValidated(method="fedavg", round=round_, site=site, dice={"WT": dice}))
    return folder


def state(round_: int) -> dict[str, dict[str, np.ndarray]]:
    return {"global": {"w": np.full(3, round_, np.float32)}}


@pytest.mark.parametrize(
    ("curve", "best"),
    [
        ({1: (0.1, 0.3), 2: (0.6, 0.8), 3: (0.5, 0.7)}, 2),
        ({1: (0.1,), 2: (0.2,), 3: (0.3,)}, 3),
        ({1: (0.3,), 2: (0.3,), 3: (0.1,)}, 1),
        ({1: (0.3,), 3: (0.2,)}, 1),
    ],
)
def test_the_best_round_is_kept_and_no_other(tmp_path: Path, curve, best: int) -> None:
    folder = run_of(tmp_path, curve)
    for round_ in (1, 2, 3):
        keep_if_best(folder, "fedavg", round_, state(round_))
    found = best_state(folder, "fedavg")
    assert found is not None
    assert found[0] == best
    assert found[2]["global"]["w"].tolist() == [best] * 3
    names = [path.name for path in folder.checkpoints("fedavg").iterdir()]
    assert names == [f"best-{best:04d}.safetensors"]


def test_validation_that_is_seen_only_as_its_sum_is_of_the_round_before(tmp_path: Path) -> None:
    folder = run_of(tmp_path, {})
    for round_, dice in ((1, 0.9), (2, 0.5), (3, 0.75)):
        opened = SumOpened(
            method="fedavg",
            round=round_,
            sites=("a", "b", "c"),
            count=4,
            dice={"WT": dice},
            update_norm=1.0,
            seconds=1.0,
        )
        EventLog(folder.events).append(opened)
    for round_ in (1, 2, 3):
        keep_if_best(folder, "fedavg", round_, state(round_))
    found = best_state(folder, "fedavg")
    assert found is not None
    assert found[:2] == (2, 0.75)


def test_keeping_a_round_again_changes_nothing(tmp_path: Path) -> None:
    folder = run_of(tmp_path, {1: (0.9,), 2: (0.5,)})
    for round_ in (1, 2, 1, 2):
        keep_if_best(folder, "fedavg", round_, state(round_))
    assert best_state(folder, "fedavg")[0] == 1


def test_without_validation_there_is_no_best(tmp_path: Path) -> None:
    folder = run_of(tmp_path, {})
    keep_if_best(folder, "fedavg", 1, state(1))
    assert best_state(folder, "fedavg") is None
