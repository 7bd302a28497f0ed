"""Which tensors stay at a site follows from a layer's or a number's type, never from a name."""

import pytest
import torch
from torch import nn

from common.batchnorm import has_batch_norm, local_names
from common.config import BatchNormSharing


class Disguised(nn.Module):
    """Names say the opposite of what the layers are."""

    def __init__(self) -> None:
        super().__init__()
        self.running_mean = nn.Conv3d(1, 2, 1)
        self.batch_norm = nn.InstanceNorm3d(2, affine=True, track_running_stats=True)
        self.head = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm3d(2))


@pytest.mark.parametrize(
    ("sharing", "expected"),
    [
        (
            "local-statistics",
            {"head.1.running_mean", "head.1.running_var", "head.1.num_batches_tracked"},
        ),
        (
            "local",
            {
                "head.1.running_mean",
                "head.1.running_var",
                "head.1.num_batches_tracked",
                "head.1.weight",
                "head.1.bias",
            },
        ),
        ("shared", {"head.1.num_batches_tracked"}),
    ],
)
def test_only_tensors_of_batch_norm_stay(sharing: BatchNormSharing, expected: set[str]) -> None:
    counter = "batch_norm.num_batches_tracked"  # an integer, whatever owns it
    assert local_names(Disguised(), sharing) == {*expected, counter}


class WithTable(nn.Module):
    """As the attention of a transformer: an index of relative positions, beside weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("index", torch.arange(4))
        self.register_buffer("scale", torch.ones(4))


@pytest.mark.parametrize("sharing", ["local-statistics", "local", "shared"])
def test_integers_stay_because_no_mean_of_them_means_anything(sharing: BatchNormSharing) -> None:
    assert local_names(WithTable(), sharing) == {"index"}


@pytest.mark.parametrize("sharing", ["local-statistics", "local", "shared"])
def test_every_name_is_a_tensor_of_the_network(sharing: BatchNormSharing) -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2), nn.ReLU(), nn.BatchNorm1d(2))
    assert local_names(network, sharing) <= set(network.state_dict())
    assert {name.split(".")[0] for name in local_names(network, sharing)} == {"1", "3"}


@pytest.mark.parametrize("sharing", ["local-statistics", "local", "shared"])
def test_nothing_stays_without_batch_norm(sharing: BatchNormSharing) -> None:
    network = nn.Sequential(nn.Conv3d(1, 8, 1), nn.GroupNorm(2, 8), nn.InstanceNorm3d(8))
    assert local_names(network, sharing) == frozenset()
    assert not has_batch_norm(network)


def test_batch_norm_is_found_at_any_depth() -> None:
    assert has_batch_norm(nn.Sequential(nn.Sequential(nn.BatchNorm3d(2))))
