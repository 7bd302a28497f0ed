"""Synthetic multi-site brain tumours: skull-stripped four-channel cases in the BraTS layout.

Each site has a scanner of its own (contrast, noise, bias field, voxel size) and patients of its
own (size of the tumours, share without enhancing tumour). In FLAIR, part of the healthy brain is
as bright as part of the oedema: a threshold alone fails, several channels together do not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, MinLen
from numpy.typing import NDArray

from client.dataset.nifti import grid_of, write_image, write_labels
from common.axes import Image, LabelMap, Shape, SpacingMm
from common.codec import record
from common.errors import ConfigError
from common.random import step_rng
from simulation.anatomy import TISSUES, draw_brain, draw_lesions, draw_tissues, smooth_field
from simulation.partition import Partition, write_csv

CHANNELS = ("t1", "t1ce", "t2", "flair")
PARTITION_FILE = "partition.csv"

# Brightness by tissue (rows as TISSUES) and channel (columns as CHANNELS). The order of the
# tissues in each sequence is the textbook one; 1 is fluid in T2, the brightest normal tissue.
BRIGHTNESS = np.array(
    [
        [0.85, 0.85, 0.40, 0.50],  # white matter
        [0.60, 0.64, 0.55, 0.62],  # grey matter
        [0.25, 0.25, 1.00, 0.18],  # cerebrospinal fluid
        [0.76, 0.77, 0.60, 0.94],  # white-matter hyperintensity
        [0.62, 0.68, 0.57, 0.94],  # bright cortical rim
        [0.58, 0.60, 0.80, 0.94],  # oedema
        [0.42, 0.40, 0.86, 0.74],  # tumour core
        [0.58, 1.25, 0.72, 0.84],  # enhancing tumour
    ],
    dtype=np.float32,
)

VoxelMm = Annotated[float, Gt(0), Le(8)]  # coarser voxels lose the smallest lesions
ExtentMm = Annotated[float, Ge(100)]  # less cuts through the brain
Positive = Annotated[float, Gt(0)]
PerChannel = tuple[Positive, Positive, Positive, Positive]
Fraction = Annotated[float, Ge(0), Le(1)]


@record
class PhantomSite:
    """One hospital: how its scanner draws and which patients it sees."""

    name: Annotated[str, MinLen(1)]
    n_cases: Annotated[int, Ge(1)]
    spacing_mm: tuple[VoxelMm, VoxelMm, VoxelMm]
    gain: PerChannel
    """Intensity of the brightest normal tissue, in the order of `CHANNELS`."""
    gamma: PerChannel
    """Exponent on the brightness: below 1 flattens the contrast, above 1 steepens it."""
    noise_fraction: Fraction
    """Standard deviation of the noise over the gain (Rician, as in magnitude images)."""
    bias_fraction: Fraction
    """Standard deviation of the logarithm of the smooth bias field."""
    tumour_radius_mm: Positive
    """Median radius of the whole tumour; log-normal."""
    tumour_radius_spread: Annotated[float, Ge(0)]
    """Standard deviation of the radius's logarithm."""
    without_enhancing_fraction: Fraction
    """Share of the cases without enhancing tumour, spread evenly over them."""


@record
class PhantomStudy:
    """Several sites' phantoms, each case determined by the seed, its site and its number."""

    seed: Annotated[int, Ge(0)]
    field_of_view_mm: tuple[ExtentMm, ExtentMm, ExtentMm]
    sites: Annotated[tuple[PhantomSite, ...], MinLen(1)]


@dataclass(frozen=True)
class Phantom:
    """One case in memory."""

    image: Image
    labels: LabelMap


@dataclass(frozen=True)
class StudyFiles:
    """Where a study was written."""

    folder: Path
    partition_csv: Path


def write_study(
    study: PhantomStudy, folder: Path, progress: Callable[[int, int], None] | None = None
) -> StudyFiles:
    """Write all cases in the BraTS layout, then the partition into sites.

    Args:
        study: what to draw.
        folder: gets `<case>/<case>_{t1,t1ce,t2,flair,seg}.nii.gz` and `partition.csv`.
        progress: told the number of cases done and of all cases, after each case.

    Raises:
        ConfigError: when two sites have one name, or the folder cannot be written.
    """
    partition = partition_of(study)
    n_cases, n_done = sum(site.n_cases for site in study.sites), 0
    for site in study.sites:
        for number, case in enumerate(partition.sites[site.name]):
            _write_case(draw_phantom(study, site, number), site.spacing_mm, folder, case)
            n_done += 1
            if progress is not None:
                progress(n_done, n_cases)
    partition_csv = folder / PARTITION_FILE
    write_csv(partition, partition_csv)
    return StudyFiles(folder=folder, partition_csv=partition_csv)


def partition_of(study: PhantomStudy) -> Partition:
    """Return which case belongs to which site; cases count up from `phantom_0001`.

    Raises:
        ConfigError: when two sites have one name.
    """
    sites: dict[str, tuple[str, ...]] = {}
    first = 1
    for site in study.sites:
        if site.name in sites:
            raise ConfigError(f"sites: expected different names, found '{site.name}' twice")
        sites[site.name] = tuple(f"phantom_{first + i:04d}" for i in range(site.n_cases))
        first += site.n_cases
    return Partition(sites=sites)


def draw_phantom(study: PhantomStudy, site: PhantomSite, number: int) -> Phantom:
    """Draw one case; it does not depend on the other cases or sites.

    Args:
        study: for the seed and the field of view.
        site: whose scanner and whose patient.
        number: of the case within the site, from 0.
    """
    rng = step_rng(study.seed, site.name, round_=0, step=number, purpose="phantom")
    shape = _shape(study.field_of_view_mm, site.spacing_mm)
    brain = draw_brain(rng, shape, site.spacing_mm)
    lesions = draw_lesions(
        rng,
        brain,
        site.tumour_radius_mm,
        site.tumour_radius_spread,
        enhancing=_is_enhancing(number, site.without_enhancing_fraction),
    )
    tissues, labels = draw_tissues(rng, brain, lesions, site.spacing_mm)
    image = _scan(rng, np.tensordot(draw_brightness(rng).T, tissues, axes=1), site)
    image[:, ~brain.inside] = 0.0
    return Phantom(image=image, labels=labels)


def draw_brightness(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return one patient's brightness, axes (tissue, channel).

    Oedema ranges from faint to brighter than any healthy tissue, and so do its look-alikes.
    """
    brightness = BRIGHTNESS * rng.uniform(0.95, 1.05, size=BRIGHTNESS.shape)
    flair, t2 = CHANNELS.index("flair"), CHANNELS.index("t2")
    contrast = rng.uniform(0.85, 1.15)
    brightness[TISSUES.index("oedema"), [t2, flair]] *= contrast
    brightness[TISSUES.index("tumour core"), flair] *= rng.uniform(0.75, 1.2)
    brightness[TISSUES.index("enhancing tumour"), CHANNELS.index("t1ce")] *= rng.uniform(0.85, 1.2)
    return np.asarray(brightness, dtype=np.float32)


def _scan(rng: np.random.Generator, brightness: Image, site: PhantomSite) -> Image:
    """Return what the site's scanner makes of the brightness: positive everywhere."""
    shape = brightness.shape[1:]
    image = np.empty_like(brightness)
    for channel, (gain, gamma) in enumerate(zip(site.gain, site.gamma, strict=True)):
        texture = 1.0 + 0.04 * smooth_field(rng, shape, site.spacing_mm, 7.0)
        bias = np.exp(site.bias_fraction * smooth_field(rng, shape, site.spacing_mm, 55.0))
        signal = np.maximum(brightness[channel] * texture, 0.0) ** gamma * bias
        noise = site.noise_fraction * rng.standard_normal((2, *shape), dtype=np.float32)
        image[channel] = gain * np.hypot(signal + noise[0], noise[1])
    return image


def _write_case(phantom: Phantom, spacing_mm: SpacingMm, folder: Path, case: str) -> None:
    grid = grid_of(spacing_mm, phantom.labels.shape)
    for channel, image in zip(CHANNELS, phantom.image, strict=True):
        write_image(folder / case / f"{case}_{channel}.nii.gz", image, grid)
    write_labels(folder / case / f"{case}_seg.nii.gz", phantom.labels, grid)


def _shape(field_of_view_mm: SpacingMm, spacing_mm: SpacingMm) -> Shape:
    z, y, x = (round(o / step) for o, step in zip(field_of_view_mm, spacing_mm, strict=True))
    return z, y, x


def _is_enhancing(number: int, without_fraction: float) -> bool:
    """Return False for the given fraction of the numbers 0, 1, 2, ..., evenly spread."""
    rounding = 1e-9  # ten times 0.1 must count as a whole one
    before = math.floor(number * without_fraction + rounding)
    return math.floor((number + 1) * without_fraction + rounding) == before
