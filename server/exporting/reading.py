"""Reads a log of events while it grows; what cannot be read costs one line and no more."""

import io
import json
import os
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from common.codec import decode
from common.console import say
from common.errors import ConfigError
from server.events import EVENT_TYPES, Event


class Timed(NamedTuple):
    """An event and when it was written."""

    time: datetime
    event: Event


def readable(path: Path, offset: int) -> tuple[list[Timed], int]:
    """Return the events that stand behind an offset, and the offset behind them.

    A last line without its end counts once it is whole; until then it stays unread, for a run may
    be writing it. A whole line that is damaged, or of an unknown event, is told on stderr.

    Args:
        path: of the log; one that does not exist yet is empty.
        offset: in bytes, 0 or what an earlier call returned.

    Raises:
        ConfigError: when the log is shorter than that: it is not the one that was read before.
    """
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < offset:
            raise ConfigError(
                f"{path}: expected the log that was read before, of {offset} bytes or more, "
                f"found {size}; another run began in this folder"
            )
        file.seek(offset)
        text = file.read()
    events = []
    for line in io.BytesIO(text):
        if not line.endswith(b"\n") and not _is_json(line):
            break
        if line.strip() and (found := _event(line, f"{path}: byte {offset}")):
            events.append(found)
        offset += len(line)
    return events, offset


def _event(line: bytes, where: str) -> Timed | None:
    """Return what a whole line says; None, and a word to the reader, if nothing is understood."""
    try:
        plain = json.loads(line)
        time, kind = datetime.fromisoformat(plain.pop("time")), str(plain.pop("event"))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        say(f"left out: {where}: expected an event with its time, found a damaged line")
        return None
    if kind not in EVENT_TYPES:
        say(f"left out: {where}: unknown event {kind!r}")
        return None
    try:
        return Timed(time, decode(EVENT_TYPES[kind], plain, source=where))
    except ConfigError as error:
        say(f"left out: {'; '.join(str(error).splitlines())}")
        return None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (RecursionError, ValueError):
        return False
    return True
