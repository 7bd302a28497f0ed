"""Sliding windows cover an image, agree with the network, and lose nothing at the borders."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from client.device import Device
from client.prediction.predict import Window, decide, predict, predicted_slabs
from client.prediction.single_norm import single_sample_norms
from client.prediction.tiles import gaussian_weight, layers, pad_to, tiles
from common.config import Output
from common.errors import ConfigError
from common.networks.layers import InstanceNorm
from common.task import load_task

CPU = Device(torch.device("cpu"), torch.float32)
SIZES = st.integers(1, 40)


class Constant(nn.Module):
    """Every logit is 0, whatever the image."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.n_outputs = n_outputs

    def forward(self, image: Tensor) -> list[Tensor]:
        return [torch.zeros(image.shape[0], self.n_outputs, *image.shape[2:])]


class Same(nn.Module):
    """The logit is the intensity: equivariant under every mirroring and shift."""

    def forward(self, image: Tensor) -> list[Tensor]:
        return [image[:, :1]]


class Sided(nn.Module):
    """Sure of the first half of the last axis and against the other; counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, image: Tensor) -> list[Tensor]:
        self.passes += 1
        half = image.shape[-1] // 2
        logits = torch.full_like(image[:, :1], -200.0)
        logits[..., :half] = 200.0
        return [logits]


def random_image(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, *shape)).astype(np.float32)


def sigmoid(image: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-image))


# Gaussian weights


def test_the_weight_is_one_at_the_centre_and_falls_with_a_deviation_of_an_eighth() -> None:
    weight = gaussian_weight((8, 16, 24))  # deviations 1, 2 and 3 voxels
    assert weight.dtype == np.float32
    assert weight.shape == (8, 16, 24)
    assert weight[4, 8, 12] == 1
    assert weight.max() == 1
    assert weight[3, 8, 12] == pytest.approx(0.606531, abs=1e-6)  # exp(-1/2)
    assert weight[4, 10, 12] == pytest.approx(0.606531, abs=1e-6)
    assert weight[4, 8, 15] == pytest.approx(0.606531, abs=1e-6)
    assert weight[6, 8, 12] == pytest.approx(0.135335, abs=1e-6)  # exp(-2)
    assert weight[3, 6, 9] == pytest.approx(0.223130, abs=1e-6)  # exp(-3/2)
    assert weight[0, 0, 0] == pytest.approx(3.775135e-11, rel=1e-5)  # exp(-3 * 4**2 / 2)


def test_an_even_patch_is_symmetric_about_its_upper_middle_voxel() -> None:
    weight = gaussian_weight((8, 8, 8))
    inner = weight[1:, 1:, 1:]  # the first voxel of an even axis has no counterpart
    for axis in range(3):
        assert np.array_equal(inner, np.flip(inner, axis))
    assert not np.array_equal(weight, np.flip(weight, 0))
    assert np.array_equal(weight, weight.transpose(2, 0, 1))


def test_an_odd_patch_is_symmetric() -> None:
    weight = gaussian_weight((5, 7, 9))
    for axis in range(3):
        assert np.array_equal(weight, np.flip(weight, axis))


@given(SIZES, SIZES, SIZES)
def test_every_weight_is_positive_and_none_is_above_one(z: int, y: int, x: int) -> None:
    weight = gaussian_weight((z, y, x))
    assert (weight > 0).all()
    assert weight.max() == 1


# Tiles


def starts(size: int, patch: int) -> list[int]:
    return [z.start for z, _, _ in tiles((size, 1, 1), (patch, 1, 1))]


@pytest.mark.parametrize(
    ("size", "patch", "expected"),
    [
        (8, 8, [0]),
        (9, 8, [0, 1]),
        (12, 8, [0, 4]),
        (13, 8, [0, 2, 5]),  # 2.5 is rounded to even
        (20, 8, [0, 4, 8, 12]),
        (21, 8, [0, 3, 6, 10, 13]),  # 3.25 apart
        (155, 128, [0, 27]),
        (240, 128, [0, 56, 112]),
    ],
)
def test_tiles_are_spread_evenly(size: int, patch: int, expected: list[int]) -> None:
    assert starts(size, patch) == expected


@given(st.integers(2, 40), st.integers(0, 80))
def test_tiles_reach_from_border_to_border_at_most_half_a_patch_apart(
    patch: int, more: int
) -> None:
    found = starts(patch + more, patch)
    assert (found[0], found[-1]) == (0, more)
    gaps = [later - earlier for earlier, later in itertools.pairwise(found)]
    assert all(1 <= gap <= math.ceil(patch / 2) for gap in gaps)


@given(st.tuples(*[st.integers(1, 6)] * 3), st.tuples(*[st.integers(0, 9)] * 3))
def test_tiles_cover_every_voxel_and_stay_inside(
    patch: tuple[int, int, int], more: tuple[int, int, int]
) -> None:
    shape = (patch[0] + more[0], patch[1] + more[1], patch[2] + more[2])
    covered = np.zeros(shape, np.int64)
    for tile in tiles(shape, patch):
        assert covered[tile].shape == patch
        covered[tile] += 1
    assert covered.min() >= 1


# Padding


def test_a_small_image_lies_in_the_middle_of_zeros() -> None:
    image = np.ones((2, 3, 4, 5), np.float32)
    padded, inside = pad_to(image, (6, 4, 3))
    assert padded.shape == (2, 6, 4, 5)
    assert inside == (slice(1, 4), slice(0, 4), slice(0, 5))
    assert np.array_equal(padded[(slice(None), *inside)], image)
    assert padded.sum() == image.sum()


def test_a_large_image_is_not_padded() -> None:
    image = random_image(4, 5, 6)
    padded, inside = pad_to(image, (4, 4, 4))
    assert np.array_equal(padded, image)
    assert inside == (slice(0, 4), slice(0, 5), slice(0, 6))


# Prediction


@pytest.mark.parametrize("mirroring", [False, True])
@pytest.mark.parametrize(("output", "n", "expected"), [("labels", 4, 0.25), ("regions", 3, 0.5)])
def test_a_constant_network_gives_constant_probabilities_exactly(
    output: Output, n: int, expected: float, *, mirroring: bool
) -> None:
    image = random_image(11, 8, 5)
    found = predict(Constant(n), image, (4, 4, 6), output, CPU, mirroring=mirroring)
    assert found.dtype == np.float32
    assert found.shape == (n, 11, 8, 5)
    assert (found == expected).all()


@pytest.mark.parametrize("shape", [(4, 6, 8), (13, 9, 8), (3, 5, 7), (2, 14, 1)])
def test_overlapping_tiles_give_what_the_network_gives_everywhere(
    shape: tuple[int, int, int],
) -> None:
    image = random_image(*shape)
    found = predict(Same(), image, (4, 6, 8), "regions", CPU, mirroring=False)
    np.testing.assert_allclose(found, sigmoid(image), rtol=1e-5)


def test_mirroring_changes_nothing_for_an_equivariant_network() -> None:
    image = random_image(9, 6, 11)
    plain = predict(Same(), image, (4, 4, 4), "regions", CPU, mirroring=False)
    mirrored = predict(Same(), image, (4, 4, 4), "regions", CPU, mirroring=True)
    np.testing.assert_allclose(mirrored, plain, rtol=1e-5)


def test_mirroring_averages_what_a_network_sees_in_all_eight_directions() -> None:
    network = Sided()
    image, patch = random_image(4, 4, 4), (4, 4, 4)
    found = predict(network, image, patch, "regions", CPU, mirroring=True, batch_size=1)
    assert network.passes == 8
    assert (found == 0.5).all()  # sure in four directions, against it in the others


def test_without_mirroring_there_is_one_pass_per_tile() -> None:
    network = Sided()
    image, patch = random_image(4, 4, 8), (4, 4, 4)
    found = predict(network, image, patch, "regions", CPU, mirroring=False, batch_size=1)
    assert network.passes == 3  # starts 0, 2, 4
    assert found[0, 0, 0, 0] == 1
    assert found[0, 0, 0, 7] == 0


def test_probabilities_of_labels_sum_to_one() -> None:
    torch.manual_seed(1)
    conv = nn.Conv3d(1, 3, 3, padding=1)

    class Single(nn.Module):
        def forward(self, image: Tensor) -> list[Tensor]:
            return [conv(image)]

    found = predict(Single(), random_image(9, 6, 5), (4, 4, 4), "labels", CPU, mirroring=True)
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-5)


def test_a_network_in_training_is_put_into_evaluation() -> None:
    network = nn.Sequential(nn.BatchNorm3d(1), Same())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    predict(network.train(), random_image(4, 4, 4), (4, 4, 4), "regions", CPU, mirroring=False)
    assert not network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_image_is_not_changed() -> None:
    image = random_image(5, 4, 4)
    before = image.copy()
    predict(Same(), image, (4, 4, 4), "regions", CPU, mirroring=True)
    assert np.array_equal(image, before)


@given(
    st.tuples(*[st.integers(1, 13)] * 3),
    st.tuples(*[st.integers(2, 6)] * 3),
    st.permutations([0, 1, 2]),
    st.integers(1, 5),
    st.booleans(),
)
def test_a_linear_network_gives_its_image_back_in_slabs_of_any_shape_and_axis_order(
    shape: tuple[int, int, int],
    patch: tuple[int, int, int],
    transpose: list[int],
    batch_size: int,
    mirroring: bool,
) -> None:
    image = random_image(*shape)  # in the axis order of the network
    window = Window(patch, "regions", mirroring, "logits", batch_size)
    order = (transpose[0], transpose[1], transpose[2])
    slabs = list(predicted_slabs(Same(), image, window, CPU, transpose=order))
    found = np.concatenate(slabs, axis=1)
    # a mean of up to 27 tiles in float32: each of the sums rounds by up to half of 2**-22
    np.testing.assert_allclose(found.transpose(0, *(1 + a for a in order)), image, atol=5e-6)


@given(
    st.tuples(*[st.integers(1, 40)] + [st.integers(1, 9)] * 2),
    st.tuples(*[st.integers(2, 5)] * 2),
    st.sampled_from([(0, 1, 2), (1, 0, 2), (2, 0, 1)]),
)
def test_a_network_of_two_axes_sees_every_slice_once_across_its_first_axis(
    shape: tuple[int, int, int], patch: tuple[int, int], transpose: tuple[int, int, int]
) -> None:
    class Flat(nn.Module):
        def forward(self, image: Tensor) -> list[Tensor]:
            assert image.ndim == 4
            assert tuple(image.shape[2:]) == patch
            return [image[:, :1]]

    image = random_image(*shape)
    window = Window(patch, "regions", True, "logits")
    found = np.concatenate(
        list(predicted_slabs(Flat(), image, window, CPU, transpose=transpose)), axis=1
    )
    np.testing.assert_allclose(found.transpose(0, *(1 + a for a in transpose)), image, atol=1e-6)


def test_slices_of_a_small_patch_are_taken_together() -> None:
    found = layers((40, 8, 8), (1, 8, 8), slice_axis=0)
    assert [(layer.start, layer.stop) for layer in found] == [(0, 16), (16, 32), (32, 40)]
    assert [len(layer.tiles) for layer in found] == [16, 16, 8]


def conv_network(n_outputs: int) -> nn.Module:
    """Return a small network with instance norms and fixed random weights."""
    torch.manual_seed(1)

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv3d(1, 6, 3, padding=1), InstanceNorm(6), nn.Conv3d(6, n_outputs, 1)
            )

        def forward(self, image: Tensor) -> list[Tensor]:
            return [self.layers(image)]

    return Small()


@pytest.mark.parametrize("averaging", ["probabilities", "logits"])
def test_the_mean_over_mirrorings_is_what_eight_explicit_passes_give(averaging: str) -> None:
    network, image = conv_network(3), random_image(8, 6, 10)
    every = [f for n in range(4) for f in itertools.combinations((2, 3, 4), n)]
    with torch.no_grad():
        batch = torch.from_numpy(image)[None]
        logits = [network(batch.flip(flip))[0].flip(flip) for flip in every]
        softmaxed = torch.stack([values.softmax(dim=1) for values in logits]).mean(dim=0)
        of_mean = torch.stack(logits).mean(dim=0).softmax(dim=1)
    expected = {"probabilities": softmaxed, "logits": of_mean}[averaging][0].numpy()
    found = predict(network, image, (8, 6, 10), "labels", CPU, mirroring=True, averaging=averaging)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("batch_size", [2, 3, 16])
def test_batches_of_tiles_give_what_single_tiles_give(batch_size: int) -> None:
    network, image = conv_network(3), random_image(13, 9, 11)
    one, more = (
        predict(network, image, (6, 6, 6), "labels", CPU, mirroring=False, batch_size=size)
        for size in (1, batch_size)
    )
    np.testing.assert_allclose(more, one, atol=1e-6)


def test_batches_that_are_too_much_for_the_memory_are_halved() -> None:
    sizes: list[int] = []

    class Greedy(Same):
        def forward(self, image: Tensor) -> list[Tensor]:
            sizes.append(len(image))
            if len(image) > 2:
                raise torch.OutOfMemoryError
            return super().forward(image)

    image = random_image(4, 4, 12)
    window = Window((4, 4, 4), "regions", False, "logits", 8)
    found = np.concatenate(list(predicted_slabs(Greedy(), image, window, CPU)), axis=1)
    assert sizes == [5, 2, 2, 1]
    np.testing.assert_allclose(found, image, atol=1e-6)


def test_a_tile_that_is_too_much_for_the_memory_is_an_error_with_advice() -> None:
    class Full(nn.Module):
        def forward(self, _: Tensor) -> list[Tensor]:
            raise torch.OutOfMemoryError

    with pytest.raises(ConfigError, match="--memory-gb"):
        predict(Full(), random_image(4, 4, 4), (4, 4, 4), "regions", CPU, mirroring=False)


def test_progress_counts_tiles_not_mirrorings() -> None:
    told: list[tuple[int, int]] = []
    window = Window((4, 4, 4), "regions", True)
    image = random_image(4, 4, 8)
    for _ in predicted_slabs(
        Same(), image, window, CPU, progress=lambda done, total: told.append((done, total))
    ):
        pass
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_slabs_leave_as_soon_as_no_later_tile_touches_them() -> None:
    network, image = Sided(), random_image(12, 4, 4)
    window = Window((4, 4, 4), "regions", False, "probabilities", 1)
    slabs = predicted_slabs(network, image, window, CPU)
    assert next(slabs).shape == (1, 2, 4, 4)
    assert network.passes == 1


# Instance norm of single samples


@pytest.mark.parametrize("kind", [InstanceNorm, nn.InstanceNorm3d])
def test_the_norm_of_single_samples_equals_the_instance_norm(kind: type[nn.Module]) -> None:
    affine = {} if kind is InstanceNorm else {"affine": True}
    norm = kind(3, **affine)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
        batch = 5 + 2 * torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(1))
        expected = norm(batch)
        with single_sample_norms(norm):
            found = norm(batch)
            alone = norm(batch[1:])
        after = norm(batch)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(alone.numpy(), expected[1:].numpy(), atol=1e-5)
    assert torch.equal(after, expected)
    assert "forward" not in vars(norm)


# Decision


def test_the_most_probable_label_is_taken_by_its_value() -> None:
    probabilities = np.array(
        [[0.7, 0.1, 0.2, 0.1], [0.1, 0.6, 0.1, 0.2], [0.1, 0.2, 0.5, 0.1], [0.1, 0.1, 0.2, 0.6]],
        np.float32,
    ).reshape(4, 1, 1, 4)
    labels = decide(probabilities, load_task("brats-2021"), "labels")
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[[0, 1, 2, 4]]]


def test_regions_above_one_half_become_labels_by_the_table_of_the_task() -> None:
    # whole tumour, core, enhancing; exactly one half is not above it
    voxels = [(0.9, 0.1, 0.1), (0.9, 0.8, 0.5), (0.9, 0.8, 0.6), (0.4, 0.3, 0.9), (0.5, 0.5, 0.5)]
    probabilities = np.array(voxels, np.float32).T.reshape(3, 1, 1, 5)
    labels = decide(probabilities, load_task("brats-2021"), "regions")
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[[2, 1, 4, 0, 0]]]


def test_regions_without_a_table_cannot_be_decided() -> None:
    with pytest.raises(ConfigError, match="expected region_labels"):
        decide(np.ones((2, 1, 1, 1), np.float32), load_task("hippocampus"), "regions")
