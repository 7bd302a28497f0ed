"""The run directory: where everything of a run lies, and the checkpoints in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, load_file, save

from common.axes import Weights
from common.errors import ConfigError
from common.files import keep_recent, round_of, write_atomically

CHECKPOINTS_KEPT = 2


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run; the names are a contract with other programs."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the run, as sites know it."""
        return self.path.name

    def check_name(self) -> None:
        """Demand a name that sites can use in theirs.

        Raises:
            ConfigError: for other characters than letters, digits, - and _.
        """
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(
                f"{self.path}: expected a folder name of letters, digits, - and _, "
                f"found {self.name!r}"
            )

    @property
    def config(self) -> Path:
        """Configuration as resolved."""
        return self.path / "config.toml"

    @property
    def task(self) -> Path:
        """The task, whole, so that the run can be read without the package that made it."""
        return self.path / "task.toml"

    @property
    def cohort(self) -> Path:
        """The sites that the run began with."""
        return self.path / "cohort.json"

    @property
    def plan(self) -> Path:
        """The plan that all sites agreed on."""
        return self.path / "plan.json"

    @property
    def events(self) -> Path:
        """Append-only log of events."""
        return self.path / "events.jsonl"

    @property
    def ranking(self) -> Path:
        """Ranking of the methods."""
        return self.path / "ranking.json"

    @property
    def first_stage(self) -> Path:
        """Copy of the run that is a cascade's first stage."""
        return self.path / "first-stage"

    def checkpoints(self, method: str) -> Path:
        """Folder of a method's checkpoints."""
        return self.path / "checkpoints" / method

    def model(self, method: str) -> Path:
        """Final shared model of a method."""
        return self.path / "models" / f"{method}.safetensors"

    def postprocessing(self, method: str) -> Path:
        """What is done to the labels of a method's models."""
        return self.path / "models" / f"{method}.postprocessing.json"

    def scores(self, method: str, site: str) -> Path:
        """Scores of a method's final model on a held-out site."""
        return self.path / "scores" / method / f"{site}.csv"

    def tested(self, model: str, site: str) -> Path:
        """Record that a held-out site tested a final model, whatever it released of it."""
        return self.path / "scores" / model / f"{site}.tested.json"

    def released(self, site: str) -> Path:
        """Sums of ranks that a held-out site released in place of metrics of cases."""
        return self.path / "released" / f"{site}.json"

    def picture(self, method: str, site: str, kind: str) -> Path:
        """An overlay picture that a site released."""
        return self.path / "pictures" / f"{method}-{site}-{kind}.png"


def write_state(path: Path, state: Mapping[str, Weights]) -> None:
    """Write named groups of tensors, whole or not at all."""
    flat = {
        f"{group}/{name}": np.asarray(tensor, order="C")  # safetensors mixes up other layouts
        for group, weights in state.items()
        for name, tensor in weights.items()
    }
    write_atomically(path, save(flat))


def read_state(path: Path) -> dict[str, Weights]:
    """Read named groups of tensors.

    Raises:
        ConfigError: when the file is damaged.
    """
    try:
        flat = load(path.read_bytes())
    except SafetensorError as error:
        raise ConfigError(f"{path}: expected a whole state: {error}") from None
    state: dict[str, Weights] = {}
    for key, tensor in flat.items():
        group, name = key.split("/", 1)
        state.setdefault(group, {})[name] = tensor
    return state


def checkpoint_file(folder: Path, round_: int) -> Path:
    """Return where the state after a round lies."""
    return folder / f"round-{round_:04d}.safetensors"


def save_checkpoint(folder: Path, round_: int, state: Mapping[str, Weights]) -> None:
    """Write the state after a round, whole or not at all; keep the last two."""
    path = checkpoint_file(folder, round_)
    write_state(path, state)
    keep_recent(path, CHECKPOINTS_KEPT)


def latest_checkpoint(folder: Path) -> tuple[int, dict[str, Weights]] | None:
    """Return (round, state) of the newest readable checkpoint, or None."""
    numbered = [(round_of(path), path) for path in folder.glob("round-*.safetensors")]
    for round_, path in sorted((n, path) for n, path in numbered if n is not None)[::-1]:
        try:
            return round_, read_state(path)
        except ConfigError:
            continue
    return None


def save_model(path: Path, weights: Weights) -> None:
    """Write a model's weights, whole or not at all."""
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in weights.items()}
    write_atomically(path, save(contiguous))


def load_model(path: Path) -> Weights:
    """Read a model's weights."""
    weights: Weights = load_file(path)
    return weights
