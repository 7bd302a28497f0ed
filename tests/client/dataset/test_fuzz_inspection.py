"""Damaged, nonsensical and hostile NIfTI files: `inspect_folder` answers, and takes no memory.

Every example is one case of 5 x 6 x 7 voxels in the Decathlon layout, whose image or label was
changed. What must come out is an `Inspection` that can be printed, as lines and as strict JSON.
"""

import gzip
import json
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from client.dataset.inspection import Inspection, inspect_folder
from common.codec import encode
from common.task import load_task

HIPPOCAMPUS = load_task("hippocampus")
SHAPE = (5, 6, 7)
HEADER = nib.Nifti1Header.template_dtype
HEADER_2 = nib.Nifti2Header.template_dtype
MAX_BYTES = 32 * 2**20  # the file itself is smaller than 2 KiB
TARGETS = st.sampled_from(["image", "label"])
PACKED = st.booleans()


def valid(kind: type = nib.Nifti1Image, dtype: type = np.float32) -> bytes:
    voxels = np.random.default_rng(0).integers(0, 3, SHAPE).astype(dtype)
    return kind(voxels, np.diag([1.0, 2.0, 3.0, 1.0])).to_bytes()


IMAGE, IMAGE_2 = valid(), valid(nib.Nifti2Image)
LABEL = valid(dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def inspected(folder: Path, content: bytes, target: str) -> Inspection:
    """Inspect one case of which one file has this content, and print what was found."""
    for part, name, sound in (("image", "imagesTr", IMAGE), ("label", "labelsTr", LABEL)):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "a.nii.gz").write_bytes(content if part == target else sound)
    found = inspect_folder(folder, HIPPOCAMPUS, workers=1, pictures={})
    json.dumps(encode(found), allow_nan=False)
    assert all("\n" not in str(one) for one in (*found.defects, *found.warnings))
    return found


def packed(content: bytes, wanted: bool) -> bytes:
    return gzip.compress(content, 1) if wanted else content


def replaced(content: bytes, changes: dict[int, int]) -> bytes:
    changed = bytearray(content)
    for place, value in changes.items():
        changed[place % len(changed)] = value
    return bytes(changed)


@settings(max_examples=100)
@given(st.dictionaries(st.integers(0, 10_000), st.integers(0, 255), min_size=1), TARGETS, PACKED)
def test_bytes_that_are_changed_anywhere(folder, changes, target, compressed):
    whole = IMAGE if target == "image" else LABEL
    inspected(folder, packed(replaced(whole, changes), compressed), target)


@settings(max_examples=100)
@given(st.dictionaries(st.integers(0, 351), st.integers(0, 255), min_size=1), TARGETS)
def test_bytes_that_are_changed_in_the_header(folder, changes, target):
    inspected(folder, replaced(IMAGE if target == "image" else LABEL, changes), target)


@settings(max_examples=100)
@given(st.sampled_from([HEADER, HEADER_2]), st.data(), TARGETS, PACKED)
def test_fields_of_the_header_that_hold_anything(folder, header, data, target, compressed):
    content = bytearray(IMAGE if header is HEADER else IMAGE_2)
    names = data.draw(st.sets(st.sampled_from(header.names), min_size=1, max_size=4))
    for name in sorted(names):
        kind, place = header.fields[name][:2]
        content[place : place + kind.itemsize] = data.draw(
            st.binary(min_size=kind.itemsize, max_size=kind.itemsize)
        )
    inspected(folder, packed(bytes(content), compressed), target)


@settings(max_examples=60)
@given(st.integers(1, 10_000), TARGETS, PACKED)
def test_files_that_are_cut_short(folder, lost, target, compressed):
    whole = packed(IMAGE, compressed)
    found = inspected(folder, whole[: -(1 + lost % len(whole))], target)
    assert found.defects


@settings(max_examples=100)
@given(st.dictionaries(st.integers(0, 10_000), st.integers(0, 255), min_size=1), TARGETS)
def test_gzip_streams_that_are_damaged(folder, changes, target):
    inspected(folder, replaced(gzip.compress(IMAGE), changes), target)


@settings(max_examples=60)
@given(st.binary(max_size=600), TARGETS, PACKED)
@example(b"\x1f\x8b", "image", False)
@example(b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\x03\xff\xff", "label", False)
def test_files_that_are_something_else(folder, content, target, compressed):
    assert inspected(folder, packed(content, compressed), target).defects


@settings(max_examples=100)
@given(
    st.sampled_from([nib.Nifti1Header, nib.Nifti2Header]),
    st.lists(st.integers(1, 32767), min_size=3, max_size=7),
    st.sampled_from([2, 4, 16, 64, 256, 1792]),  # from one byte to sixteen per voxel
    TARGETS,
    PACKED,
)
@example(nib.Nifti1Header, [32767] * 3, 64, "image", True)  # 256 TiB
@example(nib.Nifti1Header, [32767] * 7, 64, "label", False)
def test_sizes_that_no_memory_holds_are_refused_before_it_is_taken(
    folder, kind, sizes, datatype, target, compressed
):
    whole = IMAGE if kind is nib.Nifti1Header else IMAGE_2
    header = kind(whole[: kind.sizeof_hdr])
    header["dim"][: len(sizes) + 1] = [len(sizes), *sizes]
    header["datatype"] = datatype
    content = packed(header.binaryblock + whole[kind.sizeof_hdr :], compressed)
    tracemalloc.start()
    try:
        inspected(folder, content, target)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < MAX_BYTES


def test_a_file_that_inflates_a_thousandfold_is_read_in_bounded_memory(folder):
    content = gzip.compress(IMAGE + bytes(100 * 2**20), 9)
    tracemalloc.start()
    try:
        found = inspected(folder, content, "image")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.defects == ()
    assert peak_bytes < MAX_BYTES
