"""What may be said of a method's metrics at an institution without a word about a single case.

Means alone mislead: they are dominated by cases in which exactly one of reference and prediction
is empty, so medians, quartiles and the number of empty references stand beside them.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

import numpy as np
from annotated_types import Ge

from common.codec import record
from common.evaluation.scores import ScoreTable

MetricsRelease: TypeAlias = Literal["none", "secure-sum", "ranks", "aggregates", "cases"]
"""How much a site tells of the metrics of its cases: nothing; only masked sums, of which the sum
over several sites is seen (`common.ranks.held_out_sums`); its own sums of ranks (`rank_sums.py`);
also `Aggregate` per method and region; also the metrics of numbered, unnamed cases."""


@record
class MetricSpread:
    """Location and spread of one metric over cases. The median may be one case's own value."""

    mean: float
    median: float
    q1: float
    q3: float


@record
class Aggregate:
    """One method and region over an institution's cases. May leave the site by its policy."""

    method: str
    region: str
    n_cases: Annotated[int, Ge(1)]
    n_empty_references: Annotated[int, Ge(0)]
    dice: MetricSpread
    hd95: MetricSpread
    """In mm."""


def aggregates_of(
    method: str, table: ScoreTable, n_empty_references: Mapping[str, int]
) -> tuple[Aggregate, ...]:
    """Summarise the scores of a method.

    Args:
        method: its name.
        table: scores of at least one case, all finite; every case with the same regions.
        n_empty_references: number of cases whose reference lacks a region, by region.

    Returns:
        One aggregate per region, in the order of `n_empty_references`.
    """
    return tuple(
        Aggregate(
            method=method,
            region=region,
            n_cases=len(table),
            n_empty_references=n_empty,
            dice=_spread([rows[region].dice for rows in table.values()]),
            hd95=_spread([rows[region].hd95 for rows in table.values()]),
        )
        for region, n_empty in n_empty_references.items()
    )


def _spread(values: Sequence[float]) -> MetricSpread:
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return MetricSpread(mean=float(np.mean(values)), median=median, q1=q1, q3=q3)
