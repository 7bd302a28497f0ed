"""The few settings of a run that the dashboard counts by, from `config.toml` of any version."""

import stat
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_BYTES = 2**20  # of a configuration; real ones have a few kB
PARTIAL_METHODS = ("cyclic", "incremental")
"""Of which not every site is asked in every round."""


@dataclass(frozen=True)
class RunSettings:
    """What is known of them; nothing where the file is missing, damaged or of another version."""

    methods: tuple[str, ...] = ()
    n_rounds: int | None = None
    min_sites: int | None = None
    n_faulty: int = 0
    sites_per_round: int | None = None
    held_out: tuple[str, ...] = ()
    round_timeout_s: float | None = None

    def asks_all(self, method: str) -> bool:
        """Return whether every training site is asked in every round."""
        return self.sites_per_round is None and method not in PARTIAL_METHODS


def read_config(path: Path) -> tuple[str, dict[str, Any], str]:
    """Read a configuration as it stands.

    Returns:
        Its text, its tables and, where they cannot be read, why; empty for a missing file.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            return "", {}, f"{path.name}: expected a file of at most {MOST_BYTES} bytes"
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "", {}, ""
    except OSError as error:
        return "", {}, f"{path.name}: {error.strerror}"
    try:
        return text, tomllib.loads(text), ""
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        return text, {}, f"{path.name}: expected TOML, found {error}"


def settings_of(tables: dict[str, Any]) -> RunSettings:
    """Return the settings that a configuration has, as far as they are of the expected kind."""
    found = tables.get("federation")
    federation: dict[str, Any] = found if isinstance(found, dict) else {}
    return RunSettings(
        methods=_names(federation.get("methods")),
        n_rounds=_count(federation.get("rounds")),
        min_sites=_count(federation.get("min_sites")),
        n_faulty=_count(federation.get("n_faulty")) or 0,
        sites_per_round=_count(federation.get("sites_per_round")),
        held_out=_names(federation.get("held_out")),
        round_timeout_s=_seconds(federation.get("round_timeout_s")),
    )


def flat(tables: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every setting by its dotted name, as text."""
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _names(value: object) -> tuple[str, ...]:
    return tuple(str(name) for name in value) if isinstance(value, list) else ()


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**31 else None


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and value > 0 else None
