"""An update is checked completely before any of it is used."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from common import messages
from common.axes import Weights
from common.codec import decode
from common.config import RunConfig
from common.errors import FederationError, MessageError
from common.fingerprint import empty
from common.messages import Measured, TrainTask, Update, Validated
from common.plan import Configuration, Normalization, Plan
from common.task import Task
from server.events import EventLog, SiteFailed, SiteTrained, read_events
from server.joining import Cohort
from server.rounds import Experiment, train_method
from server.run_folder import RunFolder, latest_checkpoint
from server.sites import Answers, Failure, Reply
from server.validation import check_update, update_norm

TASK = TrainTask(run="r", plan_hash="0", method="fedavg", round=2, proximal_mu=0.0)
SENT: Weights = {"a": np.zeros((2, 3), np.float32), "b": np.array([1.0], np.float32)}


def reply(
    weights: Weights | None, n_cases: int = 5, round_: int = 2, site: str = "s"
) -> Reply[Update]:
    update = Update(round=round_, n_cases=n_cases, n_steps=1, loss=0.5, seconds=1.0)
    return Reply(site, update, weights, 0)


def good(**changed: np.ndarray) -> Weights:
    return {"a": np.ones((2, 3), np.float32), "b": np.array([2.0], np.float32), **changed}


def one_bad(value: float) -> np.ndarray:
    tensor = np.ones((2, 3), np.float32)
    tensor[1, 2] = value
    return tensor


def test_a_good_update_gives_its_weights() -> None:
    weights = good()
    assert check_update(reply(weights), TASK, SENT) is weights


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (one_bad(np.nan), "weights: a: expected finite values"),
        (one_bad(np.inf), "weights: a: expected finite values"),
        (one_bad(-np.inf), "weights: a: expected finite values"),
        (one_bad(2.0**20 + 1), "weights: a: expected magnitudes up to 1048576"),
        (one_bad(-1e30), "weights: a: expected magnitudes up to 1048576"),
        (
            np.ones((3, 2), np.float32),
            r"weights: a: expected float32 \(2, 3\), found float32 \(3, 2\)",
        ),
        (np.ones(6, np.float32), r"weights: a: expected float32 \(2, 3\), found float32 \(6,\)"),
        (
            np.ones((2, 3), np.float64),
            r"weights: a: expected float32 \(2, 3\), found float64 \(2, 3\)",
        ),
        (np.ones((2, 3), np.float16), "weights: a: expected float32 .*, found float16"),
        (np.ones((2, 3), np.int64), "weights: a: expected float32 .*, found int64"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(bad: np.ndarray, message: str) -> None:
    with pytest.raises(MessageError, match=message):
        check_update(reply(good(a=bad)), TASK, SENT)


def test_the_largest_magnitude_that_the_sum_can_hold_is_accepted() -> None:
    check_update(reply(good(a=one_bad(-(2.0**20)))), TASK, SENT)


def test_a_missing_tensor_is_named() -> None:
    weights = good()
    del weights["b"]
    with pytest.raises(MessageError, match=r"expected the tensors that were sent.*\['b'\]"):
        check_update(reply(weights), TASK, SENT)


def test_an_extra_tensor_is_named() -> None:
    weights = good(running_mean=np.zeros(1, np.float32))
    with pytest.raises(MessageError, match=r"tensors that were sent.*\['running_mean'\]"):
        check_update(reply(weights), TASK, SENT)


def test_an_update_without_weights_is_refused() -> None:
    with pytest.raises(MessageError, match="weights: expected, found none"):
        check_update(reply(None), TASK, SENT)


@pytest.mark.parametrize("n_cases", [0, 2**17 + 1])
def test_a_number_of_cases_out_of_bounds_is_refused(n_cases: int) -> None:
    with pytest.raises(MessageError, match=f"n_cases: expected 1 to 131072, found {n_cases}"):
        check_update(reply(good(), n_cases=n_cases), TASK, SENT)


@pytest.mark.parametrize("round_", [1, 3])
def test_an_update_of_another_round_is_refused(round_: int) -> None:
    with pytest.raises(MessageError, match=f"round: expected 2, found {round_}"):
        check_update(reply(good(), round_=round_), TASK, SENT)


def test_a_tensor_without_elements_is_accepted() -> None:
    nothing = {"e": np.zeros((0, 3), np.float32)}
    assert check_update(reply(nothing), TASK, nothing) is nothing


def test_the_norm_of_an_update_is_that_of_the_whole_difference() -> None:
    # 3-4-12: sqrt(9 + 16 + 144) = 13, over two tensors
    returned = {"a": np.array([4.0, -4.0], np.float32), "b": np.array([13.0], np.float32)}
    sent = {"a": np.array([1.0, 0.0], np.float32), "b": np.array([1.0], np.float32)}
    assert update_norm(returned, sent) == 13.0
    assert update_norm(sent, sent) == 0.0


# The same at the scale of a round: what a bad site sends never reaches the aggregate.


class Hospitals:
    """The other side of the wire: sites that answer a training round as they are told."""

    def __init__(self, answers: Mapping[str, tuple[float, int]]) -> None:
        """Take for every site by how much it moves all weights, and its number of cases."""
        self.answers = answers

    def train(
        self, tasks: Mapping[str, tuple[TrainTask, Weights]], timeout_s: float
    ) -> Answers[Update]:
        assert timeout_s == 24 * 3600
        for site, (move, n_cases) in self.answers.items():
            task, weights = tasks[site]
            moved = {name: tensor + np.float32(move) for name, tensor in weights.items()}
            yield reply(moved, n_cases, task.round, site)

    def validate(
        self, tasks: Mapping[str, tuple[messages.ValidateTask, Weights]], timeout_s: float
    ) -> Answers[Validated]:
        assert timeout_s == 24 * 3600
        return (Failure(site, "policy", "none is released") for site in tasks)

    def measure(
        self, task: messages.MeasureTask, n_sites: int, timeout_s: float
    ) -> Answers[Measured]:
        raise NotImplementedError

    def prepare(
        self, task: messages.PrepareTask, sites: Sequence[str]
    ) -> Answers[messages.Prepared]:
        raise NotImplementedError

    def test(
        self, tasks: Mapping[str, tuple[messages.TestTask, Weights]], timeout_s: float
    ) -> Answers[messages.Tested]:
        raise NotImplementedError

    def floor(
        self, task: messages.FloorTask, sites: Sequence[str]
    ) -> Answers[messages.FloorMeasured]:
        raise NotImplementedError


TOY = Task(
    name="toy",
    version=1,
    channels=("A",),
    labels={"background": 0, "one": 1},
    regions={"one": (1,)},
)
PLAN = Plan(
    schema=1,
    hash="0",
    rules="paper",
    channels=("A",),
    transpose=(0, 1, 2),
    normalization=(Normalization(channel="A", scheme="z-score"),),
    configurations={
        "3d_fullres": Configuration(
            spacing_mm=(1.0, 1.0, 1.0),
            median_shape=(8.0, 8.0, 8.0),
            patch_size=(8, 8, 8),
            batch_size=2,
            strides=((2, 2, 2),),
            kernel_sizes=((3, 3, 3), (3, 3, 3)),
            features_per_stage=(4, 4),
            batch_dice=False,
        )
    },
)


def experiment(folder: Path, answers: Mapping[str, tuple[float, int]]) -> Experiment:
    plain = {
        "task": "toy",
        "federation": {
            "seed": 1,
            "methods": ["fedavg"],
            "rounds": 1,
            "local_steps": 1,
            "held_out": [],
            "min_sites": 2,
        },
        "model": {
            "configuration": "3d_fullres",
            "norm": "instance",
            "batch_norm": "local-statistics",
            "output": "labels",
            "base_features": 4,
            "deep_supervision": False,
        },
        "planning": {"rules": "paper", "memory_gb": 8},
        "training": {
            "optimizer": "sgd",
            "learning_rate": 0.01,
            "momentum": 0.9,
            "weight_decay": 0,
            "poly_power": 0.9,
            "gradient_clip_norm": 12,
            "mirror": False,
            "intensity": False,
            "validation_fraction": 0,
        },
        "evaluation": {
            "hd95": "pooled",
            "mirroring": False,
            "calibration_patches": 1,
            "ties": "min",
            "pictures": False,
        },
    }
    measured = {site: Measured(site=site, fingerprint=empty(TOY), version="0") for site in answers}
    run = RunFolder(folder / "run")
    return Experiment(
        config=decode(RunConfig, plain, source="test"),
        task=TOY,
        plan=PLAN,
        cohort=Cohort(training=measured, held_out={}),
        folder=run,
        sites=Hospitals(answers),
        log=EventLog(run.events),
    )


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ((np.nan, 100), "expected finite values"),
        ((np.inf, 100), "expected finite values"),
        ((1e30, 100), "expected magnitudes up to 1048576"),
        ((5.0, 0), "n_cases: expected 1 to 131072, found 0"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_nothing_of_a_refused_update_changes_the_aggregate(
    tmp_path: Path, bad: tuple[float, int], reason: str, place: int
) -> None:
    answers = [("a", (1.0, 1)), ("b", (3.0, 3))]
    answers.insert(place, ("evil", bad))
    run = experiment(tmp_path, dict(answers))
    _, state = train_method(run, "fedavg")
    # biases start at 0: (1 * 1 + 3 * 3) / 4 = 2.5
    assert state["global"]["heads.0.bias"].tolist() == [2.5, 2.5]
    events = [event for _, event in read_events(run.folder.events)]
    assert [e.site for e in events if isinstance(e, SiteTrained)] == ["a", "b"]
    (failed,) = [e for e in events if isinstance(e, SiteFailed) and e.code == "message"]
    assert failed.site == "evil"
    assert reason in failed.reason


def test_a_round_below_the_quorum_ends_the_run_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    run = experiment(tmp_path, {"a": (1.0, 1), "evil": (np.nan, 1), "worse": (1.0, 0)})
    with pytest.raises(FederationError, match="good updates of at least 2 sites, found 1"):
        train_method(run, "fedavg")
    assert latest_checkpoint(run.folder.checkpoints("fedavg")) is None


@pytest.mark.xfail(
    strict=True,
    raises=ValueError,
    reason="each number of cases passes alone, their sum exceeds the bound inside the fold: one "
    "site that claims 131072 cases stops the run",
)
def test_a_site_that_claims_absurdly_many_cases_does_not_stop_the_run(tmp_path: Path) -> None:
    run = experiment(tmp_path, {"evil": (9.0, 2**17), "a": (1.0, 1), "b": (3.0, 3)})
    train_method(run, "fedavg")
