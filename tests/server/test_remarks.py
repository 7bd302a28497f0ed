"""What the report says about settings without effect or outside what was published."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from common.config import RunConfig
from common.privacy.settings import PatientPrivacy
from server.remarks import remarks

Make = Callable[..., RunConfig]


@pytest.fixture
def config(toy_config: Make) -> Make:
    """Return what makes a configuration with batch norm, of sites of which none is faulty."""

    def make(norm: str = "batch", **federation: object) -> RunConfig:
        model = {"norm": norm, "batch_norm": "shared"}
        return toy_config(model, **{"min_sites": 3, "n_faulty": 0, **federation})

    return make


def test_an_ordinary_configuration_needs_no_remark(config: Make) -> None:
    assert not list(remarks(config()))


def test_batch_norm_without_batch_norm_is_remarked(config: Make) -> None:
    assert list(remarks(config(norm="group"))) == [
        "batch_norm = 'shared' has no effect: norm is group"
    ]


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.4])
def test_a_published_fraction_needs_no_remark(config: Make, fraction: float) -> None:
    assert not list(remarks(config(methods=("partial-sharing",), withheld_fraction=fraction)))


def test_a_larger_fraction_is_remarked_where_the_method_is_used(config: Make) -> None:
    used = config(methods=("fedavg", "partial-sharing"), withheld_fraction=0.41)
    assert list(remarks(used)) == [
        "withheld_fraction = 0.41 is outside the published range of partial sharing, 0 to 0.4"
    ]
    assert not list(remarks(config(withheld_fraction=0.9)))


def test_the_few_steps_of_a_small_root_set_are_remarked(config: Make) -> None:
    (text,) = remarks(config(methods=("trust",), root_site="r", local_steps=None, local_epochs=1.0))
    assert "a root site with few cases takes few steps" in text
    assert not list(remarks(config(methods=("trust",), root_site="r")))


def test_methods_that_count_every_site_once_do_not_heed_the_weighting(config: Make) -> None:
    methods = ("fedavg", "median", "krum")
    assert list(remarks(config(methods=methods, weighting="uniform"))) == [
        "weighting = 'uniform' has no effect on median, krum: every site counts once, or alone"
    ]
    assert not list(remarks(config(methods=methods)))


def test_what_privacy_changes_is_remarked(config: Make) -> None:
    privacy = PatientPrivacy(delta=1e-3, clip_norm=1.0, sampling_rate=0.1, noise_multiplier=1.0)
    (found,) = list(remarks(replace(config(norm="group"), privacy=privacy)))[1:]
    assert found == (
        "privacy: overlap losses are of every patch, also where the plan has batch_dice; steps "
        "draw patients and not the plan's batches, and no two runs give the same weights"
    )
