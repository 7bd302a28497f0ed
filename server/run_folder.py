"""The run directory: where everything of a run lies, and the checkpoints in it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from common.axes import Weights
from common.errors import ConfigError, DiskError
from common.files import keep_recent, locked, make_folder, replacing, round_of

FEWEST_KEPT = 2  # a damaged one does not end a run


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

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process; the system lets go of it however the process ends.

        Raises:
            ConfigError: when another process holds it: two coordinators would mix their rounds.
        """
        make_folder(self.path)
        with (self.path / ".lock").open("w") as file:
            if not locked(file):
                raise ConfigError(f"{self.path}: another process is running this run")
            yield

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

    @property
    def start(self) -> Path:
        """Copy of the weights that all methods start from, of another run's model."""
        return self.path / "start.safetensors"

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

    @property
    def released_together(self) -> Path:
        """What held-out sites released only as the sum over all of them."""
        return self.path / "released-together.json"

    def picture(self, method: str, site: str, kind: str) -> Path:
        """An overlay picture that a site released."""
        return self.path / "pictures" / f"{method}-{site}-{kind}.png"


@dataclass(frozen=True)
class StoredWeights(Mapping[str, NDArray[Any]]):
    """A group of tensors in a file; each is read when it is looked at, and not kept."""

    path: Path
    group: str
    names: tuple[str, ...]

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Read one tensor."""
        if name not in self.names:
            raise KeyError(name)
        with safe_open(self.path, framework="numpy") as file:
            return np.asarray(file.get_tensor(f"{self.group}/{name}"))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.names)

    def __len__(self) -> int:
        """Return how many tensors there are."""
        return len(self.names)


def write_state(path: Path, state: Mapping[str, Weights]) -> None:
    """Write named groups of tensors, whole or not at all."""
    _write(
        path,
        {
            f"{group}/{name}": tensor
            for group, weights in state.items()
            for name, tensor in weights.items()
        },
    )


def read_state(path: Path) -> dict[str, Weights]:
    """Return named groups of tensors, which stay in the file until they are looked at.

    Raises:
        ConfigError: when the file is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            keys = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path}: expected a whole state: {error}") from None
    groups: dict[str, list[str]] = {}
    for key in keys:
        group, name = key.split("/", 1)
        groups.setdefault(group, []).append(name)
    return {group: StoredWeights(path, group, tuple(names)) for group, names in groups.items()}


def checkpoint_file(folder: Path, round_: int) -> Path:
    """Return where the state after a round lies."""
    return folder / f"round-{round_:04d}.safetensors"


def save_checkpoint(
    folder: Path, round_: int, state: Mapping[str, Weights], *, n_kept: int = FEWEST_KEPT
) -> None:
    """Write the state after a round, whole or not at all; keep the last ones."""
    path = checkpoint_file(folder, round_)
    write_state(path, state)
    keep_recent(path, n_kept)


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
    _write(path, dict(weights))


def _write(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write tensors; straight from where they lie, for `safetensors.save` makes two copies."""
    contiguous = {  # safetensors mixes up other layouts
        name: np.asarray(tensor, order="C") for name, tensor in tensors.items()
    }
    with replacing(path) as temporary:
        try:
            save_file(contiguous, temporary)
        except SafetensorError as error:
            raise DiskError(f"{path}: cannot be written: {error}") from None


def load_model(path: Path) -> Weights:
    """Read a model's weights."""
    weights: Weights = load_file(path)
    return weights
