"""The way from the network's grid to labels: slab by slab, on disk or in memory, all the same."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.prediction.segment import (
    Wanted,
    decided,
    mean_of_models,
    on_network_grid,
    with_previous,
)
from client.prediction.uncertainty import normalised_entropy
from client.prediction.way_back import network_shape_zyx, restored_slabs
from client.prediction.workspace import Workspace
from client.preparation.preprocess import Geometry, restore
from common.errors import DiskError
from common.planning.preparation import Resampling
from common.task import load_task

BRATS = load_task("brats-2021")
IN_MEMORY, ON_DISK = 10**9, 0
PUBLISHED = Resampling()


def geometry(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    network_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    transpose: tuple[int, int, int] = (0, 1, 2),
    resampling: Resampling = PUBLISHED,
) -> Geometry:
    """Return the geometry of an image without a border to crop."""
    z, y, x = shape
    return Geometry(
        full_shape=shape,
        box=((0, z), (0, y), (0, x)),
        spacing_mm=spacing_mm,
        transpose=transpose,
        network_spacing_mm=network_mm,
        resampling=resampling,
    )


def drawn(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


def cut(volume: np.ndarray, *, depth: int):
    return (volume[:, first : first + depth] for first in range(0, volume.shape[1], depth))


# The way back


@given(
    st.tuples(*[st.integers(1, 12)] * 3),
    st.tuples(*[st.sampled_from([0.7, 1.0, 1.3, 5.0])] * 3),
    st.tuples(*[st.sampled_from([0.6, 1.0, 1.9, 4.0])] * 3),
    st.sampled_from([(0, 1, 2), (2, 0, 1), (1, 0, 2)]),
    st.integers(1, 5),
    st.builds(
        Resampling,
        probability_order=st.sampled_from([0, 1]),
        across_thick_slices_order=st.sampled_from([0, 1]),
    ),
)
def test_slabs_are_restored_to_what_whole_arrays_are(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    network_mm: tuple[float, float, float],
    transpose: tuple[int, int, int],
    depth: int,
    resampling: Resampling,
) -> None:
    case = geometry(shape, spacing_mm, network_mm, transpose, resampling)
    scores = drawn(2, *network_shape_zyx(case))
    slabs = list(restored_slabs(cut(scores, depth=depth), case))
    expected = restore(scores.transpose(0, *(1 + axis for axis in transpose)), case)
    found = np.concatenate(slabs, axis=1)
    np.testing.assert_allclose(found, expected, atol=2e-5)  # torch's positions are float32


def test_slabs_of_the_images_own_grid_pass_unchanged() -> None:
    scores = drawn(3, 6, 5, 4)
    for slab, expected in zip(
        restored_slabs(cut(scores, depth=4), geometry((6, 5, 4))),
        (slice(4), slice(4, 6)),
        strict=True,
    ):
        assert np.shares_memory(slab, scores)
        assert np.array_equal(slab, scores[:, expected])


# Decisions


def test_labels_and_maps_lie_in_the_full_image_and_are_0_outside_the_crop() -> None:
    case = Geometry(
        full_shape=(3, 2, 4),
        box=((1, 3), (0, 2), (2, 4)),
        spacing_mm=(1.0, 1.0, 1.0),
        transpose=(0, 1, 2),
        network_spacing_mm=(1.0, 1.0, 1.0),
    )
    certain = np.zeros((3, 2, 2, 2), np.float32)
    certain[0] = 1  # whole tumour everywhere, nothing inside
    certain[1, 0, 0, 0] = 0.5  # one voxel half a core: not above one half
    wanted = Wanted(uncertainty=True, probabilities=True)
    found = decided(cut(certain, depth=1), case, BRATS, "regions", wanted, Workspace())
    assert found.labels.tolist() == [
        [[0, 0, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 2, 2], [0, 0, 2, 2]],
        [[0, 0, 2, 2], [0, 0, 2, 2]],
    ]
    assert found.uncertainty is not None
    assert found.uncertainty[1, 0, 2] == pytest.approx(1 / 3)  # one of three regions is a toss-up
    assert np.count_nonzero(found.uncertainty) == 1
    assert list(found.probabilities) == ["WT", "TC", "ET"]
    assert found.probabilities["WT"].sum() == 8 * 255
    assert found.probabilities["TC"].max() == 128
    assert found.probabilities["ET"].max() == 0


def test_maps_of_labels_leave_the_background_out() -> None:
    case, wanted = geometry((1, 1, 2)), Wanted(probabilities=True)
    scores = np.array([[0.2, 1], [0.6, 0], [0, 0], [0.2, 0]], np.float32).reshape(4, 1, 1, 2)
    found = decided(iter([scores]), case, BRATS, "labels", wanted, Workspace())
    assert found.labels.tolist() == [[[1, 0]]]
    assert found.uncertainty is None
    maps = {name: values.tolist() for name, values in found.probabilities.items()}
    assert list(maps.values()) == [[[[153, 0]]], [[[0, 0]]], [[[51, 0]]]]
    assert [BRATS.labels[name] for name in maps] == [1, 2, 4]


def test_the_entropy_is_0_for_the_certain_and_1_for_the_undecided() -> None:
    labels = np.array([[1, 0.25, 0.5], [0, 0.25, 0.5], [0, 0.25, 0], [0, 0.25, 0]], np.float32)
    found = normalised_entropy(labels.reshape(4, 1, 1, 3), "labels")
    assert found.tolist() == [[[0, 1, pytest.approx(0.5)]]]
    regions = np.array([[1, 0.5, 0.5], [0, 0.5, 1]], np.float32).reshape(2, 1, 1, 3)
    assert normalised_entropy(regions, "regions").tolist() == [[[0, 1, pytest.approx(0.5)]]]


# Ensembles and memory


def test_the_mean_of_models_is_that_of_their_probabilities_however_they_are_cut() -> None:
    first, second = drawn(2, 7, 3, 4), drawn(2, 7, 3, 4, seed=2)
    members = [partial(cut, first, depth=3), partial(cut, second, depth=5)]
    found = np.concatenate(list(mean_of_models(members, (7, 3, 4), Workspace())), axis=1)
    np.testing.assert_allclose(found, (first + second) / 2, atol=1e-7)


def test_a_mean_on_disk_equals_the_one_in_memory_bit_for_bit(tmp_path: Path) -> None:
    volumes = [drawn(2, 7, 30, 40, seed=seed) for seed in range(3)]
    members = [partial(cut, volume, depth=3) for volume in volumes]
    memory, disk = (
        list(mean_of_models(members, (7, 30, 40), Workspace(budget, tmp_path)))
        for budget in (IN_MEMORY, ON_DISK)
    )
    assert all(np.array_equal(a, b) for a, b in zip(memory, disk, strict=True))
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_arrays_on_disk_keep_their_values_when_their_pages_are_given_back() -> None:
    space = Workspace(ON_DISK)
    array = space.zeros((50, 1000), np.float32)
    assert not array.any()
    array[7] = 3
    space.settle()
    assert array.sum() == 3000


def test_the_budget_is_spent_by_arrays_that_are_used() -> None:
    space = Workspace(1000)
    for _ in range(3):  # one after the other
        first = space.zeros((900,), np.uint8)
        del first
    kept = [space.zeros((900,), np.uint8)]
    assert len(space._maps) == 0
    kept.append(space.zeros((900,), np.uint8))
    assert len(space._maps) == 1


def test_a_disk_without_room_is_a_clear_error_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="GB of disk for intermediate results"):
        Workspace(ON_DISK, tmp_path).zeros((2**55,), np.uint8)


PEAK = """
import resource, sys
import numpy as np, torch
from torch import nn
from client.device import Device
from client.prediction.predict import Window, predicted_slabs
from client.preparation.preprocess import Geometry
from client.prediction.segment import Wanted, decided, mean_of_models
from client.prediction.way_back import restored_slabs
from client.prediction.workspace import Workspace
from common.task import load_task

torch.set_num_threads(1)
task, budget_bytes, wanted = load_task("brats-2021"), int(sys.argv[1]), Wanted(probabilities=True)
shape, full = (192, 128, 128), (384, 256, 256)  # 25 million voxels: 403 MB for four outputs
case = Geometry(full_shape=full, box=tuple((0, n) for n in full), spacing_mm=(1.0,) * 3,
    transpose=(0, 1, 2), network_spacing_mm=(2.0,) * 3)

class Four(nn.Module):
    def forward(self, image):
        return [torch.cat([image, 2 * image, -image, image - 1], dim=1)]

def member():
    window = Window((32, 32, 32), "labels", False)
    device = Device(torch.device("cpu"), torch.float32)
    scores = predicted_slabs(Four(), image, window, device, allocate=space.zeros)
    return restored_slabs(scores, case)

image = np.random.default_rng(1).standard_normal((1, *shape), np.float32)
def peak():
    with open("/proc/self/status") as lines:
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
for _ in Four()(torch.zeros(1, 1, 32, 32, 32)): pass
small = Workspace(budget_bytes)
before = peak()
space = small
found = decided(mean_of_models([member, member], full, space), case, task, "labels", wanted, space)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's peak memory")
def test_an_ensemble_on_a_large_image_stays_within_its_budget(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(50 * 10**6)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    peak_mb = int(done.stdout) / 1e6  # with a budget for everything it is 570
    # the labels (25), the budget (50), and the slabs in hand with what is made of them
    assert 50 < peak_mb < 200


# Cascades


def test_previous_labels_become_one_channel_each() -> None:
    image = drawn(2, 1, 1, 4)
    labels = np.array([0, 1, 2, 4], np.uint8).reshape(1, 1, 4)
    found = with_previous(image, labels, BRATS)
    assert found.dtype == np.float32
    assert np.array_equal(found[:2], image)
    assert found[2:, 0, 0].tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_previous_labels_are_brought_to_the_network_as_images_are() -> None:
    case = Geometry(
        full_shape=(4, 3, 2),
        box=((1, 3), (0, 3), (0, 2)),
        spacing_mm=(1.0, 1.0, 2.0),
        transpose=(2, 0, 1),
        network_spacing_mm=(1.0, 1.0, 1.0),
    )
    labels = np.zeros((4, 3, 2), np.uint8)
    labels[1:3, :, 1] = 4  # the second plane across x, twice as thick as the network's
    found = on_network_grid(labels, case)
    assert found.shape == (4, 2, 3)
    assert found[:, 0, 0].tolist() == [0, 0, 4, 4]
    assert (found == found[:, :1, :1]).all()
