"""Overlay pictures: what they show, and that they show nothing of the patient's identity."""

import io
import struct

import matplotlib.image
import numpy as np
from numpy.typing import NDArray

from client.scoring.pictures import overlay_png
from common.axes import LabelMap
from common.task import Task, load_task

SHAPE = (8, 30, 24)


def _task() -> Task:
    return load_task("brats-2021")


def _head() -> NDArray[np.float32]:
    image = np.zeros(SHAPE, np.float32)
    image[1:7, 4:26, 4:20] = 100.0 + np.linspace(0, 1, 22, dtype=np.float32)[None, :, None]
    return image


def _empty() -> LabelMap:
    return np.zeros(SHAPE, np.uint8)


def _panels(png: bytes) -> list[NDArray[np.float32]]:
    pixels = matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3]
    pixels = pixels[: int(0.85 * pixels.shape[0])]  # without the legend
    return np.array_split(pixels, 3, axis=1)


def _coloured(panel: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.ptp(panel, axis=-1) > 0.1


def _chunk_types(png: bytes) -> list[str]:
    types, position = [], 8  # after the signature
    while position < len(png):
        length, name = struct.unpack(">I4s", png[position : position + 8])
        types.append(name.decode())
        position += 12 + length
    return types


def test_the_file_holds_no_text() -> None:
    png = overlay_png(_head(), _empty(), _empty(), _task())
    assert set(_chunk_types(png)) == {"IHDR", "pHYs", "IDAT", "IEND"}


def test_same_input_gives_the_same_bytes() -> None:
    first = overlay_png(_head(), _empty(), _empty(), _task())
    assert overlay_png(_head(), _empty(), _empty(), _task()) == first


def test_only_the_reference_panel_is_coloured_when_nothing_was_predicted() -> None:
    reference = _empty()
    reference[3, 10:16, 8:14] = 2
    image, middle, right = _panels(overlay_png(_head(), reference, _empty(), _task()))
    assert not _coloured(image).any()
    assert _coloured(middle).any()
    assert not _coloured(right).any()


def test_the_slice_with_the_largest_reference_is_shown() -> None:
    reference, prediction = _empty(), _empty()
    reference[2, 10, 10] = 1
    reference[5, 8:20, 8:16] = 1
    prediction[2, 8:20, 8:16] = 4
    _, middle, right = _panels(overlay_png(_head(), reference, prediction, _task()))
    assert _coloured(middle).sum() > 1000
    assert not _coloured(right).any()


def test_an_empty_reference_leaves_the_choice_to_the_prediction() -> None:
    prediction = _empty()
    prediction[6, 10:16, 8:14] = 4
    _, middle, right = _panels(overlay_png(_head(), _empty(), prediction, _task()))
    assert not _coloured(middle).any()
    assert _coloured(right).any()


def test_the_patients_right_is_on_the_left_and_anterior_is_up() -> None:
    reference = _empty()
    reference[3, 22:25, 16:19] = 2  # high y: anterior; high x: right, in RAS+
    middle = _coloured(_panels(overlay_png(_head(), reference, _empty(), _task()))[1])
    rows, columns = np.nonzero(middle)
    assert rows.mean() < 0.4 * middle.shape[0]
    assert columns.mean() < 0.4 * middle.shape[1]


def test_every_label_has_its_own_colour() -> None:
    hues = set()
    for label in (1, 2, 4):
        reference = _empty()
        reference[3, 8:20, 8:16] = label
        middle = _panels(overlay_png(_head(), reference, _empty(), _task()))[1]
        hues.add(tuple(np.median(middle[_coloured(middle)], axis=0).round(1).tolist()))
    assert len(hues) == 3


def test_a_prediction_outside_the_head_is_not_cut_off() -> None:
    reference, prediction = _empty(), _empty()
    reference[3, 8:20, 8:16] = 1
    prediction[3, 0:2, 0:2] = 4
    right = _panels(overlay_png(_head(), reference, prediction, _task()))[2]
    assert _coloured(right).any()


def test_coarse_rows_are_drawn_taller() -> None:
    flat = matplotlib.image.imread(io.BytesIO(overlay_png(_head(), _empty(), _empty(), _task())))
    png = overlay_png(_head(), _empty(), _empty(), _task(), spacing_mm=(5.0, 2.0, 1.0))
    tall = matplotlib.image.imread(io.BytesIO(png))
    assert tall.shape[0] > 1.5 * flat.shape[0]


def test_an_image_of_zeros_is_drawn() -> None:
    image = np.zeros(SHAPE, np.float32)
    assert overlay_png(image, _empty(), _empty(), _task()).startswith(b"\x89PNG")
