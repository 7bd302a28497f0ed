"""A run that nobody may see single updates of is refused what needs them, with the reason."""

from dataclasses import replace

import pytest

from common.config import RunConfig
from common.federation import ServerOptimizer
from common.secure_aggregation import LOOKS_AT_SINGLE_UPDATES, SecureAggregation

SECURE = SecureAggregation(min_sites=3)
SETTINGS: dict[str, object] = {
    "dynamic_alpha": 0.01,
    "n_faulty": 0,
    "root_site": "alpha",
    "withheld_fraction": 0.1,
}


def config_of(tiny_study, **federation: object) -> RunConfig:
    wanted = {"min_sites": 3, "secure_aggregation": SECURE, **federation}
    return replace(tiny_study.config, federation=replace(tiny_study.config.federation, **wanted))


@pytest.mark.parametrize("method", sorted(LOOKS_AT_SINGLE_UPDATES))
def test_methods_that_look_at_single_updates_are_refused(tiny_study, method: str) -> None:
    told = f"federation.methods: {method} {LOOKS_AT_SINGLE_UPDATES[method]}"
    with pytest.raises(ValueError, match=told):
        config_of(tiny_study, methods=(method,), **SETTINGS)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"upload": "int8"}, "federation.upload: expected 'float32' with secure_aggregation"),
        ({"max_norm_ratio": 3.0}, "federation.max_norm_ratio: expected none"),
        ({"late_rounds": 1}, "federation.late_rounds: expected 0"),
        ({"min_sites": 2}, "federation.min_sites: expected at least 3, .* found 2"),
    ],
)
def test_settings_that_need_single_updates_are_refused(tiny_study, wrong, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        config_of(tiny_study, **wrong)


def test_what_needs_only_the_sum_is_allowed(tiny_study) -> None:
    config = config_of(
        tiny_study,
        methods=("fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad"),
        proximal_mu=0.1,
        server_optimizer=ServerOptimizer(learning_rate=1.0),
        weighting="steps",
        sites_per_round=3,
        final_model="best",
        exclude_after=3,
    )
    assert config.federation.secure_aggregation == SECURE


def test_running_statistics_have_no_range_to_be_added_within(tiny_study) -> None:
    config = config_of(tiny_study)
    with pytest.raises(ValueError, match="'shared' sends running statistics"):
        replace(config, model=replace(config.model, batch_norm="shared"))
    assert replace(config, model=replace(config.model, batch_norm="shared", norm="instance"))
