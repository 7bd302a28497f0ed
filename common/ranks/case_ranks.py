"""Ranks of methods per case and metric: the first half of "rank, then aggregate".

The metrics of a region are Dice (higher is better) and HD95 (lower is better). A value that is
missing or not finite counts as the worst: Dice 0 and HD95 374 mm.

Sources:
    Ranks per case and metric: BraTS 2017-2021; Isensee et al. 2020, section 2.1.
    Missing values: FeTS 2022, ranking scripts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError
from common.evaluation.metrics import BRATS_RULES
from common.evaluation.scores import ScoreTable

Ties: TypeAlias = Literal["min", "average"]
"""The rank of methods with equal values: the best of their places, or the mean of them."""

RankedMetric: TypeAlias = Literal["dice", "hd95"]
RANKED_METRICS: Final[tuple[RankedMetric, ...]] = ("dice", "hd95")
"""Of every region, in the order of the metric axis."""

Losses: TypeAlias = NDArray[np.float64]
"""Minus Dice, and HD95 in mm: less is better; axes (method, case, metric). Stays at the site."""
Ranks: TypeAlias = NDArray[np.float64]
"""Ranks, 1 = best, axes (method, case, metric); multiples of one half."""

Scores: TypeAlias = Mapping[str, Mapping[str, ScoreTable]]
"""Scores by method and institution; case names need to be unique within an institution."""


@dataclass(frozen=True)
class Pool:
    """The methods that are compared and how badly each did in every case. Stays at the site."""

    methods: tuple[str, ...]
    regions: tuple[str, ...]
    losses: dict[str, Losses]
    """By institution; only institutions with cases."""

    def ranks(self, ties: Ties) -> dict[str, Ranks]:
        """Rank the methods per case and metric, by institution."""
        return {name: ranks_of(losses, ties) for name, losses in self.losses.items()}


def pool_of(scores: Scores) -> Pool:
    """Set the scores of all methods side by side.

    Raises:
        ConfigError: when there are no methods or no cases, no case that two methods were scored
            on (then every rank would be of a missing case), or the regions differ.
    """
    regions = _shared_regions(scores)
    _require_common_cases(scores)
    institutions = dict.fromkeys(name for tables in scores.values() for name in tables)
    losses = {
        name: losses_of([tables.get(name, {}) for tables in scores.values()], regions)
        for name in institutions
    }
    return Pool(tuple(scores), regions, {name: part for name, part in losses.items() if part.size})


def losses_of(tables: Sequence[ScoreTable], regions: Sequence[str]) -> Losses:
    """Return the losses of methods at one institution.

    Args:
        tables: the scores of each method; together they name the cases.
        regions: each gives the metrics `RANKED_METRICS`.

    Returns:
        Axes (method, case, metric); an axis of length 0 where there are no cases.
    """
    cases = tuple(dict.fromkeys(case for table in tables for case in table))
    losses = [
        [[loss for region in regions for loss in _losses(table, case, region)] for case in cases]
        for table in tables
    ]
    return np.reshape(
        np.array(losses, np.float64), (len(tables), len(cases), len(RANKED_METRICS) * len(regions))
    )


def ranks_of(losses: NDArray[np.float64], ties: Ties) -> Ranks:
    """Rank methods per case and metric; ranks of ranks are those within a smaller pool."""
    from scipy.stats import rankdata  # takes half a second, and every message to a site comes here

    return rankdata(losses, method=ties, axis=0)


def _losses(table: ScoreTable, case: str, region: str) -> tuple[float, float]:
    missing = BRATS_RULES.missing_case
    score = table.get(case, {}).get(region, missing)
    dice = score.dice if math.isfinite(score.dice) else missing.dice
    hd95_mm = score.hd95 if math.isfinite(score.hd95) else missing.hd95
    return -dice, hd95_mm


def _require_common_cases(scores: Scores) -> None:
    by_method = [
        {(name, case) for name, table in tables.items() for case in table}
        for tables in scores.values()
    ]
    scored = [cases for cases in by_method if cases]
    if len(scored) > 1 and sum(map(len, scored)) == len(set.union(*scored)):
        raise ConfigError("ranking: expected a case that two methods were scored on, found none")


def _shared_regions(scores: Scores) -> tuple[str, ...]:
    """Return the regions that every method was scored on, in the order of the first."""
    by_method = {
        method: tuple(
            dict.fromkeys(
                region for table in tables.values() for rows in table.values() for region in rows
            )
        )
        for method, tables in scores.items()
    }
    scored = {method: regions for method, regions in by_method.items() if regions}
    if not scored:
        raise ConfigError("ranking: expected scores of at least one case, found none")
    first, expected = next(iter(scored.items()))
    for method, regions in scored.items():
        if set(regions) != set(expected):
            raise ConfigError(
                f"ranking: {method}: expected the regions {','.join(expected)} as in {first}, "
                f"found {','.join(regions)}"
            )
    return expected
