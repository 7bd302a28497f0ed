"""The stages of the trained network, and how far a unit of each one sees."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from common.planning.estimate import stage_sizes
from common.planning.plan import AnyConfiguration
from server.reporting.methods.network import PLANNED
from server.reporting.methods.told import number_text
from server.reporting.report_data import ReportData
from server.reporting.sources import sourced

CONVOLUTIONS = 2  # per encoder stage of the plain U-Net; nnU-Net (arXiv 1904.08128v2)
Axes = tuple[int, ...]


@dataclass(frozen=True)
class StageRow:
    """One stage of a plan's network; all texts carry their source."""

    number: str
    size: str
    """Voxels of a patch along each axis."""
    spacing: str
    """In mm."""
    stride: str
    """From the stage above."""
    kernel: str
    features: str
    field: str
    """Voxels of the patch that a unit at the end of the encoder's stage sees; empty if unknown."""


def stage_rows(data: ReportData) -> dict[str, tuple[StageRow, ...]]:
    """Return the stages by trained configuration; none where the plan does not decide them."""
    if data.config is None or data.config.model.architecture not in PLANNED:
        return {}
    plain = data.config.model.architecture == "unet"
    return {
        name: tuple(_rows(name, one, with_field=plain)) for name, one in data.configurations.items()
    }


def fields_of_view(configuration: AnyConfiguration) -> list[Axes]:
    """Return the receptive field in voxels at the end of every encoder stage, finest first.

    Each stage has two convolutions, the first one strided from the second stage on. A convolution
    of kernel k on units that lie j voxels apart adds (k - 1) j.
    """
    n_axes = len(configuration.patch_size)
    field, apart = [1] * n_axes, [1] * n_axes
    found = []
    strides: Iterable[Axes] = ((1,) * n_axes, *configuration.strides)
    for kernel, stride in zip(configuration.kernel_sizes, strides, strict=True):
        for axis in range(n_axes):
            before, after = apart[axis], apart[axis] * stride[axis]
            field[axis] += (kernel[axis] - 1) * (before + (CONVOLUTIONS - 1) * after)
            apart[axis] = after
        found.append(tuple(field))
    return found


def _rows(name: str, one: AnyConfiguration, *, with_field: bool) -> Iterable[StageRow]:
    path = f"configurations.{name}"
    strides: list[Axes] = [(1,) * len(one.patch_size), *one.strides]
    apart = list(accumulate(strides, lambda a, b: tuple(x * y for x, y in zip(a, b, strict=True))))
    fields = fields_of_view(one)
    for level, size in enumerate(stage_sizes(one)):
        spacing = tuple(mm * n for mm, n in zip(one.spacing_mm, apart[level], strict=True))

        def of(value: object, how: str, level: int = level) -> str:
            return sourced(number_text(value), f"plan.json: {how} of {path}.{level}")

        yield StageRow(
            number=sourced(level + 1, f"plan.json: stage number of {path}.{level}"),
            size=of(size, "stage size"),
            spacing=of(spacing, "stage spacing"),
            stride=of(strides[level], "stage stride"),
            kernel=sourced(
                number_text(one.kernel_sizes[level]), f"plan.json: {path}.kernel_sizes.{level}"
            ),
            features=sourced(
                one.features_per_stage[level], f"plan.json: {path}.features_per_stage.{level}"
            ),
            field=of(fields[level], "stage field") if with_field else "",
        )
