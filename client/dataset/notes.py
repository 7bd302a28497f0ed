"""What a NIfTI header says beside the voxels: free text, extensions, a second orientation.

Stays at the site: such text may name the patient.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from client.dataset.inflate import head
from client.dataset.nifti import Grid, Header, fault_of_affine, faults_named, moved_mm, open_header

TEXT_FIELDS = ("descrip", "aux_file", "db_name", "intent_name")
EXTENSION_BYTES = 2**20  # of a header's extensions, read at most
SAME_SIZE_FRACTION = 1e-2  # by which two statements of one voxel size may differ
DOUBTFUL_SHIFT_MM = 1.0  # quaternions are rounded far less


@dataclass(frozen=True, eq=False)
class Notes:
    """What a header tells beside the voxels."""

    texts: dict[str, str]
    """Fields of free text that are not empty."""
    extensions: tuple[int, ...]
    """Kinds of the header's extensions, by the number that NIfTI gives them."""
    qform: Grid | None
    sform: Grid | None
    """The grid by each of the two statements that a header may make; the sform is used."""
    one_space: bool
    """Whether both speak of the same space: scanner, atlas, ..."""


def read_notes(path: Path) -> Notes:
    """Read what the header of a 3-D or 4-D file says beside the voxels.

    Raises:
        DataError: when the file is missing or is no NIfTI file.
    """
    content, header = open_header(path)
    checked = header.checked
    with faults_named(path):
        width, height, depth = (int(size) for size in checked.get_data_shape()[:3])
        qform, sform = (
            None
            if affine is None or fault_of_affine(affine)
            else Grid(affine, (width, height, depth))
            for affine in (checked.get_qform(coded=True)[0], checked.get_sform(coded=True)[0])
        )
        one_space = int(checked["qform_code"]) == int(checked["sform_code"])
        extensions = tuple(_extensions(content, header))
        return Notes(_texts(header.stored), extensions, qform, sform, one_space)


def doubt_of(notes: Notes) -> str | None:
    """Return why the orientation of a file may be wrong, or None."""
    qform, sform = notes.qform, notes.sform
    if qform is None and sform is None:
        return "a header that does not say how the image lies (qform and sform code 0)"
    if qform is None or sform is None:
        return None
    if qform.axis_codes != sform.axis_codes:
        return f"a qform that points to {qform.axis_codes}, an sform to {sform.axis_codes}"
    if not np.allclose(qform.spacing_mm, sform.spacing_mm, rtol=SAME_SIZE_FRACTION):
        sizes = [" x ".join(f"{s:.3g}" for s in grid.spacing_mm) for grid in (qform, sform)]
        return f"voxels of {sizes[0]} mm in the qform, of {sizes[1]} mm in the sform (z, y, x)"
    # Where both name different spaces, scanner and atlas, they lie apart on purpose.
    if notes.one_space and (distance := moved_mm(qform, sform)) > DOUBTFUL_SHIFT_MM:
        return f"a qform and an sform that lie up to {distance:.3g} mm apart"
    return None


def _texts(stored: Any) -> dict[str, str]:
    """Return the texts up to their first zero byte; NIfTI-2 has no db_name."""
    fields = [field for field in TEXT_FIELDS if field in stored.keys()]  # noqa: SIM118 - no dict
    texts = {field: stored[field].item().split(b"\0")[0] for field in fields}
    plain = {field: _decoded(text).strip() for field, text in texts.items()}
    return {field: text for field, text in plain.items() if text}


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _extensions(content: bytes, header: Header) -> Iterator[int]:
    """Yield the code of every extension between header and voxels."""
    place = int(header.stored.sizeof_hdr)
    end = min(int(header.checked.get_data_offset()), EXTENSION_BYTES)
    start = head(content, max(place, end))
    number = np.dtype(np.int32).newbyteorder(header.stored.endianness)
    announced = any(start[place : place + 1])
    place += 4
    while announced and place + 8 <= len(start):
        size, code = np.frombuffer(start, number, 2, place).tolist()
        yield code
        place += max(size, 8)  # a damaged size must not go round in a circle
