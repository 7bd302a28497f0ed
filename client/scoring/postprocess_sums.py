"""What a site says about candidates for post-processing: sums over its validation cases."""

from collections.abc import Iterable, Sequence

import numpy as np

from common.axes import LabelMap, SpacingMm
from common.errors import PolicyError
from common.evaluation.empty_rules import BRATS_RULES, EmptyRules
from common.evaluation.metrics import score_case
from common.evaluation.postprocess import Chain, post_processed
from common.evaluation.postprocess_choice import ValidationSums, merged, no_cases, sums_of_case
from common.evaluation.surface import Hd95
from common.task import Task

LabelledCase = tuple[LabelMap, LabelMap, SpacingMm]
"""Reference and prediction of a case, axes (z, y, x), and its voxel size along them."""


def validation_sums(
    cases: Iterable[LabelledCase],
    candidates: Sequence[Chain],
    task: Task,
    *,
    hd95: Hd95,
    min_cases: int,
    rules: EmptyRules = BRATS_RULES,
) -> ValidationSums:
    """Apply every candidate to every case and add up the scores.

    Args:
        cases: read one at a time.
        candidates: the first is what the others are compared with.
        task: names the regions.
        hd95: which definition of HD95 ranks the candidates.
        min_cases: of fewer cases nothing is said; see the site's policy.
        rules: what empty regions score.

    Raises:
        PolicyError: when there are fewer cases than `min_cases`.
    """
    total = no_cases(candidates, task)
    for reference, prediction, spacing_mm in cases:
        first = post_processed(prediction, candidates[0], spacing_mm)
        first_scores = score_case(reference, first, spacing_mm, task, hd95=hd95, rules=rules)
        scores, changed = [], []
        for chain in candidates:
            labels = _applied(chain, candidates[0], prediction, first, spacing_mm)
            changed.append(labels is not first and not np.array_equal(labels, first))
            scores.append(
                score_case(reference, labels, spacing_mm, task, hd95=hd95, rules=rules)
                if changed[-1]
                else first_scores
            )
        total = merged(total, sums_of_case(candidates, scores, changed))
    if total.n_cases < min_cases:
        raise PolicyError(
            f"validation cases: expected at least {min_cases} to say anything about their sum, "
            f"found {total.n_cases}",
            "metrics",
        )
    return total


def _applied(
    chain: Chain, base: Chain, prediction: LabelMap, first: LabelMap, spacing_mm: SpacingMm
) -> LabelMap:
    """Apply a chain; what it begins with has been done already where that is the first one."""
    if chain[: len(base)] == base:
        return post_processed(first, chain[len(base) :], spacing_mm)
    return post_processed(prediction, chain, spacing_mm)
