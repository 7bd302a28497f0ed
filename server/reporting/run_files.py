"""Files of a run that a report can do without: what does not fit is told, not an end."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypeVar

from common.errors import ConfigError

T = TypeVar("T")
Reader: TypeAlias = Callable[[type[T], Path], T]
"""`common.codec.read_json` or `read_toml`."""


def read_if_fits(read: Reader[T], cls: type[T], path: Path, defects: list[str]) -> T | None:
    """Read a file of a run, maybe one that another version wrote.

    Args:
        read: its codec.
        cls: what it holds.
        path: of the file.
        defects: gets a line when the file is there and does not fit.

    Returns:
        None when the file is absent or does not fit.
    """
    if not path.is_file():
        return None
    try:
        return read(cls, path)
    except ConfigError as error:
        lines = [line.removeprefix(f"{path}: ") for line in str(error).splitlines()]
        defects.append(f"{path.name}: {'; '.join(lines)}")
        return None
