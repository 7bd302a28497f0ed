"""What the gate refuses: why, in words, and a log of it with which nobody can fill the disk."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from common.codec import decode, encode, record
from common.errors import ConfigError
from common.kit import RefusalReason

QUIET = timedelta(seconds=60)  # the same refusal is told once in this time, with a count
MAX_REMEMBERED = 1000  # different refusals within that time; more are counted together
MAX_BYTES = 2**20  # of the log; there is one older one
FORBIDDEN, TOO_LARGE, TRY_AGAIN = 403, 413, 503  # HTTP; Flower's programs try again after the last

_log = logging.getLogger("consilium.gate")


class RefusalError(Exception):
    """A request that the gate does not let in."""

    def __init__(
        self,
        reason: RefusalReason,
        says: str,
        site: str | None = None,
        *,
        status: int = FORBIDDEN,
    ) -> None:
        """Keep the reason, the sentence for the caller, whose key it was, and HTTP's status."""
        super().__init__(says)
        self.reason, self.says, self.site, self.status = reason, says, site, status


@record
class Refusal:
    """One line of the log."""

    time: str
    reason: RefusalReason
    address: str
    path: str
    """The first characters of what was asked for."""
    site: str | None = None
    """Whose key came with it."""
    count: int = 1
    """How many of the same since the last line about them."""


class RefusalLog:
    """Tells of refusals, one line each, at most one a minute of the same kind."""

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Append to a file."""
        self._path, self._now = path, now
        self._told: dict[tuple[str, ...], tuple[datetime, int]] = {}

    def append(self, refused: RefusalError, address: str, path: str) -> None:
        """Tell of one, or only count it."""
        now = self._now()
        what = (refused.reason, address, refused.site or "")
        if len(self._told) >= MAX_REMEMBERED and what not in self._told:
            self._told = {key: one for key, one in self._told.items() if now - one[0] < QUIET}
            if len(self._told) >= MAX_REMEMBERED:
                what = (refused.reason, "many", "")
        last, untold = self._told.get(what, (now - QUIET, 0))
        if now - last < QUIET:
            self._told[what] = (last, untold + 1)
            return
        self._told[what] = (now, 0)
        self._write(
            Refusal(
                time=now.isoformat(timespec="seconds"),
                reason=refused.reason,
                site=refused.site,
                address=what[1],
                path=path[:80],
                count=untold + 1,
            )
        )

    def _write(self, refusal: Refusal) -> None:
        line = json.dumps(encode(refusal))
        _log.warning("refused: %s", line)
        try:
            if self._path.exists() and self._path.stat().st_size > MAX_BYTES:
                self._path.replace(older(self._path))
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:  # the gate must not open because the disk is full
            _log.warning("%s: cannot be written: %s", self._path, error.strerror)


def older(path: Path) -> Path:
    """Return where the log before this one lies."""
    return path.with_name(f"{path.stem}.1{path.suffix}")


def refusals_since(path: Path, since: datetime) -> list[Refusal]:
    """Return what was refused since a point in time; lines cut short are skipped."""
    found = []
    for file in (older(path), path):
        text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        for line in text.splitlines():
            try:
                refusal = decode(Refusal, json.loads(line), source=str(file))
                recent = datetime.fromisoformat(refusal.time) >= since
            except (ValueError, ConfigError):
                continue
            if recent:
                found.append(refusal)
    return found
