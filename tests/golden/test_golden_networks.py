"""U-Nets with weights of nnU-Net's give its answers (dynamic_network_architectures 0.4.4).

data/network-*.npz were written by `benchmarks/golden_networks_nnunet.py`: weights under the names
that they have there, an image, and the logits of every stage, finest first.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from common.config import ArchitectureName
from common.network import load_all_weights
from common.networks.blueprint import Blueprint
from common.networks.table import build
from common.planning.plan import AnyConfiguration, Configuration, Configuration2d

DATA = Path(__file__).with_name("data")
TOLERANCE = 2e-5  # of logits up to 15, in float32
PLANS: dict[int, AnyConfiguration] = {
    2: Configuration2d(
        spacing_mm=(1.0, 1.0),
        median_shape=(8.0, 12.0),
        patch_size=(8, 12),
        batch_size=2,
        strides=((2, 2), (2, 2)),
        kernel_sizes=((3, 3),) * 3,
        features_per_stage=(4, 4, 6),
        batch_dice=False,
        deep_supervision_weights=(1.0, 0.0),
    ),
    3: Configuration(
        spacing_mm=(2.0, 1.0, 1.0),
        median_shape=(4.0, 8.0, 12.0),
        patch_size=(4, 8, 12),
        batch_size=2,
        strides=((1, 2, 2), (2, 2, 2)),
        kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        features_per_stage=(4, 4, 6),
        batch_dice=False,
        deep_supervision_weights=(1.0, 0.0),
    ),
}


def our_name(theirs: str) -> str:
    """Return the name that a tensor of nnU-Net's has here."""
    if found := re.fullmatch(r"decoder\.(transpconvs|seg_layers)\.(.*)", theirs):
        return f"{'up' if found[1] == 'transpconvs' else 'heads'}.{found[2]}"
    if found := re.fullmatch(r"encoder\.stem\.convs\.0\.(conv|norm)\.(\w+)", theirs):
        return f"encoder.0.0.{('conv', 'norm').index(found[1])}.{found[2]}"
    if found := re.fullmatch(r"(en|de)coder\.stages\.(\d)\.(?:0\.)?convs\.(\d)\.(.*)", theirs):
        return f"{found[1]}coder.{found[2]}.{in_pair(int(found[3]), found[4])}"
    found = re.fullmatch(r"encoder\.stages\.(\d)\.blocks\.(\d)\.(conv|skip\.)(\d)\.(.*)", theirs)
    if found is None:
        raise KeyError(theirs)
    block = f"encoder.{found[1]}.{int(found[2]) + (found[1] == '0')}"
    if found[3] == "conv":
        return f"{block}.trunk.{in_pair(int(found[4]) - 1, found[5])}"
    layer, _, tensor = found[5].partition(".")
    return f"{block}.way_around.{int(found[4]) + ('conv', 'norm').index(layer)}.{tensor}"


def in_pair(convolution: int, rest: str) -> str:
    """Return where a layer lies in convolution, norm, activation, convolution, norm."""
    layer, _, tensor = rest.partition(".")
    return f"{3 * convolution + ('conv', 'norm').index(layer)}.{tensor}"


@pytest.mark.parametrize(
    ("kind", "architecture", "n_axes"),
    [("plain", "unet", 2), ("plain", "unet", 3), ("resenc", "resenc-unet", 3)],
)
def test_equal_weights_give_the_logits_of_nnunetv2(
    kind: str, architecture: ArchitectureName, n_axes: int
) -> None:
    wanted = Blueprint(2, 3, PLANS[n_axes], "instance", deep_supervision=True)
    network = build(architecture, wanted).train()
    with np.load(DATA / f"network-{kind}-{n_axes}d.npz") as stored:
        golden: dict[str, NDArray[np.float32]] = {n: stored[n].astype(np.float32) for n in stored}
    theirs = {n.removeprefix("weights."): w for n, w in golden.items() if n.startswith("weights.")}
    load_all_weights(network, {our_name(name): tensor for name, tensor in theirs.items()}, ())
    with torch.no_grad():
        logits = network(torch.from_numpy(golden["image"]))
    assert len(logits) == 2
    for stage, found in enumerate(logits):
        np.testing.assert_allclose(found, golden[f"logits.{stage}"], rtol=0, atol=TOLERANCE)
