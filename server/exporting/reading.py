"""Reads a log of events while it grows; what cannot be read costs one line and no more."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from common.console import say
from common.errors import ConfigError
from server.log_following import Line, Piece, Position, pieces, waiting_line
from server.log_lines import Timed, read_line, readings


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
    events: list[Timed] = []
    for piece in pieces(path, Position(offset=offset)):
        size = path.stat().st_size
        if piece.is_restart or size < offset:
            raise ConfigError(
                f"{path}: expected the log that was read before, of {offset} bytes or more, "
                f"found another of {size}; another run began in this folder"
            )
        last = _whole_without_end(path, piece)
        events += _events(path, [*piece.lines, *last])
        offset = last[0].end if last else piece.position.offset
    return events, offset


def _whole_without_end(path: Path, piece: Piece) -> tuple[Line, ...]:
    """Return the last line if it lacks only its end: it tells its event, or of which kind it is."""
    line = waiting_line(path, piece) if piece.is_last else None
    if line is None:
        return ()
    found = read_line(line)
    return (line,) if isinstance(found, Timed) or found.kind else ()


def _events(path: Path, lines: Iterable[Line]) -> Iterator[Timed]:
    """Yield what can be read, and tell what cannot."""
    for found in readings(lines):
        if isinstance(found, Timed):
            yield found
        else:
            say(f"left out: {path}: byte {found.begin}: {found.reason}")
