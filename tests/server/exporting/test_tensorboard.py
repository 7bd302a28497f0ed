"""TensorBoard's files, read back by TensorBoard."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from server.exporting.export import Targets, export


def scalars_in(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """Return (round, value, time) of every point by tag, as TensorBoard reads them."""
    read = EventAccumulator(str(folder))
    read.Reload()
    tags = read.Tags()["scalars"]
    return {tag: [(e.step, e.value, e.wall_time) for e in read.Scalars(tag)] for tag in tags}


NEW_YEAR = 1767225600.0  # 2026-01-01T00:00:00 UTC


def test_tensorboard_reads_back_what_the_events_say(
    tmp_path: Path, run_dir: Callable[..., Path]
) -> None:
    assert export(run_dir(), Targets(tensorboard=tmp_path / "tb"), follow=False) == 15
    found = scalars_in(tmp_path / "tb" / "fedavg")
    assert found["loss/site/a"] == [(1, 1.0, NEW_YEAR + 3.5), (2, 0.5, NEW_YEAR + 6.5)]
    assert found["dice/mean"] == [(1, 0.5, NEW_YEAR + 10.5), (2, 0.75, NEW_YEAR + 12.5)]
    assert found["rank/place"] == [(2, 1.0, NEW_YEAR + 14.5)]
    assert found["held_out/dice/region/WT/site/h"] == [(2, 0.75, NEW_YEAR + 14.5)]
    assert scalars_in(tmp_path / "tb" / "run") == {
        "run/seconds": [(0, 14.0, NEW_YEAR + 14.5)],
        "run/peak_memory_bytes": [(0, 1024.0, NEW_YEAR + 14.5)],
        "floor/dice/region/WT/site/h": [(0, 0.375, NEW_YEAR + 13.5)],
    }


def test_settings_are_hyper_parameters_of_every_method(
    tmp_path: Path, run_dir: Callable[..., Path]
) -> None:
    export(run_dir(), Targets(tensorboard=tmp_path / "tb"), follow=False)
    read = EventAccumulator(str(tmp_path / "tb" / "fedavg"))
    read.Reload()
    content = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    told = HParamsPluginData.FromString(content).session_start_info
    assert told.hparams["federation.rounds"].number_value == 2
    assert told.hparams["method"].string_value == "fedavg"
    assert "task" not in told.hparams  # a path
    assert told.group_name == "study/fedavg"


@pytest.mark.parametrize("cut", [0, 1, 60, 2000])
def test_an_export_that_was_cut_short_goes_on_without_doubling(
    tmp_path: Path, run_dir: Callable[..., Path], cut: int
) -> None:
    run, whole, folder = run_dir(), Targets(tensorboard=tmp_path / "whole"), tmp_path / "tb"
    export(run, whole, follow=False)
    export(run, Targets(tensorboard=folder), follow=False)
    (file,) = (folder / "fedavg").iterdir()
    file.write_bytes(file.read_bytes()[: file.stat().st_size - cut])
    export(run, Targets(tensorboard=folder), follow=False)
    assert len(list((folder / "fedavg").iterdir())) == (2 if cut else 1)
    expected = scalars_in(tmp_path / "whole" / "fedavg")
    assert scalars_in(folder / "fedavg") == expected
    assert sum(map(len, expected.values())) == 60


def test_a_run_that_grew_is_continued(
    tmp_path: Path, run_dir: Callable[..., Path], lines: SimpleNamespace
) -> None:
    run, targets = run_dir(*lines.whole[:5]), Targets(tensorboard=tmp_path / "tb")
    export(run, targets, follow=False)
    assert len(scalars_in(tmp_path / "tb" / "fedavg")["loss/site/a"]) == 1
    (run / "events.jsonl").write_text(lines.text_of(*lines.whole))
    export(run, targets, follow=False)
    found = scalars_in(tmp_path / "tb" / "fedavg")
    assert [step for step, _, _ in found["loss/site/a"]] == [1, 2]
    assert [step for step, _, _ in found["loss/mean"]] == [1, 2]
