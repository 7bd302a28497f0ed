"""The sites as the experiment sees them: one verb per message, replies in any order.

A reply is either a value or a failure; which failures matter is the experiment's decision.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from common.axes import Weights
from common.errors import FederationError
from common.evaluation.postprocess_choice import ValidationSums
from common.messages import (
    Agreed,
    AgreeTask,
    FirstStageDone,
    FirstStageTask,
    FloorMeasured,
    FloorTask,
    KeysTask,
    Measured,
    MeasureTask,
    Personalised,
    PersonaliseTask,
    PostprocessTask,
    Prepared,
    PrepareTask,
    Ranked,
    RankTask,
    Tested,
    TestTask,
    TrainTask,
    Unmasked,
    UnmaskTask,
    Update,
    Validated,
    ValidateTask,
)
from common.secure_sum import MaskKey

T = TypeVar("T")


@dataclass(frozen=True)
class Reply(Generic[T]):
    """What a site answered."""

    site: str
    value: T
    weights: Weights | None
    n_bytes: int
    n_sent: int = 0
    """Bytes that the question took, repetitions included."""


@dataclass(frozen=True)
class Failure:
    """Why a site's answer is missing or unusable; a code and, of our own making, a reason."""

    site: str
    code: str
    reason: str
    n_sent: int = 0
    """As in `Reply`."""


@dataclass(frozen=True)
class Late:
    """An update that came after the deadline of its round."""

    task: TrainTask
    """What the site was asked then."""
    reply: Reply[Update]


Answers: TypeAlias = Iterator[Reply[T] | Failure]
TrainAnswers: TypeAlias = Iterator[Reply[Update] | Failure | Late]


class Sites(Protocol):
    """A way to reach the sites. Answers are yielded as they arrive, one per site asked."""

    def measure(self, task: MeasureTask, n_sites: int, timeout_s: float) -> Answers[Measured]:
        """Wait until `n_sites` are connected, then ask all of them to describe their data."""

    def keys(self, task: KeysTask, sites: Sequence[str]) -> Answers[MaskKey]:
        """Ask sites for a fresh public key for one sum."""

    def measure_masked(self, task: MeasureTask, sites: Sequence[str]) -> Answers[Measured]:
        """Ask sites for their counts, masked for the sum of the task's roster, beside the reply."""

    def prepare(self, task: PrepareTask, sites: Sequence[str]) -> Answers[Prepared]:
        """Ask sites to agree on the plan and to prepare their cases."""

    def first_stage(
        self, tasks: Mapping[str, tuple[FirstStageTask, Weights]]
    ) -> Answers[FirstStageDone]:
        """Ask sites to predict their cases with a cascade's first stage."""

    def train(
        self,
        tasks: Mapping[str, tuple[TrainTask, Weights]],
        timeout_s: float,
        *,
        late_s: float = 0.0,
        retries: int = 0,
    ) -> TrainAnswers:
        """Ask sites to train for one round from the weights given to each.

        Args:
            tasks: by site.
            timeout_s: until when answers are waited for.
            late_s: how much longer an answer of this round is of use to a later one.
            retries: how often a site whose process died is asked again within the time.

        Yields:
            One answer per site asked, duplicates, and what comes late from earlier rounds.
        """

    def agree(self, tasks: Mapping[str, AgreeTask], timeout_s: float) -> Answers[Agreed]:
        """Ask the survivors of a secure round to agree to who survived."""

    def unmask(self, tasks: Mapping[str, UnmaskTask], timeout_s: float) -> Answers[Unmasked]:
        """Ask the survivors of a secure round for the shares that open their sum."""

    def training(self) -> Mapping[str, TrainTask]:
        """Return what sites still work on after a deadline."""

    def validate(
        self, tasks: Mapping[str, tuple[ValidateTask, Weights]], timeout_s: float
    ) -> Answers[Validated]:
        """Ask sites to test weights on their validation cases."""

    def personalise(
        self, tasks: Mapping[str, tuple[PersonaliseTask, Weights]], timeout_s: float
    ) -> Answers[Personalised]:
        """Ask sites to train the final weights further, for a comparison that stays with them."""

    def postprocess(
        self, tasks: Mapping[str, tuple[PostprocessTask, Weights]], timeout_s: float
    ) -> Answers[ValidationSums]:
        """Ask sites what candidates for post-processing do to their validation cases."""

    def test(
        self, tasks: Mapping[str, tuple[TestTask, Weights]], timeout_s: float
    ) -> Answers[Tested]:
        """Ask held-out sites to score a final model."""

    def rank(self, task: RankTask, sites: Sequence[str]) -> Answers[Ranked]:
        """Ask held-out sites to rank the models that they tested."""

    def floor(self, task: FloorTask, sites: Sequence[str]) -> Answers[FloorMeasured]:
        """Ask held-out sites for the learning-free baseline."""


def all_of(answers: Answers[T], what: str) -> list[Reply[T]]:
    """Return all replies; before training, every failure is a reason to stop."""
    collected = list(answers)
    failures = [answer for answer in collected if isinstance(answer, Failure)]
    if failures:
        lines = [f"{f.site} could not {what}: {f.code} ({f.reason})" for f in failures]
        raise FederationError("\n".join(lines))
    return [answer for answer in collected if isinstance(answer, Reply)]
