"""What of a fingerprint a site lets out: every count, only bins of several cases, or only a sum.

``secure-sum`` is no function of one fingerprint: the sites of a run mask their counts for each
other (`common.secure_sum`, on the grid of `common.planning.fingerprint_grid`).

``coarse`` is a function from fingerprint to fingerprint: type, merge and planner stay the same,
and a federation may mix all modes. It costs a bounded error, because each case is counted at a
value near its own; `error_bound` says how near, in the units of a reader.

Laws: ``coarse(coarse(f, k), k) == coarse(f, k)``; totals are those of ``f``; no order statistic of
any merge moves by more than the largest `error_bound` of its parts.

Source: k-anonymity, Sweeney 2002; counts below a minimum of 5 or so are what disclosure control
of official statistics withholds.
"""

from dataclasses import dataclass, replace
from math import ceil
from typing import Annotated, Literal, NoReturn

from annotated_types import Ge

from common.errors import PolicyError
from common.planning.fingerprint import TICKS_PER_MM, AxisHistograms, Fingerprint
from common.planning.histogram import coarsened, largest_move
from common.planning.intensity import CtStatistics

ReleaseMode = Literal["exact", "coarse", "secure-sum"]
SMALLEST_BIN = 3  # of two cases the lower median is the minimum, one patient's own value
MinCases = Annotated[int, Ge(SMALLEST_BIN)]
DEFAULT_MIN_CASES = 5  # usual threshold of disclosure control

VOXEL_SHARE = 0.01
"""Of an average case's sampled foreground, times the minimum of cases: a bin of CT voxels.

Sums of voxels do not tell whose they are, so a minimum of cases cannot be kept literally. With 5
cases a bin holds 5 % of one average foreground: a rare material (an implant, a clip) keeps a bin of
its own only if it fills that much. Of the site's voxels these are 0.25 % at 20 cases, fine enough
for the clip points at 0.5 and 99.5 %; ten times the share would make the clip points guesses.
"""


@dataclass(frozen=True)
class ErrorBound:
    """How far a release moves any case from its own value, at most. Stays at the site."""

    shape_voxels: int
    spacing_mm: float
    extent_mm: float
    intensity_hu: int
    cropped_cases: int
    """By so many the count of cropped cases differs."""


def released(measured: Fingerprint, mode: ReleaseMode, min_cases: int) -> Fingerprint:
    """Return what may leave the site of what was measured.

    Raises:
        PolicyError: as in `coarse`; and for ``secure-sum``, of which one site's part is never
            seen.
    """
    if mode == "secure-sum":
        refuse_alone()
    return coarse(measured, min_cases) if mode == "coarse" else measured


def refuse_alone() -> NoReturn:
    """Refuse to write a file for a mode that needs company: a `PolicyError`."""
    raise PolicyError(
        "secure-sum: a file cannot be masked alone; the mode applies in a federated run, where at "
        'least 3 sites with fingerprint = "secure-sum" in their policy mask their counts for each '
        "other; nothing was released (--explain says what would be)",
        "privacy",
    )


def coarse(fingerprint: Fingerprint, min_cases: int) -> Fingerprint:
    """Return the fingerprint with neighbouring bins merged until each holds enough cases.

    Args:
        fingerprint: of one site; a single patient may stand out in it.
        min_cases: smallest count of a bin, at least `SMALLEST_BIN`. For CT the bins count voxels
            and hold `VOXEL_SHARE` of what so many average cases contribute, or more.

    Raises:
        PolicyError: when the site has fewer cases, or fewer CT voxels, than a bin needs.
    """
    if min_cases < SMALLEST_BIN:
        raise PolicyError(
            f"min_cases: expected at least {SMALLEST_BIN}, found {min_cases}; "
            "a bin of two cases would show the smaller value as it is",
            "privacy",
        )
    if fingerprint.n_cases < min_cases:
        raise PolicyError(
            f"coarse release: expected at least {min_cases} cases, one full bin, "
            f"found {fingerprint.n_cases}; nothing was released",
            "privacy",
        )
    return replace(
        fingerprint,
        n_cropped=_coarse_cropped(fingerprint, min_cases),
        shapes_voxels=_coarse_axes(fingerprint.shapes_voxels, min_cases),
        spacings_ticks=_coarse_axes(fingerprint.spacings_ticks, min_cases),
        extents_ticks=_coarse_axes(fingerprint.extents_ticks, min_cases),
        ct={
            name: _coarse_ct(name, statistics, fingerprint.n_cases, min_cases)
            for name, statistics in fingerprint.ct.items()
        },
    )


def error_bound(measured: Fingerprint, release: Fingerprint) -> ErrorBound:
    """Return how far cases (and CT voxels) lie from where a release counts them, at most.

    Args:
        measured: the site's own fingerprint.
        release: what `released` made of it.
    """
    return ErrorBound(
        shape_voxels=_largest_move(measured.shapes_voxels, release.shapes_voxels),
        spacing_mm=_largest_move(measured.spacings_ticks, release.spacings_ticks) / TICKS_PER_MM,
        extent_mm=_largest_move(measured.extents_ticks, release.extents_ticks) / TICKS_PER_MM,
        intensity_hu=max(
            (
                largest_move(statistics.histogram_hu, release.ct[name].histogram_hu)
                for name, statistics in measured.ct.items()
            ),
            default=0,
        ),
        cropped_cases=abs(measured.n_cropped - release.n_cropped),
    )


def smallest_voxel_bin(n_voxels: int, n_cases: int, min_cases: int) -> int:
    """Return how many sampled voxels a bin of CT intensities must hold, at least `min_cases`."""
    return max(min_cases, ceil(VOXEL_SHARE * min_cases * n_voxels / n_cases))


def _coarse_cropped(fingerprint: Fingerprint, min_cases: int) -> int:
    """Treat the count as a histogram of two values; the planner asks for its majority only."""
    kept, cropped = fingerprint.n_cases - fingerprint.n_cropped, fingerprint.n_cropped
    counts = {value: count for value, count in enumerate((kept, cropped)) if count}
    return coarsened(counts, min_cases).get(1, 0)


def _coarse_axes(axes: AxisHistograms, min_cases: int) -> AxisHistograms:
    z, y, x = (coarsened(axis, min_cases) for axis in axes)
    return z, y, x


def _coarse_ct(name: str, ct: CtStatistics, n_cases: int, min_cases: int) -> CtStatistics:
    if 0 < ct.n_voxels < min_cases:
        raise PolicyError(
            f"coarse release: channel {name}: expected at least {min_cases} foreground voxels, "
            f"found {ct.n_voxels}; nothing was released",
            "privacy",
        )
    at_least = smallest_voxel_bin(ct.n_voxels, n_cases, min_cases)
    return replace(ct, histogram_hu=coarsened(ct.histogram_hu, at_least))


def _largest_move(before: AxisHistograms, after: AxisHistograms) -> int:
    return max(largest_move(*axes) for axes in zip(before, after, strict=True))
