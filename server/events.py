"""The events of a run: what its append-only log holds (`server.event_log`).

Report and dashboard read them as the single truth.
"""

from typing import Any, TypeAlias, get_args

from common.codec import record
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
