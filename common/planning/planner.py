"""From the federation's fingerprint to its plan: the published rules, the same on every machine.

Coordinator and sites run this on the same merged fingerprint and must get the same hash. Only
sums, products, quotients and roundings are used, so that no mathematics library can differ; the
one root (the first patch of "v2") is rounded to whole voxels at once.

Source: nnU-Net (arXiv 1904.08128v2), methods "blueprint parameters" and "inferred parameters",
and the planner v2.1 of the paper's code (MIC-DKFZ/nnUNet at dba763e1), which decides where the
text is not exact.
"""

from math import isfinite
from typing import Literal

from common.axes import Shape
from common.config import RunConfig
from common.errors import ConfigError
from common.planning.configurations import limited, limits, published, stages
from common.planning.fingerprint import Fingerprint
from common.planning.intensity import ct_channels, intensity_constants
from common.planning.patch import Demand
from common.planning.plan import (
    PLAN_SCHEMA,
    Normalization,
    Plan,
    PlannedFor,
    Rules,
    Spacing3,
    sealed,
)
from common.planning.preparation import Preparation
from common.planning.rules import rule_set
from common.planning.summary import PlanSummary, summary_of

__all__ = ["PlanSummary", "plan", "plan_summary", "summary_of"]

NO_PREPARATION = Preparation()
MAX_SPACING_RATIO = 10_000  # of whole-body slices to microscopy; published data reach 20
MAX_EDGE_VOXELS = 100_000  # a hundred times the largest published axis


def plan(
    fingerprint: Fingerprint,
    *,
    memory_gb: float = 8.0,
    rules: Rules = "paper",
    base_features: int = 32,
    max_batch_size: int | None = None,
    preparation: Preparation = NO_PREPARATION,
) -> Plan:
    """Return the plan of a federation, sealed with its hash.

    Args:
        fingerprint: of all training sites together, at least one case.
        memory_gb: accelerator memory of the smallest site, above 0; the reference that a patch
            must fit grows in proportion, 8 being the published one.
        rules: which published planner.
        base_features: features of the first stage that the run wants; never changes the patch.
        max_batch_size: the largest batch that the run can afford, at least 1.
        preparation: steps before normalisation that the run wants.

    Raises:
        ConfigError: for no cases, CT without foreground, limits out of range, or too little memory
            for any patch.
    """
    return _planned(
        summary_of(fingerprint, rules),
        _normalization(fingerprint),
        rules=rules,
        memory_gb=memory_gb,
        base_features=base_features,
        max_batch_size=max_batch_size,
        preparation=preparation,
    )


def plan_run(fingerprint: Fingerprint, config: RunConfig) -> Plan:
    """Return the plan of a run; coordinator and sites call this one function and compare hashes."""
    return plan(
        fingerprint,
        memory_gb=config.planning.memory_gb,
        rules=config.planning.rules,
        base_features=config.model.base_features,
        max_batch_size=config.planning.max_batch_size,
        preparation=config.preparation,
    )


def plan_summary(
    summary: PlanSummary,
    *,
    memory_gb: float = 8.0,
    rules: Rules = "paper",
    base_features: int = 32,
    max_batch_size: int | None = None,
) -> Plan:
    """Return the plan that follows from a data set's summary; arguments as in `plan`.

    A summary knows neither intensities nor what the crop removed: a CT channel gets no constants
    (such a plan cannot prepare data) and every other channel a z-score over the whole image. The
    plan's axes refer to the summary's.
    """
    return _planned(
        summary,
        tuple(
            Normalization(channel=name, scheme="ct" if ct_channels((name,)) else "z-score")
            for name in summary.channels
        ),
        rules=rules,
        memory_gb=memory_gb,
        base_features=base_features,
        max_batch_size=max_batch_size,
    )


def _planned(
    summary: PlanSummary,
    normalization: tuple[Normalization, ...],
    *,
    rules: Rules,
    memory_gb: float,
    base_features: int,
    max_batch_size: int | None,
    preparation: Preparation = NO_PREPARATION,
) -> Plan:
    if not (isfinite(memory_gb) and memory_gb > 0):
        raise ConfigError(f"memory_gb: expected a number above 0, found {memory_gb}")
    if base_features < 1 or (max_batch_size is not None and max_batch_size < 1):
        raise ConfigError(
            f"expected base_features and max_batch_size of at least 1, "
            f"found {base_features} and {max_batch_size}"
        )
    _require_plausible(summary)
    table = rule_set(rules)
    transpose = _slowest_first(summary.target_spacing_mm)
    by_rules = published(stages(summary, transpose, demand_of(summary, memory_gb), table), table)
    afforded = {
        name: limited(configuration, table, base_features, max_batch_size)
        for name, configuration in by_rules.items()
    }
    return sealed(
        Plan(
            schema=PLAN_SCHEMA,
            hash="",
            rules=rules,
            planned_for=PlannedFor(
                n_training_cases=summary.n_training_cases,
                n_foreground_classes=summary.n_foreground_classes,
                memory_gb=memory_gb,
            ),
            channels=summary.channels,
            transpose=transpose,
            preparation=preparation,
            normalization=normalization,
            configurations=afforded,
            cascade="3d_lowres" in afforded,
            limits=limits(by_rules, afforded, table, base_features),
        )
    )


def demand_of(summary: PlanSummary, memory_gb: float) -> Demand:
    """Return what all configurations of a data set have in common."""
    return Demand(
        n_channels=len(summary.channels),
        n_outputs=summary.n_foreground_classes + 1,
        n_cases=summary.n_training_cases,
        memory_gb=memory_gb,
    )


def _require_plausible(summary: PlanSummary) -> None:
    """Refuse what no scanner makes: every loop of the planner is short within these limits."""
    spacing, shape = summary.target_spacing_mm, summary.median_shape_at_target
    if not max(spacing) <= MAX_SPACING_RATIO * min(spacing):
        raise ConfigError(
            f"target_spacing_mm: expected axes within a factor of {MAX_SPACING_RATIO}, "
            f"found {spacing}"
        )
    if not max(shape) <= MAX_EDGE_VOXELS:
        raise ConfigError(
            f"median_shape_at_target: expected at most {MAX_EDGE_VOXELS} voxels along an axis, "
            f"found {shape}"
        )


def _normalization(fingerprint: Fingerprint) -> tuple[Normalization, ...]:
    return tuple(
        _ct_normalization(fingerprint, name)
        if name in fingerprint.ct
        else Normalization(channel=name, scheme=_z_score(fingerprint))
        for name in fingerprint.channels
    )


def _z_score(fingerprint: Fingerprint) -> Literal["z-score", "masked-z-score"]:
    """Return `masked-z-score` if the median share of voxels that the crop keeps is below 3/4.

    Sites tell only how many cases are below. A majority of all cases puts both middle values
    below, and with them the median; at exactly half, where the true median is the mean of one
    share below and one not below and may fall on either side, the whole image is used.
    """
    return "masked-z-score" if 2 * fingerprint.n_cropped > fingerprint.n_cases else "z-score"


def _ct_normalization(fingerprint: Fingerprint, channel: str) -> Normalization:
    constants = intensity_constants(fingerprint.ct[channel])
    return Normalization(
        channel=channel,
        scheme="ct",
        clip_low=constants.percentile_0_5,
        clip_high=constants.percentile_99_5,
        mean=constants.mean,
        std=constants.std,
    )


def _slowest_first(spacing_mm: Spacing3) -> Shape:
    """Return the axis of the largest spacing (the first of equals), then the others in order."""
    slowest = spacing_mm.index(max(spacing_mm))
    first, second = (axis for axis in range(3) if axis != slowest)
    return slowest, first, second
