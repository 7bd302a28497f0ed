"""Synthetic cases as nnunetv2 2.8.1 prepares them (batchgenerators 0.25.5, scikit-image 0.26).

data/<case>.npz holds what its `DefaultPreprocessor` made of the arrays below by the plans below,
which `benchmarks/preprocessing_cases.py` translates for it; intensities as float32, labels as int8
with the mark -1, outside the head, turned into background.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from client.preparation.preprocess import prepare
from common.planning.plan import (
    AnyConfiguration,
    Configuration,
    Configuration2d,
    Normalization,
    Plan,
    PlannedFor,
)

DATA = Path(__file__).with_name("data")
TOLERANCE = 1e-5  # of a z-score
MASKED = Normalization(channel="MRI", scheme="masked-z-score")
WHOLE = Normalization(channel="MRI", scheme="z-score")
CT = Normalization(
    channel="CT", scheme="ct", clip_low=-900.0, clip_high=300.0, mean=-50.0, std=210.0
)


@dataclass(frozen=True)
class Golden:
    rule: Normalization
    spacing_mm: tuple[float, float, float]
    target_mm: tuple[float, ...]
    transpose: tuple[int, int, int] = (0, 1, 2)
    stored: tuple[int, int, int] = (0, 1, 2)
    """How the axes of the synthetic volume are permuted before anything else."""

    @property
    def configuration(self) -> AnyConfiguration:
        common = {
            "batch_size": 2,
            "strides": (),
            "features_per_stage": (8,),
            "batch_dice": False,
            "deep_supervision_weights": (1.0,),
        }
        n = len(self.target_mm)
        kind = Configuration if n == 3 else Configuration2d
        sizes = {"median_shape": (8.0,) * n, "patch_size": (8,) * n, "kernel_sizes": ((3,) * n,)}
        return kind(spacing_mm=self.target_mm, **sizes, **common)  # type: ignore[arg-type]

    @property
    def plan(self) -> Plan:
        configuration = self.configuration
        return Plan(
            schema=1,
            hash="0" * 64,
            rules="v2",
            planned_for=PlannedFor(n_training_cases=4, n_foreground_classes=3, memory_gb=8.0),
            channels=(self.rule.channel,),
            transpose=self.transpose,
            normalization=(self.rule,),
            configurations={"3d_fullres" if len(self.target_mm) == 3 else "2d": configuration},
        )

    @property
    def volumes(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """A head with a hole and a tumour in three parts, and noise; 12 x 22 x 26 voxels."""
        z, y, x = np.mgrid[-1:1:12j, -1:1:22j, -1:1:26j]
        radius = np.sqrt(z**2 + y**2 + x**2)
        tumour = np.sqrt((z - 0.1) ** 2 + (y + 0.2) ** 2 + x**2)
        noise = np.random.default_rng(20).random(x.shape)
        labels = np.select(
            [tumour < 0.3, (tumour < 0.6) & (x > y), tumour < 0.6], [3, 1, 2], 0
        ).astype(np.uint8)
        image = np.where(radius < 0.9, 100 * (2 + z * x) + 20 * noise + 60 * labels, 0)
        image[(np.abs(z + 0.5) < 0.2) & (np.abs(y) < 0.2) & (np.abs(x) < 0.2)] = 0
        if self.rule.scheme == "ct":
            image = 4 * image - 1000
        return (
            np.ascontiguousarray(image.transpose(self.stored)).astype(np.float32)[None],
            np.ascontiguousarray(labels.transpose(self.stored)),
        )


GOLDEN = {
    "own-spacing": Golden(MASKED, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    "isotropic": Golden(MASKED, (1.0, 1.0, 1.0), (0.9, 1.3, 1.1)),
    "halved": Golden(WHOLE, (1.0, 1.0, 1.0), (2.0, 2.0, 2.0)),  # every border voxel is a tie
    "thick-slices": Golden(MASKED, (5.0, 0.8, 0.9), (3.0, 0.7, 1.1)),
    "thick-along-x": Golden(WHOLE, (0.8, 0.9, 5.0), (4.0, 1.0, 1.0), (2, 0, 1), (1, 2, 0)),
    "ct": Golden(CT, (2.0, 0.9, 0.9), (1.5, 1.0, 1.2)),
    "2d": Golden(WHOLE, (4.0, 1.0, 1.0), (0.8, 1.3)),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_case_is_prepared_as_nnunetv2_prepares_it(name: str) -> None:
    golden = GOLDEN[name]
    image, labels = golden.volumes
    prepared = prepare(image, golden.spacing_mm, labels, golden.plan, golden.configuration)
    expected = np.load(DATA / f"{name}.npz")
    assert prepared.image.shape == expected["image"].shape
    np.testing.assert_allclose(prepared.image, expected["image"], rtol=0, atol=TOLERANCE)
    assert prepared.labels is not None
    np.testing.assert_array_equal(prepared.labels, expected["labels"])
