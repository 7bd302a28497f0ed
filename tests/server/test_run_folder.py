"""The run directory: names that other programs know, and checkpoints that survive a crash."""

from pathlib import Path

import numpy as np
import pytest

from common.axes import Weights
from common.errors import ConfigError
from server.run_folder import (
    RunFolder,
    latest_checkpoint,
    load_model,
    save_checkpoint,
    save_model,
)


def state(value: float) -> dict[str, Weights]:
    return {
        "global": {"a": np.full((2, 3), value, np.float32), "n": np.array(7, np.int64)},
        "moments": {"a": np.array([value / 3, -0.0, np.float32(1e-42)], np.float32)},
    }


def assert_state(found: dict[str, Weights], value: float) -> None:
    expected = state(value)
    assert {group: set(weights) for group, weights in found.items()} == {
        "global": {"a", "n"},
        "moments": {"a"},
    }
    for group, weights in expected.items():
        for name, tensor in weights.items():
            other = found[group][name]
            assert (other.dtype, other.shape) == (tensor.dtype, tensor.shape)
            assert other.tobytes() == tensor.tobytes()


def test_the_names_in_a_run_directory_are_a_contract() -> None:
    run = RunFolder(Path("runs/first"))
    assert run.name == "first"
    assert [
        path.relative_to("runs/first").as_posix()
        for path in (
            run.config,
            run.task,
            run.plan,
            run.events,
            run.ranking,
            run.checkpoints("fedavg"),
            run.model("fedavg"),
            run.scores("fedavg", "site-5"),
            run.picture("fedavg", "site-5", "best"),
        )
    ] == [
        "config.toml",
        "task.toml",
        "plan.json",
        "events.jsonl",
        "ranking.json",
        "checkpoints/fedavg",
        "models/fedavg.safetensors",
        "scores/fedavg/site-5.csv",
        "pictures/fedavg-site-5-best.png",
    ]


@pytest.mark.parametrize("name", ["a", "Run-1_b", "2024"])
def test_a_name_of_letters_and_digits_is_fit_for_the_sites(name: str) -> None:
    RunFolder(Path("runs") / name).check_name()


@pytest.mark.parametrize("name", ["a b", "a.b", "a@b", "-", "..", "a\n"])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected a folder name of letters, digits, - and _"):
        RunFolder(Path("runs") / name).check_name()


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "absent") is None
    assert latest_checkpoint(tmp_path) is None


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 3, state(1.5))
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == 3
    assert_state(found[1], 1.5)


def test_a_tensor_that_lies_transposed_in_memory_comes_back_the_same(tmp_path: Path) -> None:
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3).T
    save_checkpoint(tmp_path, 1, {"global": {"a": tensor}})
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found[1]["global"]["a"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_tensor_names_may_hold_slashes(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"global": {"a/b": np.ones(1, np.float32)}})
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert list(found[1]["global"]) == ["a/b"]


def test_the_last_two_checkpoints_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    for round_ in (1, 2, 9, 10, 11):
        save_checkpoint(tmp_path, round_, state(round_))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "round-0010.safetensors",
        "round-0011.safetensors",
    ]
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == 11


@pytest.mark.parametrize("kept_bytes", [0, 1, 7, 8, 9, 60, -1])
def test_a_truncated_newest_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, kept_bytes: int
) -> None:
    save_checkpoint(tmp_path, 1, state(1.0))
    save_checkpoint(tmp_path, 2, state(2.0))
    newest = tmp_path / "round-0002.safetensors"
    newest.write_bytes(newest.read_bytes()[:kept_bytes])
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == 1
    assert_state(found[1], 1.0)


def test_a_half_written_neighbour_is_no_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, state(1.0))
    (tmp_path / ".round-0002.safetensors.x1y2z3").write_bytes(b"half")
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == 1


def test_only_damaged_checkpoints_are_none(tmp_path: Path) -> None:
    (tmp_path / "round-0001.safetensors").write_bytes(b"damaged")
    assert latest_checkpoint(tmp_path) is None


def test_a_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    weights = state(0.1)["moments"]
    save_model(tmp_path / "models" / "m.safetensors", weights)
    again = load_model(tmp_path / "models" / "m.safetensors")
    assert again.keys() == weights.keys()
    assert again["a"].tobytes() == weights["a"].tobytes()


def test_the_newest_checkpoint_is_read_beyond_four_digits(tmp_path: Path) -> None:
    for round_ in (9998, 9999, 10_000):
        save_checkpoint(tmp_path, round_, state(1.0))
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == 10_000
