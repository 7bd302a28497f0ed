"""NIfTI files in and out: every image becomes RAS+ (z, y, x), every result returns to its grid.

This is the only file that knows nibabel. A file is decompressed whole, so that the checksum at
its end is verified; a copy that was cut short is therefore always noticed.
"""
# mypy: disable-error-code="no-untyped-call"
# nibabel ships types, but only for a part of its functions.

import gzip
import logging
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger as nibabel_logger
from nibabel.orientations import apply_orientation, io_orientation
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from common.axes import Image, LabelMap, Shape, SpacingMm
from common.case import Case
from common.errors import DataError, Defect
from common.files import write_atomically

T = TypeVar("T")
GRID_TOLERANCE_MM = 0.01  # float32 and quaternion rounding stay below 1e-3 mm; no voxel is so small
INTEGER_TOLERANCE = 1e-4  # what a stored slope and intercept add to a whole number
COMPRESSION_LEVEL = 3  # label maps shrink alike at every level, noisy images badly at every level
UNITS_IN_MM = (0, 2)  # NIfTI-1 standard, xyzt_units: unknown (taken as mm) and mm

# nibabel repairs small header faults aloud; the faults that matter are checked in `_open`.
nibabel_logger.setLevel(logging.CRITICAL)


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a file lie; what is needed to write a result beside it."""

    affine: NDArray[np.float64]
    """Voxel index (file axes) to millimetres in RAS+ space, 4 x 4."""
    shape: tuple[int, int, int]
    """Number of voxels along the axes of the file, first axis fastest on disk."""

    @property
    def spacing_mm(self) -> SpacingMm:
        """Voxel size along (z, y, x) of the image brought into RAS+."""
        return _along_zyx(voxel_sizes(self.affine).tolist(), self._orientation)

    @property
    def shape_zyx(self) -> Shape:
        """Number of voxels along (z, y, x) of the image brought into RAS+."""
        return _along_zyx(self.shape, self._orientation)

    @property
    def _orientation(self) -> NDArray[np.float64]:
        """Return the RAS+ axis (column 0) and the direction (column 1) of every file axis."""
        orientation: NDArray[np.float64] = io_orientation(self.affine)
        return orientation

    def to_ras(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Turn (x, y, z) or (x, y, z, channel) of the file into RAS+ ([channel,] z, y, x)."""
        return np.ascontiguousarray(apply_orientation(voxels, self._orientation).T)

    def from_ras(self, image: NDArray[Any]) -> NDArray[Any]:
        """Turn a RAS+ (z, y, x) array into the (x, y, z) of the file; undoes `to_ras`.

        Raises:
            ValueError: when the array does not have the grid's shape.
        """
        if image.shape != self.shape_zyx:
            raise ValueError(f"expected shape {self.shape_zyx} (z, y, x), found {image.shape}")
        axes, flips = self._orientation[:, 0].astype(int), self._orientation[:, 1]
        flipped = [slice(None, None, int(flip)) for flip in flips]
        return image.T.transpose(axes)[tuple(flipped)]


@dataclass(frozen=True, eq=False)
class Scan:
    """All channels of a case in RAS+."""

    image: Image
    spacing_mm: SpacingMm
    grid: Grid


def grid_of(spacing_mm: SpacingMm, shape: Shape) -> Grid:
    """Return the RAS+ grid of a synthetic image; spacing and shape along (z, y, x)."""
    depth, height, width = shape
    return Grid(np.diag([*spacing_mm[::-1], 1.0]).astype(np.float64), (width, height, depth))


def same_grid(reference: Grid, other: Grid) -> str | None:
    """Return how `other` differs from `reference`, or None when both place voxels alike."""
    if other.shape != reference.shape:
        return f"shape {_times(other.shape)} instead of {_times(reference.shape)}"
    corners = np.array([[*end, 1] for end in product(*((0, size - 1) for size in other.shape))])
    moved_mm = np.linalg.norm(corners @ (other.affine - reference.affine).T, axis=1).max()
    if moved_mm > GRID_TOLERANCE_MM:
        return f"an affine that moves voxels by up to {moved_mm:.3g} mm"
    return None


def read_channels(path: Path) -> tuple[Image, Grid]:
    """Read a 3-D file as one channel, or a 4-D file whose last axis is the channel.

    Returns:
        The image, float32, axes (channel, z, y, x) in RAS+, and the grid of the file.

    Raises:
        DataError: when the file is missing, cut short, or not an image in space.
    """
    stored, grid = _open(path, dimensions=(3, 4))
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is reported
        voxels = grid.to_ras(stored.astype(np.float32))
    return voxels.reshape(-1, *voxels.shape[-3:]), grid


def read_scan(case: Case, channels: int) -> Scan:
    """Read all channels of a case.

    Args:
        case: one 3-D file per channel, or one 4-D file with the channels last.
        channels: how many channels the task has.

    Raises:
        DataError: for an unreadable file, a wrong number of channels, or grids that differ.
    """
    parts = [read_channels(path) for path in case.images]
    grid = parts[0][1]
    for path, (_, other) in zip(case.images, parts, strict=True):
        if difference := same_grid(grid, other):
            raise _unfit(path, f"the grid of {case.images[0].name}", difference, case.name)
    image = np.concatenate([part for part, _ in parts]) if len(parts) > 1 else parts[0][0]
    if len(image) != channels:
        raise _unfit(case.images[0], f"{channels} channels", f"{len(image)}", case.name)
    return Scan(image, grid.spacing_mm, grid)


def read_labels(path: Path, mapping: Mapping[int, int] | None) -> tuple[LabelMap, Grid]:
    """Read a label map, axes (z, y, x) in RAS+.

    Args:
        path: a 3-D file of whole numbers, stored as integers or as floating point.
        mapping: values in the file that stand for another label; the others stay.

    Raises:
        DataError: for an unreadable file and for values that are not whole or not in 0-255.
    """
    stored, grid = _open(path, dimensions=(3,))
    values = _whole(path, stored)
    labels = values.copy()
    for found, meant in (mapping or {}).items():
        labels[values == found] = meant
    low, high = labels.min(), labels.max()
    if low < 0 or high > 255:
        raise _unfit(path, "labels between 0 and 255", f"values from {low:g} to {high:g}")
    return grid.to_ras(labels.astype(np.uint8)), grid


def write_labels(path: Path, labels: LabelMap, grid: Grid) -> None:
    """Write RAS+ labels (z, y, x) as uint8 in the grid and orientation of the original file."""
    write_image(path, labels.astype(np.uint8), grid)


def write_image(path: Path, image: NDArray[Any], grid: Grid) -> None:
    """Write one RAS+ image (z, y, x) in its dtype; whole or not at all, same input same bytes.

    Raises:
        ConfigError: when the folder cannot be written or the disk is full.
    """
    file = nib.Nifti1Image(grid.from_ras(image), grid.affine)
    file.set_sform(grid.affine, code="scanner")
    file.set_qform(grid.affine, code="scanner")  # for readers that look at the quaternion only
    file.header.set_xyzt_units(xyz="mm")
    content = file.to_bytes()
    if path.name.endswith(".gz"):
        content = gzip.compress(content, COMPRESSION_LEVEL, mtime=0)
    write_atomically(path, content)


def _open(path: Path, dimensions: tuple[int, ...]) -> tuple[NDArray[Any], Grid]:
    """Return the scaled voxels of a file, in its own axes, and its grid."""
    try:
        voxels, affine, header = _parse(_decompressed(path))
    except FileNotFoundError:
        raise _unfit(path, "a NIfTI file", "no such file") from None
    except (EOFError, zlib.error):
        raise _unfit(path, "a whole NIfTI file", "one that is cut short or damaged") from None
    except (OSError, ValueError, OverflowError, ImageFileError, HeaderDataError) as error:
        raise _unfit(path, "a readable NIfTI file", f"a fault: {_one_line(error)}") from None
    if voxels.ndim not in dimensions or not voxels.size:
        names = " or ".join(f"{count}-D" for count in dimensions)
        raise _unfit(path, f"a {names} image", f"{voxels.ndim}-D of shape {_times(voxels.shape)}")
    if voxels.dtype.kind not in "biuf":
        raise _unfit(path, "one real number per voxel", f"voxels of type {voxels.dtype}")
    if fault := _fault_in_space(affine, header):
        raise _unfit(path, "a header with positive voxel sizes in mm", fault)
    width, height, depth = voxels.shape[:3]
    return voxels, Grid(affine, (width, height, depth))


def _parse(content: bytes) -> tuple[NDArray[Any], NDArray[np.float64], Any]:
    """Return voxels, affine and the header as stored, before nibabel repairs it."""
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if kind.header_class.may_contain_header(content):
            header = kind.header_class.from_fileobj(BytesIO(content), check=False)
            image = kind.from_bytes(content)
            end = int(header["vox_offset"]) + image.get_data_dtype().itemsize * prod(image.shape)
            if len(content) < end:
                raise EOFError
            return np.asanyarray(image.dataobj), np.asarray(image.affine, np.float64), header
    raise ImageFileError("no NIfTI header")


def _decompressed(path: Path) -> bytes:
    """Return the whole content; gzip's checksum is verified, names may lie about compression."""
    content = path.read_bytes()
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def _fault_in_space(affine: NDArray[np.float64], header: Any) -> str | None:
    """Return what keeps a header from placing voxels in millimetres, or None."""
    stored = [float(size) for size in header["pixdim"][1:4]]
    if not all(np.isfinite(size) and size > 0 for size in stored):
        return f"voxel sizes {_times(f'{size:g}' for size in stored)}"
    if not np.isfinite(affine).all() or np.isnan(io_orientation(affine)).any():
        return "an affine that spans no volume"
    if int(header["xyzt_units"]) % 8 not in UNITS_IN_MM:
        return f"unit code {int(header['xyzt_units']) % 8} where 2 stands for mm"
    return None


def _whole(path: Path, stored: NDArray[Any]) -> NDArray[Any]:
    """Return the whole numbers that the stored values stand for."""
    if stored.dtype.kind != "f":
        return stored.astype(np.int64)
    values: NDArray[Any] = np.rint(stored)
    with np.errstate(invalid="ignore"):  # infinity minus infinity; counted as broken
        broken = np.count_nonzero(~(np.abs(stored - values) <= INTEGER_TOLERANCE))
    if broken:
        raise _unfit(path, "whole numbers as labels", f"other values in {broken} voxels")
    return values


def _along_zyx(values: Sequence[T], orientation: NDArray[np.float64]) -> tuple[T, T, T]:
    """Reorder what belongs to the axes of a file to (z, y, x) of RAS+."""
    x, y, z = (values[index] for index in np.argsort(orientation[:, 0]))
    return z, y, x


def _times(sizes: Iterable[object]) -> str:
    return "x".join(map(str, sizes))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _unfit(path: Path, expected: str, found: str, case: str = "") -> DataError:
    defect = Defect(case or path.name.split(".")[0], str(path), expected, found)
    return DataError("The data cannot be used:", [defect])
