import pytest

from common.planning.topology import (
    FeatureMaps,
    features_per_stage,
    shrunk,
    supervision_weights,
    topology,
    voxel_channels,
)

ISO = (1.0, 1.0, 1.0)


def test_an_isotropic_patch_is_halved_along_every_axis() -> None:
    network = topology(ISO, (36, 50, 35))  # 36 -> 18 -> 9 -> 4.5; the next would be below 4
    assert network.strides == ((2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert network.kernel_sizes == ((3, 3, 3),) * 4
    assert network.divisor == (8, 8, 8)
    assert network.patch_size == (40, 56, 40)


def test_in_plane_axes_are_halved_first_until_spacings_are_alike() -> None:
    network = topology((40.0, 4.0, 4.0), (24, 256, 256))  # CREMI, table F.37
    assert network.strides == ((1, 2, 2),) * 3 + ((2, 2, 2),) * 2 + ((1, 2, 2),)
    assert network.kernel_sizes == ((1, 3, 3),) * 3 + ((3, 3, 3),) * 4


def test_an_axis_that_is_too_short_stops_those_that_would_become_twice_as_coarse() -> None:
    # ACDC: z stops after two poolings at 20 mm; in-plane stops at 8 voxels of 50 mm
    network = topology((5.0, 1.56, 1.56), (18, 237, 208))
    assert network.strides == ((1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert network.patch_size == (20, 256, 224)


def test_exactly_twice_the_spacing_is_not_alike() -> None:
    assert topology((2.0, 1.0, 1.0), (64, 64, 64)).strides[0] == (1, 2, 2)
    assert topology((1.99, 1.0, 1.0), (64, 64, 64)).strides[0] == (2, 2, 2)
    assert topology((2.0, 1.0, 1.0), (64, 64, 64)).kernel_sizes[0] == (1, 3, 3)


def test_of_groups_of_equal_size_the_first_gets_the_wide_kernel() -> None:
    assert topology((9.0, 3.0, 1.0), (64, 64, 64)).kernel_sizes[0] == (3, 1, 1)


def test_an_axis_is_halved_from_eight_voxels_on() -> None:
    assert topology(ISO, (8, 7, 8)).strides == ((2, 1, 2),)
    assert topology(ISO, (5, 7, 1)).strides == ()
    assert topology(ISO, (5, 7, 1)).kernel_sizes == ((3, 3, 3),)
    assert topology(ISO, (5, 7, 1)).patch_size == (5, 7, 1)


def test_two_axes_work_alike() -> None:
    network = topology((1.0, 1.0), (50, 35))
    assert (network.patch_size, network.strides) == ((56, 40), ((2, 2),) * 3)


@pytest.mark.parametrize(
    ("n_stages", "first", "expected"),
    [(6, 32, (32, 64, 128, 256, 320, 320)), (4, 16, (16, 32, 64, 128)), (1, 32, (32,))],
)
def test_features_double_up_to_the_cap(
    n_stages: int, first: int, expected: tuple[int, ...]
) -> None:
    assert features_per_stage(n_stages, first, 320) == expected


def test_memory_counts_five_maps_per_stage_two_at_the_bottleneck_and_both_ends() -> None:
    network = topology(ISO, (8, 8, 8))  # 512 voxels, then 64
    assert voxel_channels(network, (32, 64), 3) == 512 * (5 * 32 + 3) + 64 * 64 * 2
    assert voxel_channels(topology(ISO, (4, 4, 4)), (32,), 3) == 64 * (5 * 32 + 3)


def test_256_shrinks_to_224_and_not_past_it() -> None:
    network = topology(ISO, (256, 128, 128))  # 256 allows six halvings: its own divisor is 64
    assert network.divisor == (64, 32, 32)
    assert shrunk(network, ISO, (256, 256, 256)).patch_size == (224, 128, 128)


def test_the_axis_that_covers_most_of_the_median_shrinks_first_and_of_equals_the_last() -> None:
    network = topology(ISO, (128, 128, 128))
    assert shrunk(network, ISO, (138, 169, 138)).patch_size == (128, 128, 112)
    assert shrunk(network, ISO, (128, 169, 138)).patch_size == (112, 128, 128)


def test_an_axis_of_one_voxel_never_shrinks() -> None:
    network = topology(ISO, (1, 4, 4))
    assert shrunk(network, ISO, (1, 512, 512)).patch_size == (1, 4, 3)


def test_by_v2_an_axis_that_is_too_short_stops_no_other() -> None:
    # ACDC: after five steps only y has 8 voxels, and an axis alone needs 12
    network = topology((5.0, 1.56, 1.56), (18, 237, 208), "v2")
    assert network.strides == ((1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert network.patch_size == (20, 256, 224)
    thin = topology((1.0, 1.0, 1.0), (5, 64, 64), "v2")
    assert thin.strides == ((1, 2, 2),) * 4
    assert topology((1.0, 1.0, 1.0), (5, 64, 64)).strides == ((1, 2, 2),)


def test_by_v2_an_axis_alone_is_halved_from_twelve_voxels_on() -> None:
    # nnunetv2 2.8.1; 11x23x11 pads to 12x24x12, then 12 voxels are left along y
    assert topology(ISO, (11, 23, 11), "v2").strides == ((2, 2, 2), (1, 2, 1))
    assert topology(ISO, (4, 11, 4), "v2").strides == ()
    assert topology(ISO, (4, 12, 4), "v2").strides == ((1, 2, 1),)


def test_by_v2_a_kernel_once_wide_stays_wide() -> None:
    # nnunetv2 2.8.1 on 40 x 4 x 4 nm
    network = topology((40.0, 4.0, 4.0), (24, 256, 256), "v2")
    assert network.kernel_sizes == ((1, 3, 3),) * 3 + ((3, 3, 3),) * 4


def test_by_v2_half_a_voxel_is_rounded_up() -> None:
    assert topology((1.0, 1.0), (484.5, 525.0), "v2").patch_size == (512, 640)


def test_memory_of_residual_encoders_counts_their_own_maps() -> None:
    network = topology(ISO, (8, 8, 8))
    maps = FeatureMaps(encoder=(3, 7), decoder=2)
    assert voxel_channels(network, (32, 64), 2, maps) == 512 * (5 * 32 + 2) + 64 * 64 * 7


@pytest.mark.parametrize(
    ("n_steps", "weights"),
    [
        (5, (8 / 15, 4 / 15, 2 / 15, 1 / 15, 0)),
        (3, (2 / 3, 1 / 3, 0)),
        (2, (1, 0)),
        (1, (1,)),
        (0, (1,)),
    ],
)
def test_the_weight_of_a_stage_halves_and_the_coarsest_has_none(
    n_steps: int, weights: tuple[float, ...]
) -> None:
    assert supervision_weights(n_steps) == pytest.approx(weights, abs=1e-12)
