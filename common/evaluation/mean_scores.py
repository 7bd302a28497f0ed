"""The scores of a method that has several models: the mean, in every case, of each metric.

A method with one model per site is judged by what a hospital can expect of its own model. Where
metrics of cases may not leave a held-out site, the site takes this mean itself.
"""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from common.evaluation.metrics import RegionScore
from common.evaluation.scores import ScoreTable


def mean_table(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Return the mean over models of every metric of every case and region.

    Args:
        tables: at least one; all with the same cases and regions. Order is that of the first.
    """
    first = tables[0]
    return {
        case: {region: _mean([table[case][region] for table in tables]) for region in first[case]}
        for case in first
    }


def _mean(scores: Sequence[RegionScore]) -> RegionScore:
    names = [field.name for field in fields(RegionScore)]
    return RegionScore(
        **{name: float(np.mean([getattr(score, name) for score in scores])) for name in names}
    )
