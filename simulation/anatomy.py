"""Anatomy of a phantom: a smoothly deformed brain and the lesions in it, as fractions of tissue.

Everything is described in mm around the centre of the field of view, so that one description
serves every voxel size. Random shapes are cubic B-spline fields with normally distributed
control points. No patient's data went into any number here: sizes and layout are those of an
adult brain as textbooks give them, simplified until a small network can learn them on a CPU.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.special import expit

from common.axes import LabelMap, Mask, Shape, SpacingMm

Field: TypeAlias = NDArray[np.float32]
"""One real number per voxel, axes (z, y, x)."""

TISSUES = (
    "white matter",
    "grey matter",
    "cerebrospinal fluid",
    "white-matter hyperintensity",
    "bright cortical rim",
    "oedema",
    "tumour core",
    "enhancing tumour",
)
OUTLINES = (  # tissue, BraTS 2021 label, width of the blurred edge in mm; later ones lie on top
    ("oedema", 2, 1.8),
    ("tumour core", 1, 1.0),
    ("enhancing tumour", 4, 0.8),
)

BRAIN_SEMI_AXES_MM = (58.0, 74.0, 62.0)  # 116 x 148 x 124 mm: an adult brain without cerebellum
VENTRICLE_SEMI_AXES_MM = (11.0, 27.0, 7.0)
VENTRICLE_CENTRE_MM = (6.0, -2.0, 13.0)  # of the right one; the left one is its mirror image
NUCLEUS_SEMI_AXES_MM = (12.0, 18.0, 8.0)  # thalamus and basal ganglia as one body per side
NUCLEUS_CENTRE_MM = (-6.0, 0.0, 27.0)
SPLINE_STD = 0.479**1.5  # the three axes' mean sum of squared cubic B-spline weights, 151/315


@dataclass(frozen=True)
class Brain:
    """A brain without tumour on one grid; every array has axes (z, y, x)."""

    coordinates_mm: tuple[Field, Field, Field]
    """Undeformed position along z, y and x around the centre of the field of view."""
    depth_mm: Field
    """About the distance to the brain's surface, negative outside."""
    ventricle_mm: Field
    """About the distance to the ventricles' surface, negative outside of them."""
    white: Field
    """Fraction of white matter, range [0, 1]."""
    grey: Field
    """Fraction of grey matter, range [0, 1]; the rest is cerebrospinal fluid."""

    @property
    def inside(self) -> Mask:
        """Return where the brain is."""
        return self.depth_mm > 0


@dataclass(frozen=True)
class Lesion:
    """One tumour: its whole extent, and the core in it."""

    centre_mm: tuple[float, float, float]
    radius_mm: float
    """Of the sphere around which the whole tumour, oedema included, is drawn."""
    core_fraction: float
    """Radius of the core over the radius of the whole, range (0, 1)."""
    enhancing: bool


def smooth_field(
    rng: np.random.Generator, shape: Shape, spacing_mm: SpacingMm, correlation_mm: float
) -> Field:
    """Return a random field with mean 0 and, on average, variance 1.

    Args:
        rng: source of the control points.
        shape: voxels along (z, y, x).
        spacing_mm: voxel size along (z, y, x).
        correlation_mm: distance of the control points; structures are about twice as large.
    """
    bases = [
        _spline_basis(n, step / correlation_mm) for n, step in zip(shape, spacing_mm, strict=True)
    ]
    control = rng.standard_normal([basis.shape[1] for basis in bases]).astype(np.float32)
    for basis in bases:
        control = np.tensordot(control, basis, axes=(0, 1))  # the new axis goes last: z, y, x again
    return np.asarray(control / np.float32(SPLINE_STD), dtype=np.float32)


def draw_brain(rng: np.random.Generator, shape: Shape, spacing_mm: SpacingMm) -> Brain:
    """Draw one brain: size, deformation, folding of the cortex, width of the ventricles.

    Args:
        rng: source of everything random.
        shape: voxels along (z, y, x).
        spacing_mm: voxel size along (z, y, x).
    """
    z, y, x = coordinates_mm = _coordinates_mm(shape, spacing_mm)
    warped = (
        z + 3.0 * smooth_field(rng, shape, spacing_mm, 45.0),
        y + 3.0 * smooth_field(rng, shape, spacing_mm, 45.0),
        x + 3.0 * smooth_field(rng, shape, spacing_mm, 45.0),
    )
    brain_axes = tuple(axis * rng.uniform(0.93, 1.05) for axis in BRAIN_SEMI_AXES_MM)
    depth_mm = _ellipsoid_mm(warped, (0.0, 0.0, 0.0), brain_axes)
    depth_mm += 1.5 * smooth_field(rng, shape, spacing_mm, 16.0)

    mirrored = (warped[0], warped[1], np.abs(warped[2]))
    width = rng.lognormal(0.0, 0.25)  # ventricles widen with age
    ventricle_axes = tuple(axis * width for axis in VENTRICLE_SEMI_AXES_MM)
    ventricle_mm = _ellipsoid_mm(mirrored, VENTRICLE_CENTRE_MM, ventricle_axes)

    folding = smooth_field(rng, shape, spacing_mm, 9.0)
    sulci = expit((5.0 * folding - 1.5 - 0.6 * depth_mm) / 1.0)
    fissure = expit(1.5 - mirrored[2]) * expit((18.0 - depth_mm) / 4.0)
    fluid = np.maximum.reduce([sulci, 0.7 * fissure, expit(ventricle_mm / 1.5)])
    nuclei_mm = _ellipsoid_mm(mirrored, NUCLEUS_CENTRE_MM, NUCLEUS_SEMI_AXES_MM)
    cortex = expit((6.0 + 5.0 * folding - depth_mm) / 1.2)
    grey = np.maximum(cortex, 0.8 * expit(nuclei_mm / 2.0)) * (1.0 - fluid)
    return Brain(
        coordinates_mm=coordinates_mm,
        depth_mm=depth_mm,
        ventricle_mm=ventricle_mm,
        white=np.asarray(1.0 - fluid - grey, dtype=np.float32),
        grey=np.asarray(grey, dtype=np.float32),
    )


def draw_lesions(
    rng: np.random.Generator, brain: Brain, radius_mm: float, radius_spread: float, enhancing: bool
) -> tuple[Lesion, ...]:
    """Draw one lesion, and in a quarter of the cases a smaller second one.

    Args:
        rng: source of everything random.
        brain: where the lesions go: deep enough in the tissue, never centred in a ventricle.
        radius_mm: median radius of the whole tumour.
        radius_spread: standard deviation of the radius's logarithm.
        enhancing: whether the cores take up contrast agent.
    """
    allowed = np.argwhere((brain.depth_mm > 13.0) & (brain.ventricle_mm < -4.0))
    lesions = []
    for share in (1.0, 0.55) if rng.random() < 0.25 else (1.0,):
        z, y, x = allowed[rng.integers(len(allowed))]
        radius = radius_mm * share * rng.lognormal(0.0, radius_spread)
        lesions.append(
            Lesion(
                centre_mm=(
                    float(brain.coordinates_mm[0][z, y, x]),
                    float(brain.coordinates_mm[1][z, y, x]),
                    float(brain.coordinates_mm[2][z, y, x]),
                ),
                radius_mm=float(np.clip(radius, 11.0, 34.0)),  # 11 mm: several voxels of each label
                core_fraction=rng.uniform(0.6, 0.8),
                enhancing=enhancing,
            )
        )
    return tuple(lesions)


def draw_tissues(
    rng: np.random.Generator, brain: Brain, lesions: tuple[Lesion, ...], spacing_mm: SpacingMm
) -> tuple[NDArray[np.float32], LabelMap]:
    """Put the lesions, and what only looks like one, into the brain.

    Args:
        rng: source of the lesions' ragged outlines and of the look-alikes.
        brain: the anatomy without tumour.
        lesions: at least one; where they meet, core lies over oedema.
        spacing_mm: voxel size along (z, y, x).

    Returns:
        Fractions with axes (tissue, z, y, x) in the order of `TISSUES`, which add up to 1, and
        the BraTS 2021 label map: 0 background, 1 core, 2 oedema, 4 enhancing tumour.
    """
    shape = brain.depth_mm.shape
    tissues = np.zeros((len(TISSUES), *shape), dtype=np.float32)
    tissues[:3] = brain.white, brain.grey, 1.0 - brain.white - brain.grey
    hyperintensity, rim = _look_alikes(rng, brain, spacing_mm)
    _cover(tissues, TISSUES.index("white-matter hyperintensity"), hyperintensity)
    _cover(tissues, TISSUES.index("bright cortical rim"), rim)
    levels_mm = np.maximum.reduce(
        [_outline_mm(rng, brain, lesion, spacing_mm) for lesion in lesions]
    )
    labels = np.zeros(shape, dtype=np.uint8)
    for level_mm, (tissue, label, edge_mm) in zip(levels_mm, OUTLINES, strict=True):
        _cover(tissues, TISSUES.index(tissue), expit(level_mm / edge_mm))
        labels[level_mm > 0] = label
    labels[~brain.inside] = 0
    return tissues, labels


def _outline_mm(
    rng: np.random.Generator, brain: Brain, lesion: Lesion, spacing_mm: SpacingMm
) -> NDArray[np.float32]:
    """Return about the distance to each of a lesion's `OUTLINES`, positive inside."""
    shape = brain.depth_mm.shape
    ragged = smooth_field(rng, shape, spacing_mm, 12.0)
    lumpy = smooth_field(rng, shape, spacing_mm, 9.0)
    distance_mm = _stretched_distance_mm(rng, brain.coordinates_mm, lesion.centre_mm)
    core_mm = lesion.radius_mm * lesion.core_fraction
    # oedema follows the white matter, spares the cortex and stops at the ventricles
    outer = lesion.radius_mm * (1.0 + 0.22 * ragged - 0.25 * brain.grey) - distance_mm
    outer = np.minimum(outer, -brain.ventricle_mm - 1.0)
    core = core_mm * (1.0 + 0.15 * lumpy) - distance_mm
    rim = np.minimum(core, 0.5 * core_mm + 0.8 * ragged - core)
    return np.stack([outer, core, rim if lesion.enhancing else np.full_like(rim, -np.inf)])


def _stretched_distance_mm(
    rng: np.random.Generator,
    coordinates_mm: tuple[Field, Field, Field],
    centre_mm: tuple[float, float, float],
) -> Field:
    stretch = rng.uniform(0.85, 1.2, size=3).astype(np.float32)
    squares = [
        ((axis - np.float32(centre)) / factor) ** 2
        for axis, centre, factor in zip(coordinates_mm, centre_mm, stretch, strict=True)
    ]
    return np.asarray(np.sqrt(sum(squares)))


def _look_alikes(
    rng: np.random.Generator, brain: Brain, spacing_mm: SpacingMm
) -> tuple[Field, Field]:
    """Return what is as bright as oedema in FLAIR and is none: two fractions in [0, 1]."""
    shape = brain.depth_mm.shape
    load_mm = rng.uniform(-1.0, 4.0)
    patchy = smooth_field(rng, shape, spacing_mm, 12.0)
    caps = expit((brain.ventricle_mm + load_mm + 3.0 * patchy) / 1.2)
    spots = expit((smooth_field(rng, shape, spacing_mm, 7.0) - rng.uniform(2.0, 2.8)) / 0.15)
    white_matter = np.maximum(caps * expit(-brain.ventricle_mm), spots) * brain.white
    rim_mm = rng.uniform(-5.0, 0.0) + 5.0 * smooth_field(rng, shape, spacing_mm, 22.0)
    return white_matter, expit((rim_mm - brain.depth_mm) / 1.0) * (brain.grey + brain.white)


def _cover(tissues: NDArray[np.float32], index: int, fraction: Field) -> None:
    """Lay a tissue over the others: they keep what it leaves."""
    tissues *= 1.0 - fraction
    tissues[index] += fraction


def _coordinates_mm(shape: Shape, spacing_mm: SpacingMm) -> tuple[Field, Field, Field]:
    axes = [
        (np.arange(n, dtype=np.float32) - (n - 1) / 2) * step
        for n, step in zip(shape, spacing_mm, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z, y, x


def _ellipsoid_mm(
    coordinates_mm: tuple[Field, Field, Field],
    centre_mm: tuple[float, ...],
    semi_axes_mm: tuple[float, ...],
) -> Field:
    """Return about the distance to an ellipsoid's surface in mm, positive inside."""
    squares = [
        ((axis - centre) / semi_axis) ** 2
        for axis, centre, semi_axis in zip(coordinates_mm, centre_mm, semi_axes_mm, strict=True)
    ]
    return np.asarray((1.0 - np.sqrt(sum(squares))) * min(semi_axes_mm), dtype=np.float32)


def _spline_basis(n_voxels: int, step: float) -> NDArray[np.float32]:
    """Return cubic B-spline weights, axes (voxel, control point), at multiples of `step`."""
    positions = np.arange(n_voxels) * step
    knots = np.arange(-3.0, np.floor(positions[-1]) + 5.0)
    weights = BSpline.design_matrix(positions, knots, 3).toarray()
    return np.asarray(weights, dtype=np.float32)
