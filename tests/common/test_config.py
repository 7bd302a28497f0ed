"""A run's configuration: what does not fit, or does not fit together, is refused in words."""

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from common.codec import decode, read_toml, write_toml
from common.config import RunConfig
from common.errors import ConfigError

TEXT = """
task = "brats-2021"

[federation]
seed = 1
methods = ["fedavg", "fedprox", "local-only"]
rounds = 3
local_steps = 10
held_out = ["site-5"]
min_sites = 4
proximal_mu = 0.01

[model]
configuration = "3d_fullres"
norm = "batch"
batch_norm = "local-statistics"
output = "regions"
base_features = 8
deep_supervision = true

[planning]
rules = "paper"
memory_gb = 8

[training]
optimizer = "sgd"
learning_rate = 0.01
momentum = 0.99
weight_decay = 3e-5
schedule = { name = "poly", power = 0.9 }
gradient_clip_norm = 12.0
augmentation = { preset = "light" }
validation_fraction = 0.2

[evaluation]
hd95 = "pooled"
mirroring = false
calibration_patches = 16
ties = "min"
pictures = true
"""


def plain(**changes: object) -> dict[str, Any]:
    """Return the configuration with values changed, `section__key=value`; None removes one."""
    table: dict[str, Any] = copy.deepcopy(tomllib.loads(TEXT))
    for path, value in changes.items():
        section, _, key = path.partition("__")
        owner = table.setdefault(section, {}) if key else table
        if value is None:
            del owner[key or section]
        else:
            owner[key or section] = value
    return table


def loaded(**changes: object) -> RunConfig:
    return decode(RunConfig, plain(**changes), source="run.toml")


def faults(**changes: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(**changes)
    return str(caught.value).splitlines()


def test_a_whole_configuration_is_read() -> None:
    config = loaded()
    assert config.federation.methods == ("fedavg", "fedprox", "local-only")
    assert config.training.weight_decay == 0.00003
    assert config.planning.memory_gb == 8.0
    assert (config.training.precision, config.simulation) == ("auto", None)


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    config = loaded(simulation__sizes={"site-2": 5, "site-1": 3})
    write_toml(tmp_path / "config.toml", config)
    again = read_toml(RunConfig, tmp_path / "config.toml")
    assert again == config
    assert again.simulation is not None
    assert list(again.simulation.sizes or {}) == ["site-2", "site-1"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("training__learning_rate", -0.01, "greater than 0, found -0.01"),
        ("training__learning_rate", 0, "greater than 0, found 0"),
        ("training__learning_rate", "0.01", "a valid number, found '0.01'"),
        ("training__momentum", 1, "less than 1, found 1"),
        ("training__validation_fraction", 1, "less than 1, found 1"),
        ("training__gradient_clip_norm", 0, "greater than 0, found 0"),
        ("federation__seed", -1, "greater than or equal to 0, found -1"),
        ("federation__rounds", 0, "greater than or equal to 1, found 0"),
        ("federation__rounds", 3.5, "a valid integer, found 3.5"),
        ("federation__proximal_mu", 0, "greater than 0, found 0"),
        ("federation__withheld_fraction", 1, "less than 1, found 1"),
        ("federation__withheld_fraction", -0.1, "greater than or equal to 0, found -0.1"),
        ("federation__average_decay", 1, "less than 1, found 1"),
        ("federation__average_decay", 0, "greater than 0, found 0"),
        ("federation__weighting", "case", "'cases', 'steps' or 'uniform', found 'case'"),
        ("model__base_features", 65, "less than or equal to 64, found 65"),
        ("model__norm", "layer", "'instance', 'batch' or 'group', found 'layer'"),
        ("planning__memory_gb", float("nan"), "a finite number, found nan"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_place(
    path: str, value: object, message: str
) -> None:
    place = path.replace("__", ".")
    assert faults(**{path: value}) == [f"run.toml: {place}: expected {message}"]


def test_an_unknown_method_is_answered_with_the_known_ones() -> None:
    (line,) = faults(federation__methods=["fedavg", "fedsgd"])
    assert line.startswith("run.toml: federation.methods.1: expected 'fedavg', 'fedprox', ")
    assert line.endswith(" or 'local-only', found 'fedsgd'")


@pytest.mark.parametrize("section", ["federation", "model", "planning", "training", "evaluation"])
def test_no_section_may_be_missing(section: str) -> None:
    assert faults(**{section: None}) == [f"run.toml: {section}: missing"]


def test_no_scientific_choice_has_a_default() -> None:
    optional = {
        "federation__proximal_mu",  # required as soon as FedProx is a method
        "federation__local_steps",  # or local_epochs; one of them is required
    }
    table = plain()
    keys = [f"{s}__{key}" for s, v in table.items() if isinstance(v, dict) for key in v]
    for path in sorted(set(keys) - optional):
        assert faults(**{path: None}) == [f"run.toml: {path.replace('__', '.')}: missing"]


def test_defects_of_several_sections_come_in_one_error() -> None:
    lines = faults(training__learning_rate=-1, training__optimiser="sgd", planning__memory_gb=0)
    assert sorted(lines) == [
        "run.toml: planning.memory_gb: expected greater than 0, found 0",
        "run.toml: training.learning_rate: expected greater than 0, found -1",
        "run.toml: training.optimiser: unknown key; did you mean 'optimizer'?",
    ]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "a\n", "é", "a" * 65])
def test_a_site_name_must_be_fit_for_a_file_name(name: str) -> None:
    (line,) = faults(federation__held_out=[name])
    assert line.startswith("run.toml: federation.held_out.0: expected")


@pytest.mark.parametrize("name", ["a", "Site_1", "9.b-c", "a" * 64])
def test_these_site_names_are_fit(name: str) -> None:
    assert loaded(federation__held_out=[name]).federation.held_out == (name,)


def test_fedprox_needs_its_parameter() -> None:
    (line,) = faults(federation__proximal_mu=None)
    assert "federation.proximal_mu: missing; the method fedprox needs it" in line


@pytest.mark.parametrize(
    ("method", "parameter"),
    [
        ("fedadam", "server_optimizer"),
        ("fedavgm", "server_optimizer"),
        ("feddyn", "dynamic_alpha"),
        ("krum", "n_faulty"),
        ("partial-sharing", "withheld_fraction"),
        ("trust", "root_site"),
    ],
)
def test_other_methods_need_theirs(method: str, parameter: str) -> None:
    (line,) = faults(federation__methods=[method])
    assert f"federation.{parameter}: missing; the method {method} needs it" in line


@pytest.mark.parametrize(
    ("method", "fewest"), [("trimmed-mean", 5), ("krum", 7), ("multi-krum", 7), ("bulyan", 11)]
)
def test_a_robust_method_needs_enough_sites_for_its_promise(method: str, fewest: int) -> None:
    changes = {"federation__methods": [method], "federation__n_faulty": 2}
    (line,) = faults(**changes, federation__min_sites=fewest - 1)
    assert f"federation.min_sites: expected at least {fewest}" in line
    assert loaded(**changes, federation__min_sites=fewest).federation.n_faulty == 2


@pytest.mark.parametrize(
    ("final_model", "decay"), [("average", None), ("last", 0.9), ("best", 0.9)]
)
def test_an_average_has_a_decay_and_nothing_else_has(final_model: str, decay: object) -> None:
    changes = {} if decay is None else {"federation__average_decay": decay}
    (line,) = faults(federation__final_model=final_model, **changes)
    assert "federation.average_decay: expected with final_model = 'average', and only so" in line


def test_the_final_model_may_be_an_average() -> None:
    wanted = loaded(federation__final_model="average", federation__average_decay=0.9).federation
    assert (wanted.final_model, wanted.average_decay) == ("average", 0.9)


def test_a_root_site_cannot_be_held_out() -> None:
    changes = {"federation__methods": ["trust"], "federation__root_site": "site-5"}
    (line,) = faults(**changes)
    assert "federation.root_site: expected a site that trains, found 'site-5'" in line
    assert loaded(**changes, federation__held_out=[]).federation.root_site == "site-5"


def test_without_fedprox_its_parameter_may_be_absent() -> None:
    config = loaded(federation__proximal_mu=None, federation__methods=["fedavg"])
    assert config.federation.proximal_mu is None


def test_a_method_runs_once() -> None:
    (line,) = faults(federation__methods=["fedavg", "fedavg"])
    assert "federation.methods: expected every method once" in line


def test_a_held_out_site_cannot_predict_without_scale_and_shift() -> None:
    (line,) = faults(model__batch_norm="local")
    assert "model.batch_norm: 'local' keeps scale and shift at each site" in line
    loaded(model__batch_norm="local", federation__held_out=[])
    loaded(model__batch_norm="local", model__norm="instance")


@pytest.mark.parametrize("batch_norm", ["shared", "local"])
def test_feddyn_does_not_correct_statistics(batch_norm: str) -> None:
    changes = {
        "federation__methods": ["feddyn"],
        "federation__dynamic_alpha": 0.1,
        "federation__held_out": [],
        "model__batch_norm": batch_norm,
    }
    (line,) = faults(**changes)
    assert f"model.batch_norm: '{batch_norm}': the method feddyn corrects what is shared" in line
    loaded(**changes, model__norm="instance")
    loaded(**(changes | {"model__batch_norm": "local-statistics"}))


@pytest.mark.parametrize(
    "simulation",
    [
        {},
        {"data": "folder"},
        {"sizes": {"a": 1}, "csv": "p.csv"},
        {"csv": "p.csv", "dirichlet": {"n_sites": 3, "alpha": 0.5}},
    ],
)
def test_there_is_exactly_one_partition(simulation: dict[str, object]) -> None:
    (line,) = faults(simulation=simulation)
    assert "simulation: expected exactly one of sizes, csv, dirichlet and folds" in line


@pytest.mark.parametrize(
    ("simulation", "line"),
    [
        ({"sizes": {"a": 0}}, "simulation.sizes.a: expected greater than or equal to 1, found 0"),
        (
            {"dirichlet": {"n_sites": 1, "alpha": 0.5}},
            "simulation.dirichlet.n_sites: expected greater than or equal to 2, found 1",
        ),
        (
            {"dirichlet": {"n_site": 2, "alpha": 0.5}},
            "simulation.dirichlet.n_site: unknown key; did you mean 'n_sites'?",
        ),
    ],
)
def test_a_mistake_in_a_partition_is_named(simulation: dict[str, object], line: str) -> None:
    assert f"run.toml: {line}" in faults(simulation=simulation)


def test_a_held_out_site_is_listed_once() -> None:
    (line,) = faults(federation__held_out=["site-5", "site-5"])
    assert line == "run.toml: federation.held_out: expected every site once"


@pytest.mark.parametrize(
    ("augmentation", "line"),
    [
        ({}, "training.augmentation.preset: missing"),
        (
            {"preset": "light", "mirror": 1},
            "training.augmentation.mirror: expected a valid boolean, found 1",
        ),
        (
            {"preset": "light", "channel_dropout": 1},
            "training.augmentation.channel_dropout: expected less than 1, found 1",
        ),
        (
            {"preset": "light", "miror": True},
            "training.augmentation.miror: unknown key; did you mean 'mirror'?",
        ),
        (
            {"preset": "nnUNet"},
            (
                "training.augmentation.preset: expected 'none', 'mirror', 'light', 'nnunet', "
                "'nnunet-v2', 'brats2020', 'brats2020-star' or 'ibsr18', found 'nnUNet'"
            ),
        ),
    ],
)
def test_a_mistake_in_the_augmentation_is_named(augmentation: dict[str, object], line: str) -> None:
    assert faults(training__augmentation=augmentation) == [f"run.toml: {line}"]


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"sites_per_round": 1, "min_sites": 2},
            "federation: sites_per_round: expected at least min_sites = 2, found 1",
        ),
        ({"retries": 11}, "federation.retries: expected less than or equal to 10, found 11"),
        (
            {"late_rounds": -1},
            "federation.late_rounds: expected greater than or equal to 0, found -1",
        ),
        (
            {"exclude_after": 0},
            "federation.exclude_after: expected greater than or equal to 1, found 0",
        ),
        ({"max_norm_ratio": 1.0}, "federation.max_norm_ratio: expected greater than 1, found 1.0"),
        (
            {"min_case_share": 1.5},
            "federation.min_case_share: expected less than or equal to 1, found 1.5",
        ),
        (
            {"upload": "float8"},
            (
                "federation.upload: expected 'float32', 'float16', 'bfloat16' or 'int8', "
                "found 'float8'"
            ),
        ),
        (
            {"upload": "int8", "methods": ["partial-sharing"], "withheld_fraction": 0.4},
            (
                "federation.upload: expected 'float32' with partial-sharing, whose sites send "
                "values and not changes, found 'int8'"
            ),
        ),
    ],
)
def test_a_mistake_in_what_a_round_asks_for_is_named(changed: dict[str, object], line: str) -> None:
    assert faults(**{f"federation__{key}": value for key, value in changed.items()}) == [
        f"run.toml: {line}"
    ]


PRIVACY = {"delta": 1e-3, "clip_norm": 1.0, "sampling_rate": 0.1, "noise_multiplier": 1.0}


def test_a_private_run_may_have_any_norm_and_precision_that_keep_patients_apart() -> None:
    for norm, precision in (("instance", "auto"), ("group", "bfloat16"), ("group", "float32")):
        found = loaded(privacy=PRIVACY, model__norm=norm, training__precision=precision)
        assert found.privacy is not None
        assert found.privacy.patches_per_patient == 1


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"model__norm": "batch"}, "model.norm: expected 'instance' or 'group' with [privacy]"),
        ({"training__precision": "float16"}, "training.precision: expected float32, bfloat16 or"),
        ({"federation__methods": ["dwa"]}, "federation.methods: expected none that looks at"),
        (
            {"training__schedule": {"name": "plateau", "factor": 0.1, "patience_rounds": 2}},
            "training.schedule: expected one that",
        ),
        (
            {"federation__local_steps": None, "federation__local_epochs": 1.0},
            "federation.local_steps: expected with [privacy]",
        ),
        ({"evaluation__personalised_steps": 3}, "evaluation.personalised_steps: expected none"),
    ],
)
def test_what_the_promise_of_privacy_would_not_hold_for_is_refused(
    changed: dict[str, object], line: str
) -> None:
    (found,) = faults(**{"privacy": PRIVACY, "model__norm": "instance", **changed})
    assert line in found


FEW = {
    "training__trained": "biases-and-norms",
    "model__start": {"run": "runs/public", "method": "fedavg"},
    "model__norm": "group",
}


def test_all_parameters_are_trained_unless_the_file_says_otherwise() -> None:
    assert loaded().training.trained == "all"
    assert loaded(**FEW, privacy=PRIVACY).training.trained == "biases-and-norms"


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"model__start": None}, "model.start: expected a finished run with training.trained"),
        ({"model__architecture": "vnet"}, "model.architecture: expected one of unet, resunet, "),
        (
            {
                "federation__methods": ["fedavg"],
                "federation__proximal_mu": None,
                "federation__weighting": "uniform",
                "federation__site_privacy": {
                    "delta": 1e-3,
                    "clip_norm": 1.0,
                    "noise_multiplier": 1.0,
                },
            },
            "federation.site_privacy: expected none with training.trained",
        ),
    ],
)
def test_a_part_of_a_network_is_trained_only_where_that_does_something(
    changed: dict[str, object], line: str
) -> None:
    merged = {**FEW, **changed}
    if merged["model__start"] is None:
        del merged["model__start"]
    (found,) = faults(**merged)
    assert line in found
