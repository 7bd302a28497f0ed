"""The events of a run: an append-only log that report and dashboard read as the single truth.

One JSON object per line: {"time", "event", ...fields}. An event is written whole and flushed to
disk before the run goes on; a line that a crash cut short is ignored by the reader.
"""

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias, get_args

from common.codec import decode, encode, record
from common.errors import ConfigError
from common.privacy.mechanism import Spent
from common.ranks.held_out_sums import RegionResult


@record
class RunStarted:
    """A run, or its resumption, began."""

    run: str
    task: str
    methods: tuple[str, ...]
    seed: int
    resumed: bool
    versions: dict[str, str]
    device: str


@record
class SiteJoined:
    """A site described itself; `n_cases` is a count the site released, None if it did not."""

    site: str
    role: str
    n_cases: int | None = None


@record
class SiteLeft:
    """A training site is no longer part of the run; what it gave stays in the weights."""

    site: str


@record
class ApprovalAwaited:
    """A site's policy wants a person there to approve the run; it is asked again until then."""

    site: str


@record
class PlanMade:
    """All sites agreed on the plan with this hash."""

    plan_hash: str
    n_cases: int
    limits: tuple[str, ...]


@record
class Note:
    """Something a reader of the report should know, for example a setting without effect."""

    text: str


@record
class SiteTrained:
    """A site's update was received and accepted."""

    method: str
    round: int
    site: str
    n_cases: int
    n_steps: int
    loss: float | None = None
    """Mean training loss over the round's local steps; None where it is private."""
    update_norm: float
    """L2 norm of (returned weights - sent weights)."""
    seconds: float
    upload_bytes: int
    download_bytes: int = 0
    """Of the question, repetitions included."""
    late_rounds: int = 0
    """How many rounds before this one it was asked."""
    spent: Spent | None = None
    """What the run has cost the site's patients so far; None without differential privacy."""


@record
class SiteMasked:
    """A site's masked update was received: as good as random, until it is part of a sum."""

    method: str
    round: int
    site: str
    seconds: float
    upload_bytes: int
    download_bytes: int = 0
    """Of the question, repetitions included."""
    spent: Spent | None = None
    """As of `SiteTrained`: it is no part of the sum."""


@record
class SumOpened:
    """The sum of a round's masked updates was opened: all that is known of them."""

    method: str
    round: int
    sites: tuple[str, ...]
    """Whose updates are in it."""
    count: int
    """What they count in the mean, together."""
    loss: float | None = None
    """Their mean training loss; None where it is private."""
    dice: dict[str, float] | None = None
    """Of the received weights, after the round before: mean over the sites that validate."""
    update_norm: float
    """L2 norm of the mean change."""
    seconds: float
    """That agreeing, telling shares and taking off the masks took."""


@record
class SumLost:
    """Too few sites helped to open a round's sum: its updates are lost, the weights stay."""

    method: str
    round: int
    reason: str


@record
class SiteValidated:
    """The weights after `round` were tested on a site's own validation cases."""

    method: str
    round: int
    site: str
    dice: dict[str, float]
    """Mean Dice per region."""


@record
class SitePersonalised:
    """A site compared the final shared model with its own, made from it by further training."""

    method: str
    site: str
    n_steps: int
    shared: dict[str, float]
    """Mean Dice per region on the site's validation cases."""
    own: dict[str, float]


@record
class SiteFailed:
    """A site's reply was an error or was refused; it did not count."""

    method: str
    round: int
    site: str
    code: str
    reason: str
    download_bytes: int = 0
    """Of the question, repetitions included."""


@record
class ReplyIgnored:
    """A good reply that could not count, for example because it came too late."""

    method: str
    round: int
    """That was running when it came."""
    site: str
    reason: str


@record
class SiteExcluded:
    """A site is no longer asked, in this run."""

    method: str
    round: int
    """Of its last failure."""
    site: str
    reason: str


@record
class SitePrivacySpent:
    """A round was aggregated with site-level privacy; logged before its weights are used."""

    method: str
    round: int
    n_sites: int
    """That were asked, by which the sum was divided."""
    epsilon: float
    """Of every site, all rounds of all methods so far."""
    delta: float
    warning: str
    """Why this means little; empty if nothing is known."""


@record
class RoundFinished:
    """The weights after this round are on the coordinator's disk."""

    method: str
    round: int
    n_sites: int
    seconds: float
    simulated_s: float | None = None
    """By the clock of a simulation that has one: what the round would take real institutions."""


@record
class PostprocessingChosen:
    """What is done to a method's labels after the network, and why; the steps lie beside its model.

    The reasons hold sums over the validation cases of several sites.
    """

    method: str
    steps: tuple[str, ...]
    """In words and in order; none if nothing helps."""
    reasons: tuple[str, ...]
    """One per search for a further step."""
    sites: tuple[str, ...]
    """Whose validation cases decided."""


@record
class HeldOutScored:
    """A held-out site tested a final model.

    Where it releases the metrics of cases, they lie in `scores/<method>/<site>.csv`.
    """

    method: str
    site: str
    n_cases: int | None = None
    """None where the site's cases are counted only in a sum."""
    note: str
    """For example how batch-norm statistics were calibrated."""
    metrics: str = "cases"
    """What the site releases: secure-sum, ranks, aggregates or cases."""


@record
class RanksReleased:
    """A held-out site released sums of ranks; they lie in `released/<site>.json`."""

    site: str
    n_cases: int
    n_aggregates: int


@record
class SumsReleased:
    """Held-out sites released sums over all their cases together; nothing of a single site."""

    sites: tuple[str, ...]
    n_cases: int
    results: tuple[RegionResult, ...]


@record
class FloorMeasured:
    """The learning-free baseline on a held-out site, with its best threshold there."""

    site: str
    region: str
    channel: str
    mean_dice: float
    threshold: float


@record
class PictureReleased:
    """A site allowed an overlay picture; `kind` is best, median or worst."""

    method: str
    site: str
    kind: str
    dice: float
    file: str


@record
class RunFinished:
    """Everything was written."""

    seconds: float
    peak_memory_bytes: int


Event: TypeAlias = (
    RunStarted
    | SiteJoined
    | SiteLeft
    | ApprovalAwaited
    | PlanMade
    | Note
    | SiteTrained
    | SiteMasked
    | SumOpened
    | SumLost
    | SiteValidated
    | SitePersonalised
    | SiteFailed
    | ReplyIgnored
    | SiteExcluded
    | SitePrivacySpent
    | RoundFinished
    | PostprocessingChosen
    | HeldOutScored
    | RanksReleased
    | SumsReleased
    | FloorMeasured
    | PictureReleased
    | RunFinished
)
EVENT_TYPES: dict[str, type[Any]] = {event.__name__: event for event in get_args(Event)}


class EventLog:
    """Appends events to a file, the only state, and tells whoever watches."""

    def __init__(
        self,
        path: Path,
        watcher: Callable[[Event], None] | None = None,
        complete: Callable[[Event], Event] | None = None,
    ) -> None:
        """Open the log of a run.

        Args:
            path: of the file.
            watcher: is called after each event is on disk.
            complete: adds to an event what only the carrier knows, before it is written.
        """
        self._path, self._watcher, self._complete = path, watcher, complete

    def append(self, event: Event) -> None:
        """Write one event and flush it to disk."""
        if self._complete is not None:
            event = self._complete(event)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": type(event).__name__, **encode(event)})
        with self._path.open("ab") as file:
            file.write(self._separator() + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if self._watcher is not None:
            self._watcher(event)

    def completed_by(self, complete: Callable[[Event], Event]) -> "EventLog":
        """Return the same log with something that completes events."""
        return EventLog(self._path, self._watcher, complete)

    def _separator(self) -> bytes:
        """Return a line end when a crash left the last line unfinished."""
        if not self._path.stat().st_size:
            return b""
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return b"" if file.read(1) == b"\n" else b"\n"


def read_events(path: Path) -> Iterator[tuple[datetime, Event]]:
    """Yield (time, event) in the order written; unfinished lines are skipped.

    Raises:
        ConfigError: when a whole line does not fit its event type.
    """
    for number, line in numbered_lines(path):
        try:
            plain = json.loads(line)
        except ValueError:
            continue
        yield event_of(plain, f"{path}:{number}")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield every line of a log with its number, from 1."""
    yield from enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)


def event_of(plain: Any, where: str) -> tuple[datetime, Event]:
    """Return the time and the event that a line's plain data mean.

    Raises:
        ConfigError: when they do not fit an event type; the text begins with `where`.
    """
    try:
        fields = dict(plain)
        time = datetime.fromisoformat(fields.pop("time"))
        kind = EVENT_TYPES[fields.pop("event")]
    except (KeyError, TypeError, ValueError):
        found = json.dumps(plain)
        raise ConfigError(f"{where}: expected the time and a known event, found {found}") from None
    event: Event = decode(kind, fields, source=where)
    return time, event
