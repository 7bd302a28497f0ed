"""What lies beside a run's log, read again when it changed; a damaged file costs only itself."""

import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pandas as pd

from common.codec import read_json
from common.errors import ConsiliumError
from common.evaluation.scores import COLUMNS
from common.messages import Ranked
from common.planning.plan import Plan
from common.ranks.ranking import Ranking
from server.dashboard.run_settings import flat, read_config
from server.dashboard.views import FilesRead
from server.reporting.held_out_data import score_rows
from server.run_folder import RunFolder

T = TypeVar("T")
MOST_FILE_BYTES = 32 * 2**20
MOST_SCORE_FILES = 2000
Stamp = tuple[int, int]
"""Size in bytes, time of the last change in ns."""


@dataclass
class FileCache:
    """What was read of a run's files, with the stamps they had."""

    found: dict[Path, tuple[Stamp, object]] = field(default_factory=dict)
    """The content of a file, or a `_Damage`."""


@dataclass(frozen=True)
class _Damage:
    reason: str


def stamp_of(path: Path) -> Stamp | None:
    """Return what changes with a file; None where there is none, or something else."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def read_files(run: RunFolder, cache: FileCache) -> FilesRead:
    """Read configuration, plan, scores, released sums and ranking, as far as they are there.

    Args:
        run: the folder.
        cache: of earlier readings; is brought up to date.
    """
    text, tables, error = read_config(run.config)
    errors = [error] if error else []
    score_files = sorted(run.path.glob("scores/*/*.csv"))[:MOST_SCORE_FILES]
    released = sorted(run.path.glob("released/*.json"))[:MOST_SCORE_FILES]
    wanted = {run.plan, run.ranking, *score_files, *released}
    cache.found = {path: kept for path, kept in cache.found.items() if path in wanted}
    plan = _read(cache, errors, run.plan, lambda path: read_json(Plan, path))
    ranking = _read(cache, errors, run.ranking, lambda path: read_json(Ranking, path))
    frames = [_read(cache, errors, path, lambda path: score_rows([path])) for path in score_files]
    ranked = {
        path.stem: _read(cache, errors, path, lambda path: read_json(Ranked, path))
        for path in released
    }
    return FilesRead(
        config_text=text,
        config=dict(flat(tables)),
        plan=plan,
        scores=_joined([frame for frame in frames if frame is not None]),
        aggregates={
            site: found.aggregates for site, found in ranked.items() if found and found.aggregates
        },
        ranking=ranking,
        errors=tuple(errors),
    )


def _read(cache: FileCache, errors: list[str], path: Path, read: Callable[[Path], T]) -> T | None:
    """Return the content of a file; None, and a reason in `errors`, where it cannot be read."""
    stamp = stamp_of(path)
    if stamp is None:
        return None
    kept = cache.found.get(path)
    if kept is None or kept[0] != stamp:
        kept = cache.found[path] = stamp, _read_now(path, stamp, read)
    if isinstance(kept[1], _Damage):
        errors.append(kept[1].reason)
        return None
    return kept[1]  # type: ignore[return-value]  # what `read` made of this file


def _read_now(path: Path, stamp: Stamp, read: Callable[[Path], T]) -> T | _Damage:
    name = "/".join(path.parts[-3:] if path.suffix == ".csv" else path.parts[-1:])
    if stamp[0] > MOST_FILE_BYTES:
        return _Damage(f"{name}: expected at most {MOST_FILE_BYTES} bytes, found {stamp[0]}")
    try:
        return read(path)
    except ConsiliumError as error:
        return _Damage(str(error).replace(str(path), name).splitlines()[0][:300])
    except (OSError, ValueError, RecursionError) as error:
        return _Damage(f"{name}: cannot be read: {error}"[:300])


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    if not frames:
        return pd.DataFrame(columns=["method", "site", *COLUMNS])
    return pd.concat(frames, ignore_index=True)
