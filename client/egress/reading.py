"""Read the egress ledger, and say what was done to it since it was written."""

from collections.abc import Iterator
from pathlib import Path

from client.chain import reading
from client.egress.entry import FORMAT, Entry


def read(path: Path) -> Iterator[Entry]:
    """Yield the entries of a ledger; as `client.chain.reading.read`."""
    return reading.read(path, FORMAT)


def verify(path: Path) -> tuple[str, ...]:
    """Return what is wrong with a ledger; as `client.chain.reading.verify`."""
    return reading.verify(path, FORMAT)
