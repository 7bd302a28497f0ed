"""How images became what the network saw: preparation, and variation of patches."""

from collections.abc import Iterator

from common.augmentation import NEVER, Change, Preset, degrees_of, preset_of
from common.config import RunConfig
from common.planning.plan import AnyConfiguration, Normalization, Plan
from server.reporting.methods.told import (
    listed,
    of_plan,
    percent_of_config,
)
from server.reporting.references import cite
from server.reporting.sources import sourced

PRESETS = {
    "none": ("without any variation", ()),
    "mirror": ("varied by mirroring only", ()),
    "light": ("varied by a light recipe without resampling", ("isensee2021",)),
    "nnunet": ("varied as nnU-Net publishes", ("isensee2021",)),
    "nnunet-v2": ("varied as nnunetv2 does", ("isensee2021", "isensee2024")),
    "brats2020": ("varied as in the BraTS challenge's winner of its year", ("isensee2020",)),
    "brats2020-star": ("varied as in the BraTS challenge's winner, starred", ("isensee2020",)),
    "ibsr18": ("varied by flips, rotations and affine maps", ()),
}
CHANGES = {
    "scaling": "scaling by a factor",
    "elastic": "elastic deformation with a width as a fraction of the patch",
    "noise": "Gaussian noise with a standard deviation",
    "blur": "Gaussian blur with a standard deviation in voxels",
    "brightness": "brightness by a factor",
    "contrast": "contrast by a factor",
    "low_resolution": "resolution reduced to a fraction",
    "inverted_gamma": "gamma of the inverted image with an exponent",
    "shift": "a shift of intensity",
    "gamma": "gamma with an exponent",
}
BY_LAW = {"root": "Gaussian noise with a variance", "reciprocal": "resolution divided by a number"}


def prepared(plan: Plan) -> list[str]:
    """Return how images were brought to the network's grid and scale."""
    ratio = of_plan(plan, "resampling.thick_slices_ratio")
    return [
        (
            "Images were brought into RAS+ orientation, cropped to their non-zero region and "
            "resampled to the target spacing by splines of order "
            f"{of_plan(plan, 'resampling.image_order')} (order "
            f"{of_plan(plan, 'resampling.label_order')} on the mask of every label); where the "
            f"largest spacing is more than {ratio} times the smallest, slices were resampled one "
            f"by one, with order {of_plan(plan, 'resampling.across_thick_slices_order')} across "
            f"them {cite('isensee2021')}."
        ),
        *_filters(plan),
        *_normalised(plan),
    ]


def varied(
    config: RunConfig, trained: dict[str, AnyConfiguration], n_channels: int = 1
) -> list[str]:
    """Return how patches were drawn and varied.

    Args:
        config: names the recipe.
        trained: the plan's configuration that was trained, by name.
        n_channels: of the images.
    """
    augmentation = config.training.augmentation
    preset = preset_of(augmentation)
    words, papers = PRESETS[augmentation.preset]
    cited = f" {cite(*papers)}" if papers else ""
    share = percent_of_config(config, "training.augmentation.foreground_fraction")
    found = [
        (
            f"Patches were drawn at random places, {share} of each batch around a foreground "
            f"voxel, and {words}{cited}."
        )
    ]
    source = f"program: common.augmentation, {augmentation.preset}"
    if changes := [*_moves(preset, trained, source), *_changes(preset, source)]:
        found.append(f"Each with its probability per patch: {'; '.join(changes)}.")
    if not augmentation.mirror:
        found.append("Patches were not mirrored.")
    if preset.channel_dropout and n_channels > 1:
        chance = sourced(f"{preset.channel_dropout:g}", _dropout_source(config, source))
        found.append(f"Each channel was left out with probability {chance}; one always stayed.")
    return found


def _filters(plan: Plan) -> Iterator[str]:
    asked = plan.preparation
    if asked.n4_bias_correction:
        yield f"Bias fields were corrected by N4 {cite('tustison2010')}."
    if asked.diffusion is not None:
        yield (
            f"Images were smoothed by {of_plan(plan, 'preparation.diffusion.n_iterations')} "
            "iterations of anisotropic diffusion with conductance "
            f"{of_plan(plan, 'preparation.diffusion.conductance')} {cite('perona1990')}."
        )
    if asked.clip_percentiles is not None:
        low, high = (of_plan(plan, f"preparation.clip_percentiles.{end}") for end in (0, 1))
        yield f"Intensities were clipped at the percentiles {low} and {high} of non-zero voxels."
    if asked.histogram_landmarks is not None:
        names = listed(list(asked.histogram_landmarks))
        yield f"Histograms of {names} were mapped onto landmarks {cite('nyul2000')}."


def _normalised(plan: Plan) -> Iterator[str]:
    regions = {"masked-z-score": "its non-zero voxels", "z-score": "the whole image"}
    for scheme, region in regions.items():
        names = [rule.channel for rule in plan.normalization if rule.scheme == scheme]
        if names:
            verb = "was" if len(names) == 1 else "were each"
            yield (
                f"{listed(names)} {verb} normalised to mean zero and unit variance over {region}."
            )
    for place, rule in enumerate(plan.normalization):
        if rule.scheme == "ct" and rule.mean is not None:
            yield _ct(rule, place)


def _ct(rule: Normalization, place: int) -> str:
    low, high, mean, std = (
        sourced(f"{getattr(rule, name):g}", f"plan.json: normalization.{place}.{name}")
        for name in ("clip_low", "clip_high", "mean", "std")
    )
    return (
        f"{rule.channel} was clipped to {low} to {high} HU, less {mean} HU, and divided by {std} "
        "HU: percentiles, mean and standard deviation of all sites' foreground."
    )


def _moves(preset: Preset, trained: dict[str, AnyConfiguration], source: str) -> Iterator[str]:
    if preset.mirror:
        yield f"mirroring along each axis ({sourced(f'{preset.mirror:g}', source)})"
    for one in trained.values() if preset.rotation else ():
        flat = getattr(one, "anisotropic_augmentation", False)
        degrees = degrees_of(preset, one.patch_size, in_plane=flat)
        plane = " within slices" if flat else ""
        yield (
            f"rotation{plane} by up to {sourced(f'{degrees:g}', source)} degrees about each axis "
            f"({sourced(f'{preset.rotation:g}', source)})"
        )


def _changes(preset: Preset, source: str) -> Iterator[str]:
    for field, words in CHANGES.items():
        change: Change = getattr(preset, field)
        if change == NEVER:
            continue
        low, high = (sourced(f"{end:g}", source) for end in (change.low, change.high))
        ends = f"from {low} to {high}"
        if change.law == "normal":
            ends = f"normal with mean {low} and deviation {high}"
        chance = sourced(f"{change.probability:g}", source)
        yield f"{BY_LAW.get(change.law, words)} {ends} ({chance})"


def _dropout_source(config: RunConfig, source: str) -> str:
    if config.training.augmentation.channel_dropout is not None:
        return "config.toml: training.augmentation.channel_dropout"
    return source
