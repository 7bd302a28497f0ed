"""How the final models were tested, scored and ranked."""

from collections.abc import Iterator

from common.config import RunConfig
from common.evaluation.empty_rules import BRATS_RULES
from common.ranks.ranking import Ranking
from server.reporting.methods.told import of_config, of_program
from server.reporting.references import cite
from server.reporting.sources import sourced

RULES = "common.evaluation.empty_rules, BRATS_RULES"
HD95 = {
    "pooled": "the 95th percentile of the surface distances pooled over both directions",
    "max": "the larger of the two directed 95th percentiles of the surface distances",
}
SCHEMES = {
    "brats": f"all cases counting the same {cite('bakas2018')}",
    "fets": f"all institutions counting the same {cite('pati2021')}",
    "fets-task1": f"with the rank of the convergence score counting three times {cite('pati2021')}",
}


def held_out_test(config: RunConfig) -> list[str]:
    """Return how models were applied to held-out cases."""
    evaluation = config.evaluation
    mirrored = "averaged over all mirrorings" if evaluation.mirroring else "without mirroring"
    found = [
        (
            "Held-out sites predicted with overlapping patches, half a patch apart, whose "
            f"probabilities were averaged with a Gaussian weight {cite('isensee2021')}, {mirrored}."
        )
    ]
    if config.model.norm == "batch" and config.model.batch_norm != "shared":
        n_patches = of_config(config, "evaluation.calibration_patches")
        found.append(
            "A held-out site has no running statistics of its own: it estimated them from "
            f"{n_patches} of its unlabelled patches."
        )
    if evaluation.postprocessing == "chosen":
        found.append(
            "Steps after the network were tried on all sites' validation cases, and kept where "
            f"they helped there {cite('isensee2020')}."
        )
    if evaluation.personalised_steps is not None:
        steps = of_config(config, "evaluation.personalised_steps")
        found.append(
            f"Every training site also trained the final shared model for {steps} further steps "
            "and compared both on its validation cases."
        )
    return found


def scoring(config: RunConfig) -> list[str]:
    """Return what the metrics are."""
    worst = BRATS_RULES.missing_case
    return [
        (
            f"Every region of every case was scored by Dice {cite('dice1945')} and by HD95, "
            f"{HD95[config.evaluation.hd95]}, in mm {cite('huttenlocher1993')}."
        ),
        (
            "If both reference and prediction are empty, Dice is 1 and HD95 is 0 mm; if exactly "
            "one is, Dice is 0 and HD95 is "
            f"{of_program(f'{BRATS_RULES.hd95_one_empty_mm:.2f}', RULES)} mm; a missing value "
            f"counts as Dice 0 and HD95 {of_program(worst.hd95, RULES)} mm {cite('bakas2018')}."
        ),
    ]


def ranking(found: Ranking | None) -> list[str]:
    """Return how the methods were ranked; nothing without a ranking."""
    if found is None:
        return []
    ties = "the best of their places" if found.ties == "min" else "the mean of their places"
    return [
        (
            "Methods were ranked in every case, region and metric, and these ranks averaged, "
            f"{SCHEMES[found.scheme]}; equal values got {ties}."
        ),
        *_tests(found),
    ]


def _tests(found: Ranking) -> Iterator[str]:
    if found.permutation and found.monte_carlo is None:
        yield (
            "Two methods were compared by an exact one-sided permutation test of their sums of "
            f"ranks over cases {cite('bakas2018')}; its p-values are not corrected for the number "
            "of comparisons."
        )
    elif found.monte_carlo is not None:
        n_draws = sourced(found.monte_carlo.n_draws, "ranking.json: monte_carlo.n_draws")
        yield (
            "Two methods were compared by a one-sided permutation test of their sums of ranks, "
            f"estimated from {n_draws} random exchanges {cite('bakas2018')}."
        )
    if found.wilcoxon:
        yield (
            "Per institution and metric, a paired signed-rank test was made "
            f"{cite('wilcoxon1945')}, corrected over the pairs after Holm {cite('holm1979')}."
        )
    if found.bootstrap is not None:
        n = sourced(found.bootstrap.n_samples, "ranking.json: bootstrap.n_samples")
        yield (
            f"Intervals of ranks are percentiles over {n} bootstrap samples of the cases "
            f"{cite('wiesenfarth2021')}."
        )
