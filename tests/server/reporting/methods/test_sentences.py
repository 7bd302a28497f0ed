"""The methods section: every choice that a configuration can make has words, and its paper."""

import re
from pathlib import Path
from typing import get_args

import pytest

import server.reporting.methods
from common.augmentation import PRESETS
from common.codec import decode
from common.config import ArchitectureName, RunConfig
from common.federation import MethodName
from common.planning.plan import Configuration, Plan
from common.task import load_task
from server.reporting.methods.evaluation import held_out_test, scoring
from server.reporting.methods.federation import aggregation, rounds
from server.reporting.methods.network import network
from server.reporting.methods.optimisation import loss, optimiser
from server.reporting.methods.preparation import prepared, varied
from server.reporting.methods.privacy import privacy
from server.reporting.model_size import ModelSize
from server.reporting.references import cite, cited_in, numbered, references
from server.reporting.sources import without_sources

FEDERATION = {
    "seed": 3,
    "methods": ["fedavg"],
    "rounds": 7,
    "local_steps": 40,
    "held_out": ["east"],
    "min_sites": 11,
    "proximal_mu": 0.25,
    "dynamic_alpha": 0.05,
    "server_optimizer": {"learning_rate": 0.1},
    "n_faulty": 2,
    "root_site": "north",
    "withheld_fraction": 0.3,
}
MODEL = {
    "configuration": "3d_fullres",
    "norm": "batch",
    "batch_norm": "local-statistics",
    "output": "regions",
    "base_features": 16,
    "deep_supervision": False,
}
TRAINING = {
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "momentum": 0.99,
    "weight_decay": 3e-5,
    "gradient_clip_norm": 12.0,
    "validation_fraction": 0.2,
    "schedule": {"name": "poly", "power": 0.9},
    "augmentation": {"preset": "nnunet"},
}
EVALUATION = {
    "hd95": "max",
    "mirroring": True,
    "calibration_patches": 24,
    "ties": "min",
    "pictures": False,
}
STAGES = Configuration(
    spacing_mm=(3.5, 3.0, 3.0),
    median_shape=(38.0, 46.0, 40.0),
    patch_size=(40, 48, 40),
    batch_size=2,
    strides=((2, 2, 2),),
    kernel_sizes=((3, 3, 3), (3, 3, 3)),
    features_per_stage=(8, 16),
    batch_dice=False,
    deep_supervision_weights=(1.0,),
)
TASK = load_task("brats-2021")
WITHOUT_PAPER = {"local-only"}


def config(**sections: dict[str, object]) -> RunConfig:
    """Return a configuration with some fields changed; None takes a field away."""
    plain = {
        "task": "brats-2021",
        "federation": FEDERATION,
        "model": MODEL,
        "planning": {"rules": "paper", "memory_gb": 8},
        "training": TRAINING,
        "evaluation": EVALUATION,
    }
    for name, fields in sections.items():
        merged = {**plain.get(name, {}), **fields}
        plain[name] = {key: value for key, value in merged.items() if value is not None}
    return decode(RunConfig, plain, source="test")


def text_of(sentences: list[str]) -> str:
    text = " ".join(sentences)
    return without_sources(numbered(text, cited_in([text])))


@pytest.mark.parametrize("method", get_args(MethodName))
def test_every_method_is_described_with_its_paper(method: str) -> None:
    said = aggregation(config(federation={"methods": [method]}))
    assert said[0].endswith(".")
    assert bool(cited_in(said)) == (method not in WITHOUT_PAPER)


@pytest.mark.parametrize("architecture", get_args(ArchitectureName))
def test_every_architecture_is_named_with_its_paper(architecture: str) -> None:
    size = ModelSize("models/fedavg.safetensors", 1_234_567, 12)
    said = network(config(model={"architecture": architecture}), TASK, {"3d_fullres": STAGES}, size)
    assert len(cited_in(said)) >= 2
    assert "has 1,234,567 parameters in 12 tensors." in text_of(said)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_augmentation_says_how_often_and_how_strongly(preset: str) -> None:
    said = text_of(varied(config(training={"augmentation": {"preset": preset}}), {"": STAGES}))
    assert said.startswith("Patches were drawn at random places, 33 % of each batch around")
    assert ("Each with its probability per patch: " in said) == (preset != "none")


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"name": "constant"}, "stayed the same."),
        ({"name": "poly", "power": 0.8}, "(1 - t) to the power of 0.8"),
        ({"name": "cosine", "warmup": 0.05, "final": 0.1}, "rose over the first 5 % of all steps"),
        ({"name": "steps", "factor": 0.2, "at": [0.5, 0.75]}, "0.2 after 50 %, 75 % of all steps"),
        ({"name": "plateau", "factor": 0.1, "patience_rounds": 4}, "0.0001 for 4 rounds"),
    ],
)
def test_every_schedule_is_described_with_its_numbers(schedule: dict, words: str) -> None:
    assert words in text_of(optimiser(config(training={"schedule": schedule})))


def test_every_loss_term_is_named_with_its_numbers_and_paper() -> None:
    terms = [
        {"term": "cross-entropy"},
        {"term": "dice", "weight": 0.5},
        {"term": "top-k", "percent": 10.0},
        {"term": "focal", "gamma": 2.0},
        {"term": "tversky", "alpha": 0.3, "beta": 0.7},
        {"term": "focal-tversky", "alpha": 0.7, "beta": 0.3, "gamma": 0.75},
    ]
    assert text_of(loss(config(training={"loss": terms}))) == (
        "The loss was the sum of cross-entropy [1], 0.5 times soft Dice [2, 1], cross-entropy of "
        "the worst 10 % of voxels [3], the focal loss with gamma 2 [4], the Tversky loss with "
        "alpha 0.3 and beta 0.7 [5] and the focal Tversky loss with alpha 0.7, beta 0.3 and gamma "
        "0.75 [6]."
    )


def test_what_a_round_asks_for_is_said_with_its_numbers() -> None:
    asked = {
        "local_epochs": 1.5,
        "local_steps": None,
        "min_case_share": 0.8,
        "late_rounds": 2,
        "exclude_after": 3,
        "max_norm_ratio": 10.0,
        "sites_per_round": 12,
        "upload": "int8",
        "final_model": "average",
        "average_decay": 0.9,
        "early_stop": {"patience_rounds": 5},
    }
    said = text_of(rounds(config(federation=asked)))
    for words in (
        "With the seed 3, there were up to 7 rounds",
        "1.5 epochs of its own cases",
        "at least 11 sites and of sites with 80 % of the cases, within 86400 s.",
        "up to 2 rounds late",
        "after 3 failed rounds",
        "10 times as long",
        "12 were drawn",
        "8-bit whole numbers",
        "decay 0.9",
        "not risen by 0.001 for 5 rounds",
    ):
        assert words in said


def test_each_mechanism_of_privacy_is_said_with_its_unit_and_numbers() -> None:
    secure = {"secure_aggregation": {"min_sites": 5}}
    patients = {"epsilon": 3.0, "delta": 0.001, "clip_norm": 0.1, "sampling_rate": 0.125}
    said = text_of(privacy(config(federation=secure, model={"norm": "group"}, privacy=patients)))
    assert "patient-level differential privacy by DP-SGD [1]" in said
    assert "with probability 0.125" in said
    assert "at most epsilon = 3 at delta = 0.001." in said
    assert "only sums of at least 5 sites" in said
    of_sites = {
        "weighting": "uniform",
        "site_privacy": {"clip_norm": 2.0, "noise_multiplier": 1.5, "delta": 0.01},
    }
    said = text_of(privacy(config(federation=of_sites)))
    assert "L2 norm of 2 and added normal noise of 1.5 times" in said
    assert "site-level differential privacy at delta = 0.01" in said
    assert text_of(privacy(config())).startswith("Neither differential privacy nor")


def test_test_and_metrics_follow_the_configuration() -> None:
    assert "averaged over all mirrorings" in text_of(held_out_test(config()))
    assert "from 24 of its unlabelled patches" in text_of(held_out_test(config()))
    assert "running statistics" not in text_of(held_out_test(config(model={"norm": "instance"})))
    assert "the larger of the two directed 95th percentiles" in text_of(scoring(config()))


def test_optional_preparation_is_told_with_its_numbers() -> None:
    plan = decode(Plan, PLAN, source="test")
    said = text_of(prepared(plan))
    assert "5 iterations of anisotropic diffusion with conductance 0.5" in said
    assert "percentiles 1 and 99" in said
    assert "t1 and t2 were each normalised to mean zero and unit variance over its" in said
    assert "CT was clipped to -100 to 240 HU, less 80 HU, and divided by 40 HU" in said


PLAN = {
    "schema": 1,
    "hash": "",
    "rules": "paper",
    "planned_for": {"n_training_cases": 20, "n_foreground_classes": 3, "memory_gb": 8.0},
    "channels": ["t1", "t2", "CT"],
    "transpose": [0, 1, 2],
    "preparation": {
        "n4_bias_correction": True,
        "diffusion": {"n_iterations": 5, "conductance": 0.5},
        "clip_percentiles": [1.0, 99.0],
    },
    "normalization": [
        {"channel": "t1", "scheme": "masked-z-score"},
        {"channel": "t2", "scheme": "masked-z-score"},
        {
            "channel": "CT",
            "scheme": "ct",
            "clip_low": -100.0,
            "clip_high": 240.0,
            "mean": 80.0,
            "std": 40.0,
        },
    ],
    "configurations": {},
}


def test_every_paper_of_the_list_is_cited_somewhere_and_complete() -> None:
    folder = Path(server.reporting.methods.__file__).parent
    text = "".join(path.read_text() for path in sorted(folder.glob("*.py")))
    assert [key for key in references() if f'"{key}"' not in text and f"'{key}'" not in text] == []
    assert [key for key, paper in references().items() if not re.search(r"\d{4}\.", paper)] == []


def test_papers_are_numbered_in_the_order_of_the_text() -> None:
    text = f"One {cite('yin2018')}, two {cite('li2020', 'yin2018')}."
    assert numbered(text, cited_in([text])) == "One [1], two [2, 1]."
    with pytest.raises(KeyError):
        cite("nobody2020")
