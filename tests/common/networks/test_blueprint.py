"""What an architecture cannot take is refused before it is built, with what it could take."""

import pytest

from common.config import ArchitectureName
from common.errors import ConfigError
from common.networks.blueprint import Blueprint
from common.networks.table import ARCHITECTURES, build
from common.planning.plan import AnyConfiguration, Configuration, Configuration2d


def plan(patch: tuple[int, ...], features: tuple[int, ...]) -> AnyConfiguration:
    n_axes, n_steps = len(patch), len(features) - 1
    return (Configuration if n_axes == 3 else Configuration2d)(
        spacing_mm=(1.0,) * n_axes,  # type: ignore[arg-type]
        median_shape=(100.0,) * n_axes,  # type: ignore[arg-type]
        patch_size=patch,  # type: ignore[arg-type]
        batch_size=2,
        strides=((2,) * n_axes,) * n_steps,  # type: ignore[arg-type]
        kernel_sizes=((3,) * n_axes,) * (n_steps + 1),  # type: ignore[arg-type]
        features_per_stage=features,
        batch_dice=False,
        deep_supervision_weights=(1.0,),
    )


def refused(name: ArchitectureName, wanted: Blueprint) -> str:
    with pytest.raises(ConfigError) as caught:
        build(name, wanted)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "patch", "following"),
    [
        ("swin-unetr", (40, 56, 40), "64x64x64"),
        ("swin-unetr", (32, 32, 32), "32x32x64"),  # one voxel would be left to normalise
        ("segresnet", (20, 16, 16), "24x16x16"),
        ("segresnet-vae", (24, 32, 32), "32x32x32"),
        ("unetr", (40, 56, 40), "48x64x48"),
        ("unet++", (8, 20), "16x32"),
        ("vnet", (128, 128, 100), "128x128x112"),
        ("unet2d", (100, 90), "112x96"),
    ],
)
def test_a_patch_that_does_not_divide_is_refused_with_one_that_does(
    name: ArchitectureName, patch: tuple[int, ...], following: str
) -> None:
    wanted = Blueprint(2, 3, plan(patch, (16,)), "instance", deep_supervision=False)
    found = refused(name, wanted)
    assert f"multiples of {ARCHITECTURES[name].divisor}," in found
    assert f"next larger is {following}:" in found


def test_all_reasons_for_a_refusal_are_given_at_once() -> None:
    wanted = Blueprint(2, 3, plan((8, 8, 8), (4,)), "batch", deep_supervision=True)
    assert refused("unet2d", wanted) == (
        "model.architecture: unet2d segments slices; expected the configuration 2d, found one of "
        "3 axes\n"
        "model.deep_supervision: unet2d has logits at full resolution only; expected false, found "
        "true\n"
        "model.architecture: unet2d takes patches whose edges are multiples of 16, at least one "
        "of them larger than that; found 8x8x8, next larger is 16x16x32: change patch_size in an "
        "edited plan, or the architecture"
    )


def test_widths_that_an_architecture_cannot_have_are_refused() -> None:
    wanted = Blueprint(2, 3, plan((64, 64, 64), (32,)), "batch", deep_supervision=False)
    assert refused("swin-unetr", wanted) == (
        "model.base_features: swin-unetr expects 12 or 24 or 36 or 48 or 60, found 32"
    )
    assert refused("vnet", wanted) == "model.base_features: vnet expects 16, found 32"


def test_vnet_takes_a_divisor_of_its_width_as_input() -> None:
    wanted = Blueprint(3, 3, plan((64, 64, 64), (16,)), "batch", deep_supervision=False)
    assert "expected a task whose number of channels divides 16, found 3" in refused("vnet", wanted)


def test_attention_needs_a_coarser_stage() -> None:
    wanted = Blueprint(2, 3, plan((6, 6, 6), (4,)), "batch", deep_supervision=False)
    assert "needs a plan with downsampling" in refused("attention-unet", wanted)
