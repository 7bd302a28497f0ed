"""What a hospital allows: which work is done for others, and what leaves the building.

The section `[policy]` of a site's own file. What is absent is not limited, so that a file that was
written for an earlier version keeps its meaning. `client.permission` asks these rules.
"""

from typing import Annotated, Literal, TypeAlias

from annotated_types import Ge, Gt, Le
from pydantic import model_validator

from common.codec import record
from common.evaluation.aggregates import MetricsRelease
from common.planning.release import DEFAULT_MIN_CASES, MinCases, ReleaseMode
from common.secure_sum import Key

FEWEST_SITES = 3  # in a sum of two, each would see the other

Action: TypeAlias = Literal[
    "measure",
    "prepare",
    "train",
    "validate",
    "test",
    "rank",
    "floor",
    "personalise",
    "postprocess",
    "first_stage",
    "keys",
    "agree",
    "unmask",
]
"""All that a site can be asked to do (`client.app`)."""


@record
class Policy:
    """What the hospital does for a federation, and what it lets out besides model weights."""

    metrics: MetricsRelease
    """How much of the metrics that a held-out site measures: none, only the sum of several sites,
    sums of ranks, aggregates, or those of numbered, unnamed cases
    (`common.evaluation.aggregates`)."""
    validation_means: bool
    """Mean Dice over a training site's own validation cases."""
    pictures: bool
    """Overlay pictures of three cases, without any text about the patient; they show what the
    metrics of cases say, so `metrics` has to be "cases"."""
    fingerprint: ReleaseMode
    """Counts of the data set as they are, only in bins of several cases, or only in the sum of
    several sites (`common.planning.release`)."""
    min_cases_per_bin: MinCases = DEFAULT_MIN_CASES
    """Smallest bin of a coarse fingerprint."""
    min_cases_per_aggregate: MinCases = DEFAULT_MIN_CASES
    """Fewest cases of which means and quartiles of metrics are released; of fewer, only ranks."""
    min_secure_sites: Annotated[int, Ge(FEWEST_SITES)] = FEWEST_SITES
    """Fewest sites, this one included, whose fingerprints, updates or held-out metrics are summed
    unseen."""
    updates: Literal["plain", "secure-sum"] = "plain"
    """Whether the coordinator may see this site's updates, or only sums of several sites'."""
    edited_plans: bool = False
    """Whether to train by a plan that does not follow from the fingerprints but was changed by a
    person at the coordinator."""
    actions: tuple[Action, ...] | None = None
    """What may be asked of this site; everything if absent."""
    tasks: tuple[str, ...] | None = None
    """Names or content hashes of the tasks that this site takes part in; any if absent. A name
    allows everything that calls itself so; a hash allows one task."""
    plans: tuple[Key, ...] | None = None
    """Hashes of the plans by which this site trains or tests; any if absent."""
    configs: tuple[Key, ...] | None = None
    """Content hashes of the configurations that this site takes part in; any if absent."""
    approval: Literal["none", "person"] = "none"
    """Whether a person here approves every task, configuration and plan before anything is done
    for it (`client.proposals`); what `plans` and `configs` both name is approved by that."""
    max_epochs_per_day: Annotated[float, Gt(0)] | None = None
    """Most passes over this site's training cases in a calendar day."""
    max_hours_per_day: Annotated[float, Gt(0), Le(24)] | None = None
    """Most hours of training in a calendar day."""
    max_epsilon: Annotated[float, Gt(0)] | None = None
    """This site trains only with differential privacy of at most this epsilon."""
    min_cases: Annotated[int, Ge(1)] = 1
    """Fewest cases with which this site takes part."""
    max_message_mb: Annotated[float, Gt(0)] | None = None
    """Largest message, in 2**20 bytes, that this site reads or answers with."""

    @model_validator(mode="after")
    def _consistent(self) -> "Policy":
        if self.pictures and self.metrics != "cases":
            raise ValueError(
                "pictures: expected false, for pictures show single cases and metrics is "
                f"{self.metrics!r}"
            )
        return self
