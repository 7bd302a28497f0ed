"""How often and how strongly patches are varied: published recipes as plain numbers, by name.

Sources: [P] nnU-Net (arXiv 1904.08128v2), supplement D; [1] nnunet 1.7.1; [2] nnunetv2 2.8.1, its
default trainer with batchgeneratorsv2 0.3.6; [B] "nnU-Net for Brain Tumor Segmentation" (BraTS
2020). Where [P] prints a range and its code draws by another law, [P] is followed to the letter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

from annotated_types import Ge, Le, Lt

from common.codec import record

PresetName = Literal[
    "none", "mirror", "light", "nnunet", "nnunet-v2", "brats2020", "brats2020-star", "ibsr18"
]
Law = Literal["uniform", "halves", "root", "reciprocal", "normal"]
"""How a strength follows from a range: uniform in it; below and above 1 equally often; the root of
a uniform number (a deviation from a variance); its reciprocal; normal with (mean, deviation)."""

LONG_SLICE: Final = 1.5  # ratio of the sides from which a slice is turned less; [2]


@record
class Augmentation:
    """How a run draws and varies its patches."""

    preset: PresetName
    mirror: bool = True
    """False switches the preset's mirroring off, for tasks that tell left from right."""
    channel_dropout: Annotated[float, Ge(0), Lt(1)] | None = None
    """Chance of each channel to be missing, instead of the preset's; one always stays."""
    foreground_fraction: Annotated[float, Ge(0), Le(1)] = 0.33
    """Share of a batch that is forced onto foreground; 0.33 in [P][1][2]."""


@dataclass(frozen=True)
class Change:
    """One kind of change: how often it happens, and where its strength is drawn from."""

    probability: float
    """Per sample."""
    low: float
    high: float
    law: Law = "uniform"
    per_channel: float = 1.0
    """Chance of each channel of a changed sample."""


NEVER: Final = Change(0, 1, 1)


@dataclass(frozen=True)
class Cascade:
    """What happens to the first stage's labels before the second stage sees them."""

    operator_probability: float = 0.4  # per sample; [1][2]
    operator_radius: tuple[float, float] = (1, 8)  # voxels; [1][2]
    removal_probability: float = 0.2  # per sample; [1][2]
    removal_max_fraction: float = 0.15  # of the patch: larger components stay; [1][2]
    per_label: float = 0.5  # chance of each label of a changed sample; [2]


@dataclass(frozen=True)
class Preset:
    """One recipe. Lengths are in voxels, angles in degrees."""

    mirror: float = 0.0
    """Chance per axis."""
    rotation: float = 0.0
    """Chance per sample; then about every axis, uniform up to the degrees of the patch."""
    degrees: float = 30.0
    """Of a 3D patch."""
    degrees_in_plane: float = 180.0
    """Of a slice, and of a patch too flat to be turned out of its planes."""
    degrees_long_slice: float = 15.0
    """Of a slice with one side more than 1.5 times the other."""
    scaling: Change = NEVER
    """Above 1 the patch sees more, and things look smaller."""
    scaling_per_axis: float = 0.0
    """Chance of a scaled sample to draw every axis by itself."""
    elastic: Change = NEVER
    """Width of the deformation's smoothness, as a fraction of the patch."""
    noise: Change = NEVER
    """Deviation of Gaussian noise, the same for all channels."""
    blur: Change = NEVER
    """Deviation of a Gaussian kernel, per channel."""
    blur_per_axis: bool = False
    brightness: Change = NEVER
    """Factor."""
    contrast: Change = NEVER
    """Factor about the mean, cut off at the channel's own range."""
    low_resolution: Change = NEVER
    """Factor by which a channel is made coarser (nearest voxel) and finer again."""
    low_resolution_order: Literal[1, 3] = 3
    """Of the spline on the way back."""
    inverted_gamma: Change = NEVER
    """Exponent, applied to the negative image."""
    shift: Change = NEVER
    """Summand per channel."""
    gamma: Change = NEVER
    """Exponent, applied to the image within its range."""
    gamma_keeps_statistics: bool = True
    """Whether mean and deviation are restored after gamma, or else the range."""
    channel_dropout: float = 0.0
    outside_stays_zero: bool = True
    """Whether voxels outside the mask of a masked z-score are set to 0 again; [1][2]."""
    cascade: Cascade | None = Cascade()


_LIGHT: Final = Preset(  # the intensity changes of [1] without resampling, for small machines
    mirror=0.5,  # [1]
    noise=Change(0.1, 0, 0.1, "root"),  # probability [1], variance [P]
    brightness=Change(0.15, 0.75, 1.25),  # [1]
    gamma=Change(0.3, 0.7, 1.5),  # [1]
    outside_stays_zero=False,
    cascade=None,
)
_NNUNET: Final = Preset(  # [P] supplement D throughout
    mirror=0.5,
    rotation=0.2,
    scaling=Change(0.2, 0.7, 1.4),
    noise=Change(0.15, 0, 0.1, "root"),
    blur=Change(0.2, 0.5, 1.5, per_channel=0.5),
    brightness=Change(0.15, 0.7, 1.3),
    contrast=Change(0.15, 0.65, 1.5),
    low_resolution=Change(0.25, 1, 2, "reciprocal", per_channel=0.5),
    inverted_gamma=Change(0.15, 0.7, 1.5),
    gamma=Change(0.15, 0.7, 1.5),
    gamma_keeps_statistics=False,
)
_NNUNET_V2: Final = Preset(  # [2] throughout, as its code draws
    mirror=0.5,
    rotation=0.2,
    scaling=Change(0.2, 0.7, 1.4),
    noise=Change(0.1, 0, 0.1),  # called a variance there, used as a deviation
    blur=Change(0.2, 0.5, 1.0, per_channel=0.5),
    blur_per_axis=True,
    brightness=Change(0.15, 0.75, 1.25, "halves"),
    contrast=Change(0.15, 0.75, 1.25, "halves"),
    low_resolution=Change(0.25, 0.5, 1, per_channel=0.5),
    low_resolution_order=1,
    inverted_gamma=Change(0.1, 0.7, 1.5, "halves"),
    gamma=Change(0.3, 0.7, 1.5, "halves"),
)
_BRATS2020: Final = Preset(  # [B] "DA": [1]'s nnUNetTrainerV2_DA3 with data_augmentation_insaneDA2
    mirror=0.5,
    rotation=0.3,
    scaling=Change(0.3, 0.65, 1.6, "halves"),
    scaling_per_axis=0.3,
    elastic=Change(0.3, 0, 0.25),
    noise=Change(0.15, 0, 0.1),
    blur=Change(0.2, 0.5, 1.5, per_channel=0.5),
    brightness=Change(0.15, 0.7, 1.3),
    contrast=Change(0.15, 0.65, 1.5, "halves"),
    low_resolution=Change(0.25, 0.5, 1, per_channel=0.5),
    inverted_gamma=Change(0.15, 0.5, 1.6, "halves"),
    shift=Change(0.3, 0, 0.2, "normal"),
    gamma=Change(0.3, 0.5, 1.6, "halves"),
)
_IBSR18: Final = Preset(  # the report names flips, rotation and affine maps, but no numbers
    mirror=0.5,
    rotation=0.5,
    degrees=10,  # this and the next: the defaults of TorchIO's RandomAffine
    degrees_in_plane=10,
    degrees_long_slice=10,
    scaling=Change(0.5, 0.9, 1.1),
    scaling_per_axis=1.0,
    outside_stays_zero=False,
    cascade=None,
)
PRESETS: Final[Mapping[PresetName, Preset]] = {
    "none": Preset(outside_stays_zero=False, cascade=None),
    "mirror": Preset(mirror=0.5, outside_stays_zero=False, cascade=None),
    "light": _LIGHT,
    "nnunet": _NNUNET,
    "nnunet-v2": _NNUNET_V2,
    "brats2020": _BRATS2020,
    "brats2020-star": replace(_BRATS2020, shift=Change(0.3, 0, 0.2, "normal", per_channel=0.5)),
    "ibsr18": _IBSR18,
}


def preset_of(augmentation: Augmentation) -> Preset:
    """Return the numbers of a named preset, with what the configuration overrides."""
    preset = PRESETS[augmentation.preset]
    if not augmentation.mirror:
        preset = replace(preset, mirror=0.0)
    if augmentation.channel_dropout is not None:
        preset = replace(preset, channel_dropout=augmentation.channel_dropout)
    return preset


def degrees_of(preset: Preset, patch_size: tuple[int, ...], *, in_plane: bool) -> float:
    """Return how far a patch is turned at most, either way; source [2].

    Args:
        preset: whose degrees.
        patch_size: two axes for a slice, three for a volume.
        in_plane: whether a volume is too flat to be turned out of its planes.
    """
    if len(patch_size) == 2 and max(patch_size) / min(patch_size) > LONG_SLICE:
        return preset.degrees_long_slice
    return preset.degrees_in_plane if len(patch_size) == 2 or in_plane else preset.degrees
