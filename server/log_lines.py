"""A line of a log as an event, or as a line that could not be read and what it tells nevertheless.

For readers that change nothing, and go on: dashboard, report and export. What they accept is what
the strict `server.event_log.read_events` accepts, of a plausible time. The validator of the event's
own record reads the line's JSON without a detour over plain data.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from common.codec import decode
from common.errors import ConfigError
from server.events import EVENT_TYPES, Event
from server.log_following import Line

USUAL = re.compile(rb'\{"time": "([-0-9T:.+Z]{10,40})", "event": "(\w{1,40})", (?=")')
"""How `EventLog` begins a line."""
SHOWN_CHARACTERS = 300
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
PLACES = ("method", "round", "site")


class Timed(NamedTuple):
    """An event and when it was logged."""

    time: datetime
    event: Event


@dataclass(frozen=True)
class UnreadableLine:
    """A line of the log that could not be read as an event, and what it tells nevertheless."""

    number: int
    """From 1."""
    begin: int
    """Of its bytes in the file."""
    end: int
    """Behind its last byte, the line end not counted."""
    reason: str
    text: str
    """Its beginning, unprintable characters replaced."""
    time: datetime | None = None
    """This and what follows: as far as it tells."""
    kind: str = ""
    method: str = ""
    round: int | None = None
    site: str = ""


def readings(lines: Iterable[Line]) -> Iterator[Timed | UnreadableLine]:
    """Yield what lines say, without empty ones."""
    return (read_line(line) for line in lines if not line.is_empty)


def read_line(line: Line) -> Timed | UnreadableLine:
    """Return what a line says."""
    return _usual(line.content) or _any(line)


def _usual(content: bytes) -> Timed | None:
    """Read a line as `read_usual` does, its time in UTC; None also for a time that is absurd."""
    found = read_usual(content)
    if found is None:
        return None
    time = found.time if found.time.tzinfo else found.time.replace(tzinfo=UTC)
    if not EARLIEST < time < LATEST:
        return None
    return found if found.time.tzinfo is UTC else Timed(time.astimezone(UTC), found.event)


def read_usual(content: bytes) -> Timed | None:
    """Return what a line says that begins as usual, its time as it stands there.

    None if it has to be looked at more closely; never anything but what `event_log.event_of` says.
    """
    found = USUAL.match(content)
    if found is None:
        return None
    validate = _validators().get(found[2])
    if validate is None:
        return None
    try:
        event = validate(b"{" + content[found.end() :])
        return Timed(datetime.fromisoformat(found[1].decode()), event)
    except (ValidationError, ValueError):
        return None


@cache
def _validators() -> dict[bytes, Callable[[bytes], Event]]:
    """Return what reads an event's JSON, by the name of its kind."""
    adapters = {name: TypeAdapter(kind) for name, kind in EVENT_TYPES.items()}
    return {name.encode(): found.validator.validate_json for name, found in adapters.items()}


def _any(line: Line) -> Timed | UnreadableLine:
    """Read a line as `read_events` does; with a reason where that is not possible."""
    plain = _plain(line)
    if isinstance(plain, str):
        return _unreadable(line, {}, plain)
    time, kind = _time(plain.get("time")), plain.get("event")
    if time is None:
        return _unreadable(line, plain, "time: expected a date and time, found none that is one")
    if not isinstance(kind, str) or kind not in EVENT_TYPES:
        unknown = f"an event that this version does not know: {_short(repr(kind))}"
        return _unreadable(line, plain, unknown)
    fields = {name: value for name, value in plain.items() if name not in {"time", "event"}}
    try:
        return Timed(time, decode(EVENT_TYPES[kind], fields, source=kind))
    except ConfigError as error:
        return _unreadable(line, plain, _short(str(error).replace("\n", "; ")))


def _plain(line: Line) -> dict[str, Any] | str:
    """Return a line's fields, or why it has none."""
    if not line.is_whole:
        return f"the line has {line.end - line.begin} bytes: no event has"
    try:
        plain = json.loads(line.content.decode(errors="replace"))
    except (ValueError, RecursionError):
        return "expected one JSON object, found damaged text"
    return plain if isinstance(plain, dict) else "expected a JSON object, found another value"


def _unreadable(line: Line, plain: dict[str, Any], reason: str) -> UnreadableLine:
    kind = plain.get("event")
    method, round_, site = (plain.get(name) for name in PLACES)
    return UnreadableLine(
        number=line.number,
        begin=line.begin,
        end=line.end,
        reason=reason,
        text=_short(line.content.decode(errors="replace")),
        time=_time(plain.get("time")),
        kind=_short(kind) if isinstance(kind, str) else "",
        method=_short(method) if isinstance(method, str) else "",
        round=round_ if type(round_) is int and abs(round_) < 2**31 else None,
        site=_short(site) if isinstance(site, str) else "",
    )


def refused(line: Line, read: Timed, reason: str) -> UnreadableLine:
    """Return a line whose event is well formed but cannot be counted."""
    event = read.event
    told = {name: getattr(event, name, None) for name in PLACES}
    plain = {"time": read.time.isoformat(), "event": type(event).__name__, **told}
    return _unreadable(line, plain, reason)


def _time(text: object) -> datetime | None:
    """Return a plausible time in UTC, which one without a zone is; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return time.astimezone(UTC) if EARLIEST < time < LATEST else None


def _short(text: str) -> str:
    """Return the beginning of a text on one line, unprintable characters replaced."""
    cut = text[: SHOWN_CHARACTERS + 1]
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cut)
    return shown if len(text) <= SHOWN_CHARACTERS else shown[:SHOWN_CHARACTERS] + "..."
