"""A run's settings as flat names and values, without what tells about the coordinator's machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from common.codec import read_toml_table

Settings: TypeAlias = dict[str, str | int | float | bool]


def settings_of(config: Path) -> Settings:
    """Return what a run's configuration says, for example `federation.rounds`.

    A list of single values is joined by ", "; of a list of tables each has its number in the
    names. Paths are left out: they tell where things lie on the coordinator's machine.

    Args:
        config: the run's `config.toml`; none is there for a run that has hardly begun.

    Raises:
        ConfigError: when the file is malformed.
    """
    if not config.is_file():
        return {}
    return {name: value for name, value in _flat(read_toml_table(config)) if not _is_path(value)}


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            yield from _flat({str(i): item for i, item in enumerate(value)}, f"{prefix}{key}.")
        elif isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{key}", value


def _is_path(value: object) -> bool:
    return isinstance(value, str) and ("/" in value or "\\" in value)
