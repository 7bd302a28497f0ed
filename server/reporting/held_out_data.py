"""What held-out sites released about their cases, as the rows of the report's tables."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from common.evaluation.empty_rules import BRATS_RULES
from common.evaluation.scores import COLUMNS, read_scores

ONE_EMPTY_TOLERANCE_MM = 1e-3  # a CSV of another tool may carry fewer digits


@dataclass(frozen=True)
class Spread:
    """Location and spread of one metric over cases; `sd` is NaN for a single case."""

    mean: float
    sd: float
    median: float
    q1: float
    q3: float


@dataclass(frozen=True)
class RegionSummary:
    """One line of the held-out table."""

    method: str
    region: str
    n_cases: int
    dice: Spread
    hd95: Spread
    """In mm."""
    n_missed: int
    """Cases whose prediction was empty although the reference was not."""
    n_false_alarms: int
    """Cases whose reference was empty although the prediction was not."""
    n_exact: int
    """Dice 1 and HD95 0: both empty, or the same voxels."""

    @property
    def trained_at(self) -> str:
        """Site of a model that one site trained alone, else empty."""
        return self.method.partition("@")[2]


def summarise(scores: pd.DataFrame, methods: Sequence[str]) -> tuple[RegionSummary, ...]:
    """Summarise one held-out site's scores.

    Args:
        scores: rows of one site.
        methods: order within a region; a method without rows is left out.

    Returns:
        One summary per region (in the file's order) and method; empty for no rows.
    """
    regions = dict.fromkeys(scores["region"])
    groups = dict(list(scores.groupby(["region", "method"])))
    keys = [(region, method) for region in regions for method in methods]
    return tuple(_summary(*key, groups[key]) for key in keys if key in groups)


def score_rows(paths: Sequence[Path]) -> pd.DataFrame:
    """Return score files ``<method>/<site>.csv`` as rows; a missing value as what it counts as."""
    rows = [
        {"method": path.parent.name, "site": path.stem, "case": case, "region": region}
        | asdict(score)
        for path in paths
        for case, regions in read_scores(path).items()
        for region, score in regions.items()
    ]
    frame = pd.DataFrame(rows, columns=["method", "site", *COLUMNS])
    return frame.replace(math.inf, math.nan).fillna(asdict(BRATS_RULES.missing_case))


def _summary(region: str, method: str, rows: pd.DataFrame) -> RegionSummary:
    one_empty = (rows["hd95"] - BRATS_RULES.hd95_one_empty_mm).abs() < ONE_EMPTY_TOLERANCE_MM
    false_alarm = one_empty & (rows["specificity"] < 1.0)  # an empty prediction has no false voxel
    return RegionSummary(
        method=method,
        region=region,
        n_cases=len(rows),
        dice=_spread(rows["dice"]),
        hd95=_spread(rows["hd95"]),
        n_missed=int((one_empty & ~false_alarm).sum()),
        n_false_alarms=int(false_alarm.sum()),
        n_exact=int(((rows["dice"] == 1.0) & (rows["hd95"] == 0.0)).sum()),
    )


def _spread(values: "pd.Series[float]") -> Spread:
    q1, median, q3 = (float(values.quantile(share)) for share in (0.25, 0.5, 0.75))
    return Spread(float(values.mean()), float(values.std(ddof=1)), median, q1, q3)
