"""Which runs are wanted: a small file between the command that adds one and the supervisor."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from common.codec import read_json, record, write_json
from common.errors import ConfigError
from common.federation import SiteName
from common.files import locked, make_folder
from common.kit import Instant
from server.run_folder import RunFolder


@record
class WantedRun:
    """A run that the supervisor keeps going until it has finished."""

    folder: str
    """Whole path of the run folder."""
    added: Instant
    admit: tuple[SiteName, ...] = ()
    """Sites that come when it is resumed."""
    without: tuple[SiteName, ...] = ()
    """Sites that leave it for ever when it is resumed."""
    stopped: bool = False
    """By a person."""
    given_up: str | None = None
    """Why the supervisor does not start it any more."""
    last_failure: str | None = None
    """How its last attempt ended, if nothing came of it."""

    @property
    def run(self) -> RunFolder:
        """Its folder."""
        return RunFolder(Path(self.folder))

    @property
    def is_wanted(self) -> bool:
        """Whether it is to be kept going."""
        return not self.stopped and self.given_up is None


@record
class WantedRuns:
    """`runs.json`."""

    runs: tuple[WantedRun, ...] = ()


def read_wanted(path: Path) -> tuple[WantedRun, ...]:
    """Return the runs in the order in which they were added; errors as in `read_json`."""
    return read_json(WantedRuns, path).runs if path.exists() else ()


def want(path: Path, run: WantedRun) -> None:
    """Add a run, or want it again."""
    with _changing(path) as runs:
        runs[run.folder] = run


def change(path: Path, folder: str, **fields: object) -> None:
    """Change what is noted of a run; nothing happens if it is not noted."""
    with _changing(path) as runs:
        if folder in runs:
            runs[folder] = replace(runs[folder], **fields)  # type: ignore[arg-type]


def named(path: Path, name: str) -> WantedRun:
    """Return the run with a name.

    Raises:
        ConfigError: when there is none, with the names that there are.
    """
    runs = read_wanted(path)
    for run in reversed(runs):
        if name in {run.run.name, run.folder}:
            return run
    known = ", ".join(run.run.name for run in runs) or "none"
    raise ConfigError(f"--run: expected the name of a run, {known}; found {name!r}")


@contextmanager
def _changing(path: Path) -> Iterator[dict[str, WantedRun]]:
    make_folder(path.parent)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        locked(lock, wait=True)
        runs = {run.folder: run for run in read_wanted(path)}
        yield runs
        write_json(path, WantedRuns(runs=tuple(runs.values())))
