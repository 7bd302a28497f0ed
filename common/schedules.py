"""How the learning rate runs over a whole run: over the steps of all rounds, never of one.

Sources: poly (nnU-Net, Isensee et al. 2021); warm-up and cosine (Loshchilov and Hutter 2017; Swin
UNETR's setting); plateau (IBSR18's Adam; torch's `ReduceLROnPlateau` as to the rule).
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import Discriminator, Tag

from common.codec import record

Share = Annotated[float, Ge(0), Lt(1)]
Factor = Annotated[float, Gt(0), Lt(1)]


@record
class Constant:
    """The learning rate as it is."""

    name: Literal["constant"] = "constant"


@record
class Poly:
    """(1 - step / all steps) ** power."""

    name: Literal["poly"] = "poly"
    power: Annotated[float, Ge(0)]
    """0.9 is nnU-Net's."""


@record
class Cosine:
    """Up from 0 along a line, then down along half a cosine."""

    name: Literal["cosine"] = "cosine"
    warmup: Share = 0.0
    """Share of the run that goes up."""
    final: Share = 0.0
    """Share of the learning rate that is left at the end."""


@record
class Steps:
    """Times the factor at each of some points of the run."""

    name: Literal["steps"] = "steps"
    factor: Factor
    at: Annotated[tuple[Annotated[float, Gt(0), Lt(1)], ...], MinLen(1)]
    """Shares of the run."""


@record
class Plateau:
    """Times the factor whenever the training loss has not improved for some rounds.

    The loss is the mean over the sites of what they report of a round, weighted by cases. A site's
    own loss or validation would give every site another rate; the mean validation is no choice
    either, since a site's policy may keep it. The coordinator therefore decides, and sends the
    factor with the round.
    """

    name: Literal["plateau"] = "plateau"
    factor: Factor
    """0.1 from 1e-4 to 1e-5, as IBSR18's."""
    patience_rounds: Annotated[int, Ge(1)]
    min_improvement: Annotated[float, Ge(0)] = 0.0001
    """In units of the loss; smaller changes are none."""
    floor: Annotated[float, Gt(0), Le(1)] = 0.001
    """Smallest share of the learning rate."""


def _name(value: Any) -> str | None:
    """Return the name of the schedule that a table or a record gives."""
    found = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return found if isinstance(found, str) else None


Schedule = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Poly, Tag("poly")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[Steps, Tag("steps")]
    | Annotated[Plateau, Tag("plateau")],
    Discriminator(_name),
]


def share_of_rate(schedule: Schedule, progress: float) -> float:
    """Return the share of the learning rate at a point of the run.

    Args:
        schedule: any; a plateau does not depend on the point and gives 1.
        progress: steps done over the steps of all rounds, 0 to below 1.
    """
    if isinstance(schedule, Poly):
        return float((1 - progress) ** schedule.power)
    if isinstance(schedule, Cosine):
        return _cosine(schedule, progress)
    if isinstance(schedule, Steps):
        return float(schedule.factor ** sum(progress >= point for point in schedule.at))
    return 1.0


def plateau_factor(schedule: Schedule, losses: Sequence[float]) -> float:
    """Return what the next round's rate is multiplied by, after these losses of all rounds so far.

    Returns:
        1 for every other schedule, and before the first round.
    """
    if not isinstance(schedule, Plateau):
        return 1.0
    factor, best, n_idle = 1.0, math.inf, 0
    for loss in losses:
        improved = loss < best - schedule.min_improvement
        best, n_idle = (loss, 0) if improved else (best, n_idle + 1)
        if n_idle > schedule.patience_rounds:
            factor, n_idle = factor * schedule.factor, 0
    return max(factor, schedule.floor)


def _cosine(schedule: Cosine, progress: float) -> float:
    if progress < schedule.warmup:
        return progress / schedule.warmup
    done = (progress - schedule.warmup) / (1 - schedule.warmup)
    return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * done)) / 2
