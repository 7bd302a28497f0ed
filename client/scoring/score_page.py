"""Scores as one HTML page: tables, plots, and the cases in which most went wrong first.

The page names cases: it says that it stays where it is. Everything is inline; the same scores give
the same bytes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from jinja2 import Environment

from client.page_templates import page_templates
from client.scoring.appearance import METRIC_WORDS
from client.scoring.distribution import Distribution, distribution
from client.scoring.score import FolderScores, RegionResult, Scoring
from client.scoring.score_plots import boxes_svg, volumes_svg
from common.evaluation.further_metrics import BASIC_METRICS
from common.evaluation.surface import Hd95
from common.files import write_atomically

HD95_WORDS: Mapping[Hd95, str] = {
    "pooled": "95th percentile of the pooled surface distances in both directions",
    "max": "maximum of the two directed 95th percentiles of the surface distances",
}
IN_MM = ("hd95", "lesionwise_hd95")


@dataclass(frozen=True)
class RegionCounts:
    """In how many cases the formulas had no answer."""

    n_empty_references: int
    n_missed: int
    """The prediction was empty although the reference was not."""
    n_false_alarms: int
    """The reference was empty although the prediction was not."""
    n_unpredicted: int
    """There was no usable prediction."""


@dataclass(frozen=True)
class CaseRow:
    """One case in the table of cases."""

    name: str
    mean_dice: float
    """Over the regions."""
    regions: Mapping[str, RegionResult]

    @property
    def is_unpredicted(self) -> bool:
        """Whether there was no usable prediction."""
        return any(result.prediction_ml is None for result in self.regions.values())


def write_page(
    path: Path, found: FolderScores, scoring: Scoring, reference: Path, prediction: Path
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: the HTML file; an older one is replaced.
        found: what `client.scoring.score.score_folders` returned, of at least one case.
        scoring: what was computed.
        reference: the folders, as the user named them.
        prediction: as above.

    Raises:
        DiskError: when it cannot be written.
    """
    by_region = results_by_region(found)
    names = (*BASIC_METRICS, *scoring.further.names)
    text = (
        _environment()
        .get_template("score.html.j2")
        .render(
            found=found,
            scoring=scoring,
            reference=reference,
            prediction=prediction,
            metrics={name: METRIC_WORDS[name] for name in names},
            hd95_words=HD95_WORDS[scoring.hd95],
            summaries={
                name: {region: summary(rows, name) for region, rows in by_region.items()}
                for name in names
            },
            composite=distribution([row.mean_dice for row in worst_first(found)]),
            counts={region: counts(rows) for region, rows in by_region.items()},
            cases=worst_first(found),
            plots={"boxes": boxes_svg(by_region), "volumes": volumes_svg(by_region)},
        )
    )
    write_atomically(path, text.encode())


def results_by_region(found: FolderScores) -> dict[str, list[RegionResult]]:
    """Return the results of all cases by region, in the task's order."""
    by_region: dict[str, list[RegionResult]] = {}
    for regions in found.results.values():
        for region, result in regions.items():
            by_region.setdefault(region, []).append(result)
    return by_region


def summary(results: Sequence[RegionResult], metric: str) -> Distribution:
    """Return the distribution of one metric, a basic or a further one, over cases."""
    values = ({**vars(result.score), **result.further} for result in results)
    return distribution([found[metric] for found in values])


def counts(results: Sequence[RegionResult]) -> RegionCounts:
    """Count the cases in which a region was empty or not predicted."""
    predicted = [result for result in results if result.prediction_ml is not None]
    return RegionCounts(
        n_empty_references=sum(result.reference_ml == 0 for result in results),
        n_missed=sum(one.prediction_ml == 0 < one.reference_ml for one in predicted),
        n_false_alarms=sum(one.reference_ml == 0 and one.prediction_ml != 0 for one in predicted),
        n_unpredicted=len(results) - len(predicted),
    )


def worst_first(found: FolderScores) -> list[CaseRow]:
    """Return the cases by mean Dice over the regions, ascending; of equal ones, HD95 descending."""
    rows = [
        CaseRow(name, fmean(result.score.dice for result in regions.values()), regions)
        for name, regions in found.results.items()
    ]
    return sorted(rows, key=lambda row: (row.mean_dice, -_mean_hd95(row), row.name))


def _mean_hd95(row: CaseRow) -> float:
    return fmean(result.score.hd95 for result in row.regions.values())


def _environment() -> Environment:
    environment = page_templates()
    environment.filters["number"] = _number
    return environment


def _number(value: float | None, metric: str) -> str:
    """Return a number for a table, a dash where there is none."""
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    return f"{value:.2f}" if metric in IN_MM else f"{value:.3f}"
