"""What a site tells about its cases: integer counts that add up, and nothing per case.

Every decision of the planner rests on per-axis order statistics, so a histogram per axis is
enough and the tuple (shape, spacing) of a case, which identifies a scan, never leaves a site.
Means of medians, of percentiles or of standard deviations would be wrong; sums of counts are not.

One query round suffices. The median commutes with the division by a positive constant,
``median(shape * spacing) / target == median(shape * spacing / target)``, so the histogram of the
extents in mm gives the exact, unrounded median shape at any target spacing, although the target
is known only after the merge. Extents are shape times the spacing *on its grid*, an exact integer
number of ticks: nothing is rounded twice, and cases of one spacing keep whole-numbered shapes.

Source: what the planner needs, nnU-Net (arXiv 1904.08128v2), methods "fingerprint extraction".
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import reduce
from math import prod
from typing import Annotated

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from pydantic import model_validator

from common.axes import Shape, SpacingMm
from common.codec import record
from common.errors import ConfigError, DataError
from common.planning.histogram import SizeHistogram, added
from common.planning.intensity import CtStatistics, added_ct, ct_channels, ct_statistics
from common.task import Task

FINGERPRINT_SCHEMA = 1
TICKS_PER_MM = 10_000  # headers store float32: 1e-4 mm is above their noise, below any scanner's

Count = Annotated[int, Ge(0)]
AxisHistograms = tuple[SizeHistogram, SizeHistogram, SizeHistogram]


@record
class Fingerprint:
    """A site's, or the federation's, data set. All of it may leave the site.

    Axes are (z, y, x) of the RAS+ image. Laws, for fingerprints of one task:
    ``merge(empty(task), a) == a``, ``merge(a, b) == merge(b, a)``,
    ``merge(merge(a, b), c) == merge(a, merge(b, c))``.
    """

    schema: Annotated[int, Ge(1)] = FINGERPRINT_SCHEMA
    task: str
    task_version: Annotated[int, Ge(1)]
    channels: tuple[str, ...]
    labels: tuple[int, ...]
    """Label values, background included, ascending."""
    n_cases: Count
    n_cropped: Count
    """Cases that keep less than 3/4 of their voxels after the crop."""
    shapes_voxels: AxisHistograms
    """Cases per shape after the crop."""
    spacings_ticks: AxisHistograms
    """Cases per voxel spacing, in 1e-4 mm."""
    extents_ticks: AxisHistograms
    """Cases per shape times spacing, in 1e-4 mm."""
    ct: dict[str, CtStatistics]
    """One entry per channel named CT; of other channels no intensity is collected."""

    @model_validator(mode="after")
    def _consistent(self) -> "Fingerprint":
        if self.schema != FINGERPRINT_SCHEMA:
            raise ValueError(f"schema: expected {FINGERPRINT_SCHEMA}, found {self.schema}")
        if self.n_cropped > self.n_cases:
            raise ValueError(f"n_cropped: expected at most {self.n_cases} cases")
        for name in ("shapes_voxels", "spacings_ticks", "extents_ticks"):
            if any(sum(axis.values()) != self.n_cases for axis in getattr(self, name)):
                raise ValueError(f"{name}: expected {self.n_cases} cases on every axis")
        if set(self.ct) != set(ct_channels(self.channels)):
            raise ValueError(f"ct: expected exactly the channels {ct_channels(self.channels)}")
        return self


def empty(task: Task) -> Fingerprint:
    """Return the fingerprint of no cases, the identity of `merge`."""
    return Fingerprint(
        task=task.name,
        task_version=task.version,
        channels=task.channels,
        labels=(0, *task.foreground_labels),
        n_cases=0,
        n_cropped=0,
        shapes_voxels=({}, {}, {}),
        spacings_ticks=({}, {}, {}),
        extents_ticks=({}, {}, {}),
        ct=dict.fromkeys(ct_channels(task.channels), ct_statistics(np.empty(0))),
    )


def fingerprint_of(
    shape_before_crop: Shape,
    shape_after_crop: Shape,
    spacing_mm: SpacingMm,
    ct_foreground: Mapping[str, NDArray[np.floating]] | None,
    task: Task,
) -> Fingerprint:
    """Return the fingerprint of one case; a site's is the merge of its cases'.

    Args:
        shape_before_crop: voxels along (z, y, x).
        shape_after_crop: voxels along (z, y, x), each at least 1.
        spacing_mm: along (z, y, x), at least half of 1e-4 mm.
        ct_foreground: every `FOREGROUND_STEP`-th foreground voxel per CT channel, in HU; a channel
            that is absent, or None, means that the case has no foreground.
        task: names the channels and labels.

    Raises:
        DataError: for a spacing that the grid of 1e-4 mm cannot hold.
    """
    # 1e-6 mm first: 0.78125 mm lies between two ticks, and float noise would pick one per file.
    ticks = tuple(round(round(spacing, 6) * TICKS_PER_MM) for spacing in spacing_mm)
    if min(ticks) < 1:
        raise DataError(f"spacing: expected at least {1 / TICKS_PER_MM} mm, found {spacing_mm} mm")
    extents = (size * step for size, step in zip(shape_after_crop, ticks, strict=True))
    nothing, sampled = empty(task), ct_foreground or {}
    return replace(
        nothing,
        n_cases=1,
        # Whole numbers on both sides: 0.75 itself is never "below" by rounding.
        n_cropped=int(4 * prod(shape_after_crop) < 3 * prod(shape_before_crop)),
        shapes_voxels=_one_case(shape_after_crop),
        spacings_ticks=_one_case(ticks),
        extents_ticks=_one_case(extents),
        ct={name: ct_statistics(sampled.get(name, np.empty(0))) for name in nothing.ct},
    )


def merge(a: Fingerprint, b: Fingerprint) -> Fingerprint:
    """Return the fingerprint of both data sets together; the laws stand at `Fingerprint`.

    Raises:
        ConfigError: when task, version, channels or labels differ.
    """
    if _subject(a) != _subject(b):
        raise ConfigError(f"fingerprints differ: {_subject(a)} against {_subject(b)}")
    return replace(
        a,
        n_cases=a.n_cases + b.n_cases,
        n_cropped=a.n_cropped + b.n_cropped,
        shapes_voxels=_added_axes(a.shapes_voxels, b.shapes_voxels),
        spacings_ticks=_added_axes(a.spacings_ticks, b.spacings_ticks),
        extents_ticks=_added_axes(a.extents_ticks, b.extents_ticks),
        ct={name: added_ct(a.ct[name], b.ct[name]) for name in ct_channels(a.channels)},
    )


def merge_all(named: Mapping[str, Fingerprint]) -> Fingerprint:
    """Return the federation's fingerprint.

    Args:
        named: fingerprint per site (or file) name, at least one; the order is irrelevant.

    Raises:
        ConfigError: when there is none, or with one line per site when they do not agree on
            task, version, channels and labels.
    """
    if not named:
        raise ConfigError("fingerprints: expected at least one, found none")
    if len({_subject(fingerprint) for fingerprint in named.values()}) > 1:
        lines = [f"  {name}: {_subject(named[name])}" for name in sorted(named)]
        raise ConfigError("\n".join(["fingerprints of different tasks cannot be merged:", *lines]))
    return reduce(merge, named.values())


def _added_axes(a: AxisHistograms, b: AxisHistograms) -> AxisHistograms:
    z, y, x = (added(of_a, of_b) for of_a, of_b in zip(a, b, strict=True))
    return z, y, x


def _one_case(values: Iterable[int]) -> AxisHistograms:
    z, y, x = ({int(value): 1} for value in values)
    return z, y, x


def _subject(fingerprint: Fingerprint) -> str:
    """Return what fingerprints must agree on, in words."""
    return (
        f"task {fingerprint.task} version {fingerprint.task_version}, "
        f"channels {', '.join(fingerprint.channels)}, "
        f"labels {', '.join(map(str, fingerprint.labels))}"
    )
