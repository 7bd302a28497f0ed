"""Which post-processing is kept: the one that helps on the validation cases of all sites.

A site applies every candidate to its own validation cases and answers with sums: of Dice per
region, and for every two candidates how often the one was better than the other. The sums of sites
add up to the sums of all their cases, exactly and in any order, because they are whole numbers.
From the counts follow the BraTS ranks among all candidates and among any few of them.

Laws: ``merged(no_cases(...), a) == a``; `merged` is commutative and associative; the sums of all
cases equal the merged sums of any parts.

What the sums tell: of very few cases they are nearly the cases themselves, and candidates that
change a single case tell its change by their difference. A site therefore answers only with enough
cases, and since everything is a whole number, the sums can be added by `common.secure_sum`.

Source: BraTS 2020 winner (Isensee et al. 2020, section 3.2): the threshold is optimised by mean
    Dice and by ranking score, and the better one kept. nnU-Net v2, `determine_postprocessing`: no
    region's mean Dice may fall.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, MinLen
from pydantic import model_validator

from common.codec import record
from common.errors import MessageError
from common.evaluation.empty_rules import RegionScore
from common.evaluation.postprocess import Chain, ReplaceScarce, Step, in_words
from common.task import Task

DICE_UNITS = 10**12  # whole numbers add up exactly in any order; this many stand for a Dice of 1
Count = Annotated[int, Ge(0)]


@record
class ValidationSums:
    """What a site says about the candidates; no value of a single case. May leave the site."""

    candidates: Annotated[tuple[Chain, ...], MinLen(1)]
    """The first is what is applied so far, at first nothing: what the others are compared with."""
    n_cases: Count
    n_changed: tuple[Count, ...]
    """Per candidate, the cases in which it changes any voxel of what the first one leaves."""
    dice_units: tuple[dict[str, Count], ...]
    """Per candidate and region, the sum of Dice, in `DICE_UNITS`."""
    n_better: tuple[tuple[Count, ...], ...]
    """Row i, column j: in how many (case, region, metric) candidate i scored better than j, of Dice
    and HD95."""

    @model_validator(mode="after")
    def _consistent(self) -> "ValidationSums":
        n, n_metrics = len(self.candidates), 2 * len(self.dice_units[0] if self.dice_units else ())
        lengths = {len(self.n_changed), len(self.dice_units), len(self.n_better)}
        if lengths | {len(row) for row in self.n_better} != {n}:
            raise ValueError(f"expected sums of {n} candidates")
        if any(units.keys() != self.dice_units[0].keys() for units in self.dice_units):
            raise ValueError("dice_units: expected the same regions for every candidate")
        dice = (value for units in self.dice_units for value in units.values())
        better = np.array(self.n_better, dtype=object)
        if (
            max(self.n_changed) > self.n_cases
            or max(dice, default=0) > self.n_cases * DICE_UNITS
            or (better + better.T).max() > self.n_cases * n_metrics
        ):
            raise ValueError(f"expected sums over {self.n_cases} cases, found larger ones")
        return self


@dataclass(frozen=True)
class Choice:
    """The post-processing that is kept, and why."""

    chain: Chain
    """Empty when nothing helps."""
    reason: str


def no_cases(candidates: Sequence[Chain], task: Task) -> ValidationSums:
    """Return the sums over no case."""
    n_candidates = len(candidates)
    return ValidationSums(
        candidates=tuple(candidates),
        n_cases=0,
        n_changed=(0,) * n_candidates,
        dice_units=tuple(dict.fromkeys(task.regions, 0) for _ in candidates),
        n_better=((0,) * n_candidates,) * n_candidates,
    )


def sums_of_case(
    candidates: Sequence[Chain],
    scores: Sequence[Mapping[str, RegionScore]],
    changed: Sequence[bool],
) -> ValidationSums:
    """Return the sums over one case.

    Args:
        candidates: the first is what the others are compared with.
        scores: per candidate, the score of every region.
        changed: per candidate, whether it changed any voxel.
    """
    # Higher is better in each; of equal values neither is.
    goods = np.array(
        [[good for one in regions.values() for good in (one.dice, -one.hd95)] for regions in scores]
    )
    n_better = (goods[:, None] > goods[None]).sum(axis=2).tolist()
    return ValidationSums(
        candidates=tuple(candidates),
        n_cases=1,
        n_changed=tuple(map(int, changed)),
        dice_units=tuple(
            {region: round(one.dice * DICE_UNITS) for region, one in regions.items()}
            for regions in scores
        ),
        n_better=tuple(tuple(row) for row in n_better),
    )


def merged(a: ValidationSums, b: ValidationSums) -> ValidationSums:
    """Return the sums over the cases of both.

    Raises:
        MessageError: when they are about other candidates or regions.
    """
    if a.candidates != b.candidates or a.dice_units[0].keys() != b.dice_units[0].keys():
        raise MessageError("sums of candidates: expected the same candidates and regions")
    return ValidationSums(
        candidates=a.candidates,
        n_cases=a.n_cases + b.n_cases,
        n_changed=tuple(x + y for x, y in zip(a.n_changed, b.n_changed, strict=True)),
        dice_units=tuple(
            {region: x[region] + y[region] for region in x}
            for x, y in zip(a.dice_units, b.dice_units, strict=True)
        ),
        n_better=tuple(
            tuple(x + y for x, y in zip(*rows, strict=True))
            for rows in zip(a.n_better, b.n_better, strict=True)
        ),
    )


def rank_sums(sums: ValidationSums, pool: Sequence[int]) -> dict[int, int]:
    """Return the sum of the BraTS ranks of some candidates, ranked among themselves.

    Per case, region and metric (Dice, HD95), 1 is the best and equal values share the lower rank.

    Args:
        sums: over any number of cases.
        pool: places of the candidates in `sums.candidates`, each once.
    """
    n_ranks = sums.n_cases * 2 * len(sums.dice_units[0])
    return {one: n_ranks + sum(sums.n_better[other][one] for other in pool) for one in pool}


def choose(sums: ValidationSums, task: Task) -> Choice:
    """Keep the candidate that helps most, or what is applied so far.

    Two candidates are set against each other and against the first one: the one of the highest mean
    Dice over regions, and the one of the best ranks among all. Of these three, ranked among
    themselves, the best is kept; of equal ranks, the one of the higher Dice, then the earlier one.
    A step that removes or fills components is no candidate when the mean Dice of any region falls.
    """
    allowed = [
        place for place in range(len(sums.candidates)) if place == 0 or _is_safe(sums, place)
    ]
    ranks = rank_sums(sums, allowed)
    by_dice = max(allowed, key=lambda place: (_dice(sums, place), -place))
    by_rank = min(allowed, key=lambda place: (ranks[place], -_dice(sums, place), place))
    finalists = sorted({0, by_dice, by_rank})
    final = rank_sums(sums, finalists)
    best = min(finalists, key=lambda place: (final[place], -_dice(sums, place), place))
    if best == 0:
        tried = len(sums.candidates) - 1
        kept = "what is applied so far stays" if sums.candidates[0] else "nothing is applied"
        text = f"none of {tried} candidates helps on {sums.n_cases} validation cases; {kept}"
        return Choice(sums.candidates[0], text)
    reasons = {"mean Dice": by_dice, "ranking": by_rank}
    by = " and by ".join(name for name, place in reasons.items() if place == best)
    return Choice(sums.candidates[best], f"{_words(sums, best, task)}; chosen by {by}")


def extended(chain: Chain, steps: Sequence[Step]) -> tuple[Chain, ...]:
    """Return the candidates of a further search: a chain as it is, and with each one more step.

    A step that acts on the same labels in the same way as one in the chain is left out.
    """
    known = {_acts_on(step) for step in chain}
    return (chain, *((*chain, step) for step in steps if _acts_on(step) not in known))


def _acts_on(step: Step) -> tuple[str, tuple[int, ...]]:
    return step.kind, (step.label,) if isinstance(step, ReplaceScarce) else step.labels


def _is_safe(sums: ValidationSums, place: int) -> bool:
    """Tell whether no region's mean Dice falls, where the candidate's last step demands it."""
    chain = sums.candidates[place]
    if not chain or isinstance(chain[-1], ReplaceScarce):
        return True
    before, after = sums.dice_units[0], sums.dice_units[place]
    return all(after[region] >= before[region] for region in before)


def _dice(sums: ValidationSums, place: int) -> int:
    return sum(sums.dice_units[place].values())


def _words(sums: ValidationSums, place: int, task: Task) -> str:
    """Say what a candidate does and what it changed."""
    steps = ", then ".join(in_words(step, task) for step in sums.candidates[place])
    unit = DICE_UNITS * sums.n_cases
    changes = [
        f"{region} {sums.dice_units[0][region] / unit:.4f} to {after / unit:.4f}"
        for region, after in sums.dice_units[place].items()
        if after != sums.dice_units[0][region]
    ]
    dice = f"mean Dice {', '.join(changes)}" if changes else "mean Dice unchanged"
    return f"{steps}: changes {sums.n_changed[place]} of {sums.n_cases} validation cases, {dice}"
