"""Append to the egress ledger: the line is on the disk before anything is sent, or nothing is."""

from pathlib import Path

from client.chain import appending
from client.chain.appending import Head, head_file, now
from client.egress.entry import FORMAT, Entry

__all__ = ["Head", "append", "head_file", "now"]


def append(path: Path, entry: Entry) -> Entry:
    """Write an entry and flush it to the disk; as `client.chain.appending.append`."""
    return appending.append(path, entry, FORMAT)
