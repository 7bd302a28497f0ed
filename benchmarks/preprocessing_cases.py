"""What `preprocessing.py` prepares: plans, the same for nnunetv2, and synthetic cases."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.planning.plan import (
    AnyConfiguration,
    Configuration,
    Configuration2d,
    Normalization,
    Plan,
    PlannedFor,
    sealed,
)

PEER_DATASET = "Dataset004_Peer"
PEER_RESAMPLING = "resample_data_or_seg_to_shape"
MRI = {"z-score": (False, "ZScoreNormalization"), "masked-z-score": (True, "ZScoreNormalization")}
SCHEMES = MRI | {"ct": (False, "CTNormalization")}


@dataclass(frozen=True, eq=False)
class Trial:
    """One case and the plan that both prepare it by."""

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    plan: Plan

    @property
    def configuration(self) -> AnyConfiguration:
        """The plan's only one."""
        return next(iter(self.plan.configurations.values()))


def plan_of(
    spacing_mm: tuple[float, ...],
    *schemes: str,
    transpose: tuple[int, int, int] = (0, 1, 2),
) -> Plan:
    """Return a plan by nnunetv2's rules; what does not concern preparation is arbitrary."""
    rest = {
        "batch_size": 2,
        "strides": (),
        "features_per_stage": (8,),
        "batch_dice": False,
        "deep_supervision_weights": (1.0,),
    }
    kind, n_axes = (Configuration2d, 2) if len(spacing_mm) == 2 else (Configuration, 3)
    configuration = kind(
        spacing_mm=spacing_mm,
        median_shape=(64.0,) * n_axes,
        patch_size=(32,) * n_axes,
        kernel_sizes=((3,) * n_axes,),
        **rest,
    )
    statistics_of_ct = {"clip_low": -900.0, "clip_high": 300.0, "mean": -50.0, "std": 210.0}
    rules = tuple(
        Normalization(
            channel=f"c{number}",
            scheme=scheme,
            **(statistics_of_ct if scheme == "ct" else {}),
        )
        for number, scheme in enumerate(schemes)
    )
    plan = Plan(
        schema=1,
        hash="",
        rules="v2",
        planned_for=PlannedFor(n_training_cases=4, n_foreground_classes=2, memory_gb=8.0),
        channels=tuple(rule.channel for rule in rules),
        transpose=transpose,
        normalization=rules,
        configurations={"2d" if n_axes == 2 else "3d_fullres": configuration},
    )
    return sealed(plan)


def peer_plan(plan: Plan) -> dict[str, object]:
    """Return what nnunetv2 reads instead of our plan."""
    masks, names = zip(*(SCHEMES[rule.scheme] for rule in plan.normalization), strict=True)
    resampling = {}
    for kind, is_seg, order in (("data", False, 3), ("seg", True, 1), ("probabilities", False, 1)):
        resampling[f"resampling_fn_{kind}"] = PEER_RESAMPLING
        resampling[f"resampling_fn_{kind}_kwargs"] = {
            "is_seg": is_seg,
            "order": order,
            "order_z": 0,
            "force_separate_z": None,
        }
    intensities = {
        str(number): {
            "mean": rule.mean,
            "std": rule.std,
            "percentile_00_5": rule.clip_low,
            "percentile_99_5": rule.clip_high,
        }
        for number, rule in enumerate(plan.normalization)
    }
    configurations = {
        name: {
            "data_identifier": f"peer_{name}",
            "preprocessor_name": "DefaultPreprocessor",
            "spacing": list(configuration.spacing_mm),
            "patch_size": list(configuration.patch_size),
            "normalization_schemes": names,
            "use_mask_for_norm": masks,
            "architecture": {},
            **resampling,
        }
        for name, configuration in plan.configurations.items()
    }
    return {
        "dataset_name": PEER_DATASET,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(plan.transpose),
        "transpose_backward": np.argsort(plan.transpose).tolist(),
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": intensities,
        "configurations": configurations,
    }


def synthetic_trials() -> Iterator[Trial]:
    rng = np.random.default_rng(4)
    z, y, x = np.mgrid[-1:1:26j, -1:1:90j, -1:1:100j]
    radius = np.sqrt(z**2 + y**2 + x**2)
    labels = np.select([radius < 0.25, (radius < 0.5) & (x > y), radius < 0.5], [3, 2, 1], 0)
    labels = labels.astype(np.uint8)
    brain = (200 * (radius < 0.9) * (2 + np.sin(9 * x) + rng.random(x.shape))).astype(np.float32)
    thick, plans = (5.0, 0.8, 0.8), {}
    plans["thick slices"] = plan_of((4.0, 0.7, 0.7), "masked-z-score")
    plans["thick slices, 2d"] = plan_of((0.6, 0.9), "z-score")
    plans["halved"] = plan_of((5.0, 1.6, 1.6), "z-score")
    for name, plan in plans.items():
        yield Trial(name, brain[None], labels, thick, plan)
    along_x, permuted = (0.8, 0.8, 5.0), plan_of((4.0, 0.7, 0.7), "z-score", transpose=(2, 0, 1))
    yield Trial(
        "thick along x",
        brain.transpose(1, 2, 0)[None],
        labels.transpose(1, 2, 0),
        along_x,
        permuted,
    )
    ct = (6 * brain - 1024).astype(np.float32)
    yield Trial("CT", ct[None], labels, (2.0, 0.9, 0.9), plan_of((1.5, 1.0, 1.0), "ct"))
