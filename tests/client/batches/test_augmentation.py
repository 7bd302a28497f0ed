"""Over 10,000 samples every change comes as often, and as strong, as its preset says."""

import numpy as np
import pytest

from client.batches.augmentation import Drawn, Frame, draw, matrix_of, moves
from common.augmentation import PRESETS, Change, Preset, PresetName

N = 10_000
CUBE = Frame(N, 3, (128, 128, 128))

LIMITS: dict[str, dict[str, tuple[float, float, float]]] = {
    # share of samples with this change, smallest and largest strength, all from the publications
    "light": {
        "noise_std": (0.1, 0, 0.3163),
        "brightness": (0.15, 0.75, 1.25),
        "gamma": (0.3, 0.7, 1.5),
    },
    "nnunet": {
        "degrees": (0.2, -30, 30),
        "scaling": (0.2, 0.7, 1.4),
        "noise_std": (0.15, 0, 0.3163),
        "blur": (0.2 * (1 - 0.5**3), 0.5, 1.5),
        "brightness": (0.15, 0.7, 1.3),
        "contrast": (0.15, 0.65, 1.5),
        "zoom": (0.25 * (1 - 0.5**3), 0.5, 1.0),
        "inverted_gamma": (0.15, 0.7, 1.5),
        "gamma": (0.15, 0.7, 1.5),
    },
    "nnunet-v2": {
        "degrees": (0.2, -30, 30),
        "scaling": (0.2, 0.7, 1.4),
        "noise_std": (0.1, 0, 0.1),
        "blur": (0.2 * (1 - 0.5**3), 0.5, 1.0),
        "brightness": (0.15, 0.75, 1.25),
        "contrast": (0.15, 0.75, 1.25),
        "zoom": (0.25 * (1 - 0.5**3), 0.5, 1.0),
        "inverted_gamma": (0.1, 0.7, 1.5),
        "gamma": (0.3, 0.7, 1.5),
    },
    "brats2020": {
        "degrees": (0.3, -30, 30),
        "scaling": (0.3, 0.65, 1.6),
        "elastic": (0.3, 0, 0.25),
        "noise_std": (0.15, 0, 0.1),
        "blur": (0.2 * (1 - 0.5**3), 0.5, 1.5),
        "brightness": (0.15, 0.7, 1.3),
        "contrast": (0.15, 0.65, 1.5),
        "zoom": (0.25 * (1 - 0.5**3), 0.5, 1.0),
        "inverted_gamma": (0.15, 0.5, 1.6),
        "gamma": (0.3, 0.5, 1.6),
    },
    "ibsr18": {"degrees": (0.5, -10, 10), "scaling": (0.5, 0.9, 1.1)},
    "mirror": {},
    "none": {},
}
LIMITS["brats2020-star"] = LIMITS["brats2020"]
NEUTRAL = {"degrees": 0, "noise_std": 0, "blur": 0, "elastic": 0, "shift": 0, "scaling": 1}
NEUTRAL |= dict.fromkeys(("brightness", "contrast", "zoom", "inverted_gamma", "gamma"), 1)


@pytest.fixture(scope="module")
def drawn() -> dict[str, Drawn]:
    return {name: draw(preset, CUBE, np.random.default_rng(7)) for name, preset in PRESETS.items()}


def is_share(hits: int, n: int, probability: float) -> bool:
    """Return whether a count lies within four and a half binomial deviations."""
    return bool(abs(hits - n * probability) <= 4.5 * np.sqrt(n * probability * (1 - probability)))


def changed(values: np.ndarray, neutral: float) -> np.ndarray:
    """Return which samples (first axis) have any value that is not neutral."""
    return (values != neutral).reshape(len(values), -1).any(axis=1)


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("field", sorted(set(NEUTRAL) - {"shift"}))
def test_probabilities_are_met_and_ranges_are_filled_and_never_left(
    drawn: dict[str, Drawn], name: PresetName, field: str
) -> None:
    values, neutral = getattr(drawn[name], field), NEUTRAL[field]
    probability, low, high = LIMITS[name].get(field, (0.0, 0.0, 0.0))
    assert is_share(int(changed(values, neutral).sum()), N, probability)
    strengths = values[values != neutral]
    if probability == 0:
        assert strengths.size == 0
        return
    tolerance = 0.02 * (high - low)
    assert low - 1e-6 <= strengths.min() <= low + 4 * tolerance
    assert high - tolerance <= strengths.max() <= high + 1e-6


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"none"}))
def test_every_axis_is_mirrored_half_of_the_time(drawn: dict[str, Drawn], name: PresetName) -> None:
    for axis in range(3):
        assert is_share(int(drawn[name].mirrored[:, axis].sum()), N, 0.5)
    assert is_share(int(drawn[name].mirrored.all(axis=1).sum()), N, 1 / 8)


def test_the_preset_none_changes_nothing(drawn: dict[str, Drawn]) -> None:
    assert not drawn["none"].mirrored.any()
    assert not drawn["none"].dropped.any()
    assert not any(moves(drawn["none"], sample) for sample in range(100))


@pytest.mark.parametrize(("name", "per_channel"), [("brats2020", 1.0), ("brats2020-star", 0.5)])
def test_additive_brightness_is_normal(
    drawn: dict[str, Drawn], name: PresetName, per_channel: float
) -> None:
    shift = drawn[name].shift
    assert is_share(int((shift[:, 0] != 0).sum()), N, 0.3 * per_channel)
    assert float(shift[shift != 0].mean()) == pytest.approx(0, abs=0.015)
    assert float(shift[shift != 0].std()) == pytest.approx(0.2, abs=0.01)


def test_where_halves_are_drawn_half_of_the_strengths_lie_above_one(
    drawn: dict[str, Drawn],
) -> None:
    for name, above in (("nnunet-v2", 0.5), ("brats2020", 0.5), ("nnunet", 0.5 / 0.8)):
        gamma = drawn[name].gamma[drawn[name].gamma != 1]
        assert is_share(int((gamma > 1).sum()), gamma.size, above)


def test_channels_are_changed_each_by_itself(drawn: dict[str, Drawn]) -> None:
    chosen = drawn["nnunet"]
    bright = chosen.brightness[changed(chosen.brightness, 1)]
    assert (bright[:, 0] != bright[:, 1]).all()
    blurred = (chosen.blur[..., 0] != 0).sum(axis=1)
    assert is_share(int((blurred == 3).sum()), N, 0.2 * 0.5**3)
    # one deviation for all axes in the paper, one for each in nnunetv2
    assert (np.ptp(chosen.blur, axis=2) == 0).all()
    anisotropic = drawn["nnunet-v2"].blur
    assert (np.ptp(anisotropic, axis=2) > 0).any(axis=1).sum() == changed(anisotropic, 0).sum()


def test_scaling_is_alike_along_all_axes_unless_the_preset_wants_it_otherwise(
    drawn: dict[str, Drawn],
) -> None:
    for name, share in (("nnunet", 0.0), ("brats2020", 0.3), ("ibsr18", 1.0)):
        scaling = drawn[name].scaling[changed(drawn[name].scaling, 1)]
        assert is_share(int((np.ptp(scaling, axis=1) > 0).sum()), len(scaling), share)


def test_a_flat_patch_is_neither_turned_nor_scaled_out_of_its_planes() -> None:
    frame = Frame(N, 1, (20, 256, 256), in_plane=True)
    flat = draw(PRESETS["brats2020"], frame, np.random.default_rng(0))
    assert flat.degrees.shape == (N, 1)
    assert (float(flat.degrees.min()), float(flat.degrees.max())) == pytest.approx(
        (-180, 180), abs=1
    )
    assert (flat.scaling[:, 0] == 1).all()
    assert not flat.elastic[:, 1].any()
    assert flat.in_plane
    turned = next(s for s in range(N) if moves(flat, s))
    assert matrix_of(flat, turned)[0].tolist() == [1, 0, 0]
    assert matrix_of(flat, turned)[:, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize(("patch_size", "limit"), [((256, 224), 180), ((256, 128), 15)])
def test_slices_are_turned_in_their_plane(patch_size: tuple[int, int], limit: float) -> None:
    frame = Frame(N, 1, patch_size)
    slices = draw(PRESETS["nnunet"], frame, np.random.default_rng(0))
    assert (slices.mirrored.shape, slices.degrees.shape) == ((N, 2), (N, 1))
    assert float(np.abs(slices.degrees).max()) == pytest.approx(limit, rel=0.01)
    assert float(np.abs(slices.degrees).max()) <= limit


@pytest.mark.parametrize(
    ("degrees", "matrix"),
    [
        ((90, 0, 0), [[1, 0, 0], [0, 0, -3], [0, 2, 0]]),
        ((0, 90, 0), [[0, 0, 3], [0, 2, 0], [-1, 0, 0]]),
        ((0, 0, 90), [[0, -2, 0], [1, 0, 0], [0, 0, 3]]),
        ((90, 0, 90), [[0, 0, 3], [1, 0, 0], [0, 2, 0]]),
    ],
)
def test_a_matrix_scales_and_then_turns_about_the_axes_in_turn(
    degrees: tuple[float, ...], matrix: list[list[float]]
) -> None:
    plain = draw(PRESETS["none"], Frame(1, 1, (4, 4, 4)), np.random.default_rng(0))
    plain.degrees[0] = degrees
    plain.scaling[0] = (1, 2, 3)
    np.testing.assert_allclose(matrix_of(plain, 0), matrix, atol=1e-12)


def test_channels_go_missing_but_never_all_of_them() -> None:
    preset = Preset(channel_dropout=0.4)
    dropped = draw(preset, CUBE, np.random.default_rng(0)).dropped
    # of all eight patterns the one without channels is forbidden: one of its three comes back
    assert is_share(int(dropped[:, 0].sum()), N, 0.4 - 0.4**3 / 3)
    assert not dropped.all(axis=1).any()
    one = draw(preset, Frame(N, 1, (4, 4, 4)), np.random.default_rng(0)).dropped
    assert not one.any()


def test_the_first_stage_is_spoilt_as_often_as_published() -> None:
    frame = Frame(N, 2, (64, 64, 64), cascade_labels=(1, 2))
    cascade = draw(PRESETS["nnunet"], frame, np.random.default_rng(0)).cascade
    assert cascade is not None
    assert is_share(int((cascade.operator[:, 0] != 0).sum()), N, 0.4 * 0.5)
    assert is_share(int((~np.isnan(cascade.removed[:, 1])).sum()), N, 0.2 * 0.5)
    operators = cascade.operator[cascade.operator != 0]
    for operator in (1, 2, 3, 4):
        assert is_share(int((operators == operator).sum()), operators.size, 1 / 4)
    assert cascade.radius.min() == pytest.approx(1, abs=0.01)
    assert cascade.radius.max() == pytest.approx(8, abs=0.01)
    assert is_share(int((cascade.order[:, 0] == 0).sum()), N, 0.5)


def test_without_a_first_stage_nothing_is_drawn_for_it(drawn: dict[str, Drawn]) -> None:
    assert drawn["nnunet"].cascade is None
    light = draw(
        PRESETS["light"], Frame(1, 1, (4, 4), cascade_labels=(1,)), np.random.default_rng(0)
    )
    assert light.cascade is None


def test_what_a_preset_draws_does_not_depend_on_the_chances_of_what_it_draws_before() -> None:
    often = Preset(noise=Change(0.9, 0, 1), mirror=0.5, rotation=1.0)
    rarely = Preset(noise=Change(0.1, 0, 1), mirror=0.5, rotation=1.0)
    one, other = (draw(p, CUBE, np.random.default_rng(0)) for p in (often, rarely))
    np.testing.assert_array_equal(one.degrees, other.degrees)
