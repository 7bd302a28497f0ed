"""What a fingerprint tells about patients, field by field, for a data-protection officer.

The text is made from the record that is released. `DISCLOSURES` has one entry per field of
`Fingerprint` and `CtStatistics`; a test demands it, so that no field leaves unexplained. For the
mode secure-sum, whose fields are never seen alone, `explain_sum.py` says how that is.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from textwrap import fill

from client.fingerprint.explain_sum import WIDTH, secure_sum_in_words
from common.planning.fingerprint import TICKS_PER_MM, Fingerprint
from common.planning.fingerprint_grid import error_on_grid
from common.planning.intensity import FOREGROUND_STEP, HU_RANGE
from common.planning.release import DEFAULT_MIN_CASES, ErrorBound, ReleaseMode, error_bound

MASKED = "masked"
IN_CLEAR = frozenset({"schema", "task", "task_version", "channels", "labels"})
"""Fields that the coordinator sees of a site in every mode, secure-sum included."""
ROUNDING_MM = 0.5 / TICKS_PER_MM


@dataclass(frozen=True)
class Disclosure:
    """What one field says, why it is asked for, and what it tells about a single patient."""

    holds: str
    needed_for: str
    about_one_patient: str
    if_coarse: str | None = None
    """About one patient in coarse mode; None means the same."""
    error: Callable[[ErrorBound], str] | None = None
    """How far values lie from the true ones; None means that the field is exact."""


COMMON = "Nothing: it is the same for every case of every site."
ONE_COUNT = (
    "A count of 1 is the value of one patient's image. Who knows that value from elsewhere could "
    "conclude that the image is probably among the cases; the value alone does not say whose it is."
)
IN_A_SUM = (
    "Of this site's patients, nothing by itself: only the sum over all masking sites can be read. "
    "In that sum a count of 1 is one patient of one of them, and nobody is told of which."
)
IN_A_BIN = (
    "Each count stands for {k} or more patients with similar values, released at the middle one; "
    "one patient cannot be told from the others of a bin. A smallest or largest value that only "
    "one patient has is never shown."
)

DISCLOSURES: Mapping[str, Disclosure] = {
    "schema": Disclosure(
        holds="The version of this file's format.",
        needed_for="Reading the file; another version is refused.",
        about_one_patient=COMMON,
    ),
    "task": Disclosure(
        holds="The name of the segmentation task.",
        needed_for="Refusing to mix fingerprints of different tasks.",
        about_one_patient="That every patient has a condition that the task is about.",
    ),
    "task_version": Disclosure(
        holds="The version of the task's definition.",
        needed_for="Refusing to mix fingerprints of different definitions.",
        about_one_patient=COMMON,
    ),
    "channels": Disclosure(
        holds="The image types (modalities) that every case has.",
        needed_for="The network's inputs and the kind of normalisation.",
        about_one_patient="That every patient had these images taken.",
    ),
    "labels": Disclosure(
        holds="The label values that the task knows, whether or not a case has them.",
        needed_for="The network's outputs.",
        about_one_patient=COMMON,
    ),
    "n_cases": Disclosure(
        holds="The number of cases that were measured.",
        needed_for="The batch size: a batch covers at most 5 % of all voxels of the federation.",
        about_one_patient="Nothing by itself. But two files, one from before and one from after a "
        "case was added, tell by their difference what the added case is like.",
    ),
    "n_cropped": Disclosure(
        holds="The number of cases of which an empty border of more than a quarter was cut off.",
        needed_for="Normalising over the whole image or only where the image is not empty; the "
        "majority of all cases decides.",
        about_one_patient="How many images have much background; with 0 or all cases, that each "
        "one is so. It is a property of scanner and preparation.",
        if_coarse="Nothing: fewer than {k} cases on one side are counted with the other side.",
        error=lambda bound: f"off by {bound.cropped_cases} cases",
    ),
    "shapes_voxels": Disclosure(
        holds="Per axis, how many cases have how many voxels after the empty border is cut off. "
        "The three axes are counted apart.",
        needed_for="Recognising anisotropic data, together with the spacings.",
        about_one_patient="The size of the imaged part of the body, by axis. " + ONE_COUNT,
        if_coarse=IN_A_BIN,
        error=lambda bound: f"no case is counted more than {bound.shape_voxels} voxels away",
    ),
    "spacings_ticks": Disclosure(
        holds="Per axis, how many cases have which voxel size, in units of 0.0001 mm.",
        needed_for="The voxel size to which all images are resampled.",
        about_one_patient="A rare voxel size can identify a scanner or protocol, and with it a "
        "period or a ward. " + ONE_COUNT,
        if_coarse=IN_A_BIN,
        error=lambda bound: _in_mm(bound.spacing_mm, f"rounding {ROUNDING_MM:.5f} mm"),
    ),
    "extents_ticks": Disclosure(
        holds="Per axis, how many cases have which length (voxels times voxel size), in units of "
        "0.0001 mm.",
        needed_for="The median image size after resampling, from which patch and network follow.",
        about_one_patient="The size of the imaged part of the body in mm. " + ONE_COUNT,
        if_coarse=IN_A_BIN,
        error=lambda bound: _in_mm(bound.extent_mm, f"rounding {ROUNDING_MM:.5f} mm per voxel"),
    ),
    "ct": Disclosure(
        holds=f"Per CT channel, four statistics of every {FOREGROUND_STEP}th voxel inside the "
        "labelled structures. No entry: no intensity of any image is in this file.",
        needed_for="Clipping and scaling CT images, which have an absolute scale (HU).",
        about_one_patient="See the four statistics, where there are any.",
    ),
    "ct.n_voxels": Disclosure(
        holds="The number of sampled voxels.",
        needed_for="Mean and standard deviation.",
        about_one_patient="The volume of the labelled structures of all patients together.",
    ),
    "ct.total_hu": Disclosure(
        holds="The sum of the sampled intensities.",
        needed_for="Mean and standard deviation.",
        about_one_patient="Their average over all patients; of a site with one case, of that case.",
    ),
    "ct.total_squared_hu2": Disclosure(
        holds="The sum of the squared intensities.",
        needed_for="The standard deviation.",
        about_one_patient="Their spread over all patients; extreme values (metal) of one patient "
        "can raise it, without telling whose they are.",
    ),
    "ct.histogram_hu": Disclosure(
        holds=f"How many sampled voxels have which intensity, from {HU_RANGE[0]} to {HU_RANGE[1]} "
        "HU; what lies outside is counted at the ends.",
        needed_for="The clip points, at 0.5 and 99.5 % of all voxels of the federation.",
        about_one_patient="Rare intensities can show that some patient has an implant, a clip or "
        "a calcification; not which patient, and not where.",
        if_coarse="Rare intensities are merged with their neighbours until a bin holds as many "
        "voxels as {k} average patients give with one hundredth of their labelled structures.",
        error=lambda bound: (
            f"no voxel is counted more than {bound.intensity_hu} HU away (rounding 0.5 HU)"
        ),
    ),
}


def explain(measured: Fingerprint, release: Fingerprint, mode: ReleaseMode, min_cases: int) -> str:
    """Return in plain words what a released fingerprint holds and what it tells.

    Args:
        measured: what the site measured; only the error bounds are taken from it.
        release: what is released of it.
        mode: how.
        min_cases: smallest count of a bin in coarse mode.
    """
    unseen = mode == "secure-sum"
    bound = error_on_grid(measured) if unseen else error_bound(measured, release)
    preface = secure_sum_in_words if unseen else partial(_preface, release, mode, min_cases)
    parts = [preface()]
    for field, heading, value in _contents(release, unseen=unseen):
        told = DISCLOSURES[field]
        about = (told.if_coarse if mode == "coarse" else None) or told.about_one_patient
        if value == MASKED:
            about = IN_A_SUM
        lines = (
            f"Holds: {told.holds}",
            f"Needed for: {told.needed_for}",
            f"About one patient: {about.format(k=min_cases)}",
            f"Error: {told.error(bound) if told.error else 'none, the value is exact'}.",
        )
        title = fill(f"{heading}: {value}", WIDTH, subsequent_indent="    ")
        parts.append("\n".join([title, *map(_indented, lines)]))
    return "\n\n".join(parts)


def _preface(release: Fingerprint, mode: ReleaseMode, min_cases: int) -> str:
    how = "every count as it is" if mode == "exact" else f"no bin of fewer than {min_cases} cases"
    text = (
        f"Release mode {mode}: {how}. Below is everything that the file holds. There is no image, "
        "no name of a patient, case or file, no date, and no list of cases: every property is "
        "counted by itself, and which values belong to the same case is not recorded. (Where all "
        "cases share a value, it is known for each of them.)"
    )
    histograms = (*release.shapes_voxels, *release.spacings_ticks, *release.extents_ticks)
    counts = [count for histogram in histograms for count in histogram.values()]
    if rare := sum(count < DEFAULT_MIN_CASES for count in counts):
        text += (
            f" {rare} of {len(counts)} counts stand for fewer than {DEFAULT_MIN_CASES} cases; "
            "--release coarse merges such counts with their neighbours."
        )
    return fill(text, WIDTH)


def _contents(release: Fingerprint, *, unseen: bool) -> Iterator[tuple[str, str, str]]:
    """Yield every field: its name in `DISCLOSURES`, its heading, and its value in words."""
    for field in fields(release):
        value = getattr(release, field.name)
        hidden = unseen and field.name not in IN_CLEAR and value != {}
        yield field.name, field.name, MASKED if hidden else _in_words(value)
    for channel, statistics in release.ct.items():
        for field in fields(statistics):
            value = MASKED if unseen else _in_words(getattr(statistics, field.name))
            yield f"ct.{field.name}", f"{field.name} of channel {channel}", value


def _in_words(value: object) -> str:
    match value:
        case (dict(), dict(), dict()):
            axes = zip("zyx", value, strict=True)
            return "; ".join(f"{axis} {_in_words(counts)}" for axis, counts in axes)
        case tuple():
            return ", ".join(map(str, value))
        case dict() if not value:
            return "no entry"
        case dict() if all(isinstance(count, int) for count in value.values()):
            n, rarest = len(value), min(value.values())
            values = "value" if n == 1 else "values"
            return f"{n} {values} (rarest count {rarest})"
        case dict():
            return ", ".join(value)
        case _:
            return str(value)


def _in_mm(moved_mm: float, rounding: str) -> str:
    return f"no case is counted more than {moved_mm:g} mm away ({rounding})"


def _indented(line: str) -> str:
    return fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ")
