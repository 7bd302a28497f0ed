"""What a round tells beside weights, as whole numbers that are added unseen.

What each site would otherwise tell of itself: what it counts, its training loss, and the Dice of
the received weights on its validation cases. Only their sums over the sites of a round are seen.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from common.codec import record
from common.errors import MessageError
from common.secure_sum import Words

LOSS_UNIT, DICE_UNIT = 2.0**-20, 2.0**-30
MAX_LOSS = 2.0**20  # with counts up to 2**17 far below 2**63 units
N_FIXED = 4  # numbers before those of the regions


@record
class RoundSums:
    """What the sites of a round tell together."""

    count: int
    """Sum of what they count in a mean."""
    loss: float | None
    """Mean training loss by count, over the sites that tell theirs; None if none does."""
    n_validating: int
    dice: dict[str, float] | None
    """Mean over the validating sites of their mean Dice per region; None without any."""


def n_sums(regions: Sequence[str]) -> int:
    """Return how many whole numbers there are."""
    return N_FIXED + len(regions)


def to_sums(
    count: int, loss: float | None, dice: Mapping[str, float] | None, regions: Sequence[str]
) -> Words:
    """Return one site's numbers.

    Args:
        count: what it counts, at least 1.
        loss: its training loss; None where it does not tell, or where it is no finite number.
        dice: by region; None without validation.
        regions: of the task, in its order.
    """
    told = loss is not None and abs(loss) <= MAX_LOSS
    values = [
        count,
        count if told else 0,
        round((loss or 0.0) * count / LOSS_UNIT) if told else 0,
        0 if dice is None else 1,
        *(0 if dice is None else round(dice[region] / DICE_UNIT) for region in regions),
    ]
    return np.array(values, np.int64).view(np.uint64)


def of_sums(words: Words, regions: Sequence[str], n_sites: int, most_count: int) -> RoundSums:
    """Return what so many sites told together.

    Numbers that cannot be are a sign of masks that did not cancel: they are random then.

    Args:
        words: the sum of what `to_sums` returned.
        regions: of the task, in its order.
        n_sites: of which it is the sum.
        most_count: most that all of them can count.

    Raises:
        MessageError: when a number is out of its range.
    """
    count, counted, loss, n_validating, *dice = words.view(np.int64).tolist()
    possible = (
        n_sites <= count <= most_count
        and 0 <= counted <= count
        and abs(loss) * LOSS_UNIT <= MAX_LOSS * counted + n_sites
        and 0 <= n_validating <= n_sites
        and all(0 <= value * DICE_UNIT <= n_validating for value in dice)
    )
    if not possible:
        raise MessageError("sum: expected numbers that can be; masks did not cancel")
    means = (
        {r: value * DICE_UNIT / n_validating for r, value in zip(regions, dice, strict=True)}
        if n_validating
        else None
    )
    found = loss * LOSS_UNIT / counted if counted else math.nan
    return RoundSums(
        count=count,
        loss=found if counted else None,
        n_validating=n_validating,
        dice=means,
    )
