"""How large the model of a run is, from the head of its file; no tensor is read."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Ends of the names of batch-norm tensors that are no parameters."""


@dataclass(frozen=True)
class ModelSize:
    """Parameters of a model, without batch-norm statistics."""

    file: str
    """Relative to the run directory."""
    n_parameters: int
    n_tensors: int


def model_size(run_dir: Path) -> ModelSize | None:
    """Return the size of the first model that is there, or else of a checkpoint; None without."""
    for path in _candidates(run_dir):
        shapes = _shapes(path)
        if shapes:
            file = path.relative_to(run_dir).as_posix()
            return ModelSize(file, sum(map(prod, shapes)), len(shapes))
    return None


def _candidates(run_dir: Path) -> Iterator[Path]:
    """Yield files that hold a model, final ones first."""
    yield from sorted(run_dir.glob("models/*.safetensors"))
    yield from sorted(run_dir.glob("checkpoints/*/round-*.safetensors"))


def _shapes(path: Path) -> list[tuple[int, ...]]:
    """Return the shapes of one model's parameters; none for a file that cannot be read.

    A checkpoint names its tensors `group/name`; one group is one model.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            head = json.loads(file.read(min(length, 2**26)))
    except (OSError, ValueError):
        return []
    shapes = {name: tuple(one["shape"]) for name, one in head.items() if name != "__metadata__"}
    group = next(iter(shapes), "").rpartition("/")[0]
    return [
        shape
        for name, shape in shapes.items()
        if name.rpartition("/")[0] == group and not name.endswith(STATISTICS)
    ]
