"""NIfTI files in and out: every image becomes RAS+ (z, y, x), every result returns to its grid.

This is the only file that knows nibabel. A file is read to its end, so that its checksum is
verified: a copy that was cut short is always noticed. The header is read first, and a file that
cannot hold what its header claims is refused before memory is taken for it.
"""
# mypy: disable-error-code="no-untyped-call"
# nibabel ships types, but only for a part of its functions.

import gzip
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger as nibabel_logger
from nibabel.orientations import apply_orientation, io_orientation, ornt2axcodes
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.volumeutils import apply_read_scaling
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from client.dataset.inflate import GZIP_HEADER_BYTES, InflateError, head, inflated
from client.dataset.label_values import renamed, whole
from common.axes import Image, LabelMap, Shape, SpacingMm, times
from common.case import Case
from common.errors import DataError, Defect
from common.files import write_atomically

T = TypeVar("T")
GRID_TOLERANCE_MM = 0.01  # float32 and quaternion rounding stay below 1e-3 mm; no voxel is so small
COMPRESSION_LEVEL = 3  # label maps shrink alike at every level, noisy images badly at every level
FARTHEST_MM = 1e6  # a kilometre from the scanner's centre; larger numbers are a broken header
UNITS_IN_MM = (0, 2)  # NIfTI-1 standard, xyzt_units: unknown (taken as mm) and mm
UNITS = {1: "metre", 3: "micrometre"}
HEAD_BYTES = 544  # longest header: NIfTI-2's 540 bytes and four that announce extensions
FAULTS: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    MemoryError,
    OverflowError,
    ImageFileError,
    HeaderDataError,
    HeaderTypeError,
    WrapStructError,
)

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
    def axis_codes(self) -> str:
        """Where each axis of the file points to, for example LPS; of an oblique one, mostly."""
        return "".join(map(str, ornt2axcodes(self._orientation)))

    @property
    def _orientation(self) -> NDArray[np.float64]:
        """Return the RAS+ axis (column 0) and the direction (column 1) of every file axis."""
        return _orientation_of(np.asarray(self.affine, np.float64).tobytes())

    def to_ras(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Turn (x, y, z) or (x, y, z, channel) of the file into RAS+ ([channel,] z, y, x)."""
        return np.ascontiguousarray(self.ras_view(voxels))

    def ras_view(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Return what `to_ras` returns, as a view of the same memory."""
        view: NDArray[Any] = apply_orientation(voxels, self._orientation).T
        return view

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


@dataclass(frozen=True, eq=False)
class Header:
    """The header of a file, as nibabel repairs it and as it is stored."""

    checked: Any
    stored: Any


def grid_of(spacing_mm: SpacingMm, shape: Shape) -> Grid:
    """Return the RAS+ grid of a synthetic image; spacing and shape along (z, y, x)."""
    depth, height, width = shape
    return Grid(np.diag([*spacing_mm[::-1], 1.0]).astype(np.float64), (width, height, depth))


def same_grid(reference: Grid, other: Grid) -> str | None:
    """Return how `other` differs from `reference`, or None when both place voxels alike."""
    if other.shape != reference.shape:
        return f"shape {times(other.shape)} instead of {times(reference.shape)}"
    if (distance := moved_mm(reference, other)) > GRID_TOLERANCE_MM:
        allowed = f"(tolerance {GRID_TOLERANCE_MM:g} mm)"
        return f"an affine that moves voxels by up to {distance:.3g} mm {allowed}"
    return None


def moved_mm(reference: Grid, other: Grid) -> float:
    """Return how far apart two grids of one shape place the same voxel, at most."""
    corners = np.array([[*end, 1] for end in product(*((0, size - 1) for size in other.shape))])
    moves = corners @ (other.affine - reference.affine).T
    return float(np.linalg.norm(moves, axis=1).max())


def read_channels(path: Path) -> tuple[Image, Grid]:
    """Read a 3-D file as one channel, or a 4-D file whose last axis is the channel.

    Returns:
        The image, float32, axes (channel, z, y, x) in RAS+, and the grid of the file.

    Raises:
        DataError: when the file is missing, cut short, or not an image in space.
    """
    stored, grid = _open(path, dimensions=(3, 4))
    with np.errstate(all="ignore"):  # what float32 cannot hold becomes infinite and is reported
        voxels = np.array(grid.ras_view(stored), np.float32, order="C")  # the only copy
    return voxels.reshape(-1, *voxels.shape[-3:]), grid


def read_grid(path: Path) -> Grid:
    """Read only a file's first bytes: where its voxels lie, without looking at any.

    Raises:
        DataError: when the file is missing or its header is not that of an image in space.
    """
    with faults_named(path):
        _require_file(path)
        with path.open("rb") as file:
            header = _header(head(file.read(2 * HEAD_BYTES + GZIP_HEADER_BYTES), HEAD_BYTES))
    return _grid(path, header, dimensions=(3, 4))[1]


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
    with np.errstate(invalid="ignore"):  # not a number; found by the comparison
        labels: LabelMap = grid.ras_view(stored).astype(np.uint8, order="C")
    if np.array_equal(labels, grid.ras_view(stored)):  # nearly every file
        return renamed(labels, mapping or {}), grid
    found, n_broken = whole(stored)
    if n_broken:
        raise _unfit(path, "whole numbers as labels", f"other values in {n_broken} voxels")
    values = found.copy()
    for value, meant in (mapping or {}).items():
        values[found == value] = meant
    low, high = values.min(), values.max()
    if low < 0 or high > 255:
        raise _unfit(path, "labels between 0 and 255", f"values from {low:g} to {high:g}")
    return grid.to_ras(values.astype(np.uint8)), grid


def write_labels(path: Path, labels: LabelMap, grid: Grid) -> None:
    """Write RAS+ labels (z, y, x) as uint8 in the grid and orientation of the original file."""
    write_image(path, labels.astype(np.uint8), grid)


def write_image(path: Path, image: NDArray[Any], grid: Grid, *, slope: float | None = None) -> None:
    """Write one RAS+ image (z, y, x) in its dtype; whole or not at all, same input same bytes.

    Args:
        path: ends in ``.nii`` or ``.nii.gz``.
        image: axes (z, y, x).
        grid: of the file that it belongs to.
        slope: what readers multiply the stored numbers by, if anything.

    Raises:
        ConfigError: when the folder cannot be written or the disk is full.
    """
    content = encoded(image, grid, slope, window=None)
    if path.name.endswith(".gz"):
        content = gzip.compress(content, COMPRESSION_LEVEL, mtime=0)
    write_atomically(path, content)


def encoded(
    image: NDArray[Any], grid: Grid, slope: float | None, window: tuple[float, float] | None
) -> bytes:
    """Return an uncompressed file; as for `write_image`, and what viewers show black and white."""
    file = nib.Nifti1Image(grid.from_ras(image), grid.affine)
    file.set_sform(grid.affine, code="scanner")
    file.set_qform(grid.affine, code="scanner")  # for readers that look at the quaternion only
    file.header.set_xyzt_units(xyz="mm")
    if slope is not None:
        file.header.set_slope_inter(slope, 0)
    if window is not None:
        file.header["cal_min"], file.header["cal_max"] = window
    content: bytes = file.to_bytes()
    return content


def _open(path: Path, dimensions: tuple[int, ...]) -> tuple[NDArray[Any], Grid]:
    """Return the scaled voxels of a file, in its own axes and read-only, and its grid."""
    content, header = open_header(path)
    shape, grid = _grid(path, header, dimensions)
    with faults_named(path):
        voxels = _voxels(content, header.checked, shape)
    if voxels.dtype.kind not in "biuf":
        raise _unfit(path, "one real number per voxel", f"voxels of type {voxels.dtype}")
    return voxels, grid


def _grid(path: Path, header: Header, dimensions: tuple[int, ...]) -> tuple[tuple[int, ...], Grid]:
    """Return the shape that a header tells, and where it places the voxels."""
    with faults_named(path):
        shape = tuple(int(size) for size in header.checked.get_data_shape())
        affine = np.asarray(header.checked.get_best_affine(), np.float64)
        fault = _fault_in_space(affine, header.stored)
    if len(shape) not in dimensions or min(shape, default=0) < 1:
        names = " or ".join(f"{count}-D" for count in dimensions)
        raise _unfit(path, f"a {names} image", f"{len(shape)}-D of shape {times(shape)}")
    if fault:
        raise _unfit(path, "a header with positive voxel sizes in mm", fault)
    width, height, depth = shape[:3]
    return shape, Grid(affine, (width, height, depth))


def open_header(path: Path) -> tuple[bytes, Header]:
    """Return a file's content as it lies on the disk, and its header.

    Raises:
        DataError: when the file is missing or is no NIfTI file.
    """
    with faults_named(path):
        _require_file(path)
        content = path.read_bytes()
        return content, _header(head(content, HEAD_BYTES))


def _require_file(path: Path) -> None:
    """Refuse what could be read for ever, such as a pipe, and folders."""
    if path.exists() and not path.is_file():
        raise _unfit(path, "a NIfTI file", "something that is no file")


def _header(start: bytes) -> Header:
    """Return the header at the start of a file, repaired and as it is stored."""
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if kind.may_contain_header(start):
            stored = kind(start[: kind.sizeof_hdr], check=False)
            checked = stored.copy()
            checked.check_fix()
            return Header(checked, stored)
    raise ImageFileError("no NIfTI header")


@contextmanager
def faults_named(path: Path) -> Iterator[None]:
    """Turn what a damaged file makes of nibabel, isal and numpy into one clear defect."""
    try:
        with np.errstate(all="ignore"):
            yield
    except FileNotFoundError:
        raise _unfit(path, "a NIfTI file", "no such file") from None
    except (EOFError, InflateError):
        raise _unfit(path, "a whole NIfTI file", "one that is cut short or damaged") from None
    except FAULTS as error:
        raise _unfit(path, "a readable NIfTI file", f"a fault: {_one_line(error)}") from None


def _voxels(content: bytes, header: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the scaled voxels; EOFError when the file does not hold them all."""
    offset, dtype = int(header.get_data_offset()), header.get_data_dtype()
    if offset < header.sizeof_hdr:
        raise ValueError(f"voxels at byte {offset}, within the header")
    n_voxels = prod(shape)
    verified = inflated(content, offset + n_voxels * dtype.itemsize)
    stored = np.frombuffer(verified, dtype, n_voxels, offset).reshape(shape, order="F")
    slope, intercept = header.get_slope_inter()
    if dtype.kind not in "biuf":
        return stored
    scaled: NDArray[Any] = apply_read_scaling(
        stored, np.float64(1 if slope is None else slope), np.float64(intercept or 0)
    )
    return scaled


def fault_of_affine(affine: NDArray[np.float64]) -> str | None:
    """Return why an affine does not place voxels within a body, or None."""
    if not np.abs(affine).max() < FARTHEST_MM:  # also where it is no number
        return f"an affine that reaches {np.abs(affine).max():.3g} mm"
    if np.isnan(_orientation_of(affine.tobytes())).any() or not all(voxel_sizes(affine)):
        return "an affine that spans no volume"
    return None


@lru_cache(maxsize=4096)  # the affines of a folder are few, and this is half of reading a header
def _orientation_of(affine: bytes) -> NDArray[np.float64]:
    orientation: NDArray[np.float64] = io_orientation(np.frombuffer(affine).reshape(4, 4))
    orientation.flags.writeable = False
    return orientation


def _fault_in_space(affine: NDArray[np.float64], header: Any) -> str | None:
    """Return what keeps a header from placing voxels in millimetres, or None."""
    stored = [float(size) for size in header["pixdim"][1:4]]
    if not all(np.isfinite(size) and size > 0 for size in stored):
        return f"voxel sizes {times(f'{size:g}' for size in stored)}"
    if fault := fault_of_affine(affine):
        return fault
    unit = int(header["xyzt_units"]) % 8
    if unit not in UNITS_IN_MM:
        return f"unit code {unit} ({UNITS.get(unit, 'of no length')}) where 2 stands for mm"
    return None


def _along_zyx(values: Sequence[T], orientation: NDArray[np.float64]) -> tuple[T, T, T]:
    """Reorder what belongs to the axes of a file to (z, y, x) of RAS+."""
    x, y, z = (values[index] for index in np.argsort(orientation[:, 0]))
    return z, y, x


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _unfit(path: Path, expected: str, found: str, case: str = "") -> DataError:
    defect = Defect(case or path.name.split(".")[0], str(path), expected, found)
    return DataError("The data cannot be used:", [defect])
