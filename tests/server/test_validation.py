"""An update, or a test, is checked completely before any of it is used."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from common import messages
from common.axes import Weights
from common.config import RunConfig
from common.errors import ConfigError, FederationError, MessageError
from common.evaluation.aggregates import Aggregate, MetricSpread
from common.messages import (
    CaseScore,
    Measured,
    Picture,
    Ranked,
    Tested,
    TrainTask,
    Update,
    Validated,
)
from common.privacy.mechanism import Spent
from common.privacy.settings import PatientPrivacy
from common.ranks.case_ranks import ranks_of
from common.ranks.rank_sums import no_cases, sums_of
from server.event_log import read_events
from server.events import SiteFailed, SiteTrained
from server.experiment import Experiment
from server.planning.joining import join
from server.rounds import train_method
from server.run_folder import latest_checkpoint
from server.sites import Answers, Failure, Reply
from server.validation import (
    check_masked,
    check_ranked,
    check_spent,
    check_tested,
    check_told,
    check_update,
    png_of,
    update_norm,
)

Make: TypeAlias = Callable[..., Experiment]
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
    found = check_update(reply(weights), TASK, SENT, 2**17, "float32")
    assert set(found) == {"a", "b"}
    assert all(found[name] is weights[name] for name in found)


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
        check_update(reply(good(a=bad)), TASK, SENT, 2**17, "float32")


def test_the_largest_magnitude_that_the_sum_can_hold_is_accepted() -> None:
    check_update(reply(good(a=one_bad(-(2.0**20)))), TASK, SENT, 2**17, "float32")


def test_a_missing_tensor_is_named() -> None:
    weights = good()
    del weights["b"]
    with pytest.raises(MessageError, match=r"expected the tensors that were sent.*\['b'\]"):
        check_update(reply(weights), TASK, SENT, 2**17, "float32")


def test_an_extra_tensor_is_named() -> None:
    weights = good(running_mean=np.zeros(1, np.float32))
    with pytest.raises(MessageError, match=r"tensors that were sent.*\['running_mean'\]"):
        check_update(reply(weights), TASK, SENT, 2**17, "float32")


def test_an_update_without_weights_is_refused() -> None:
    with pytest.raises(MessageError, match="weights: expected, found none"):
        check_update(reply(None), TASK, SENT, 2**17, "float32")


@pytest.mark.parametrize("n_cases", [0, 2**17 + 1])
def test_a_number_of_cases_out_of_bounds_is_refused(n_cases: int) -> None:
    with pytest.raises(MessageError, match=f"n_cases: expected 1 to 131072, found {n_cases}"):
        check_update(reply(good(), n_cases=n_cases), TASK, SENT, 2**17, "float32")


@pytest.mark.parametrize("n_cases", [1, 5])
def test_a_site_may_train_with_all_cases_that_it_declared_or_fewer(n_cases: int) -> None:
    assert set(check_update(reply(good(), n_cases=n_cases), TASK, SENT, 5, "float32")) == {"a", "b"}


@pytest.mark.parametrize("n_cases", [6, 2**17])
def test_a_site_that_claims_more_cases_than_it_declared_is_refused(n_cases: int) -> None:
    with pytest.raises(MessageError, match=f"n_cases: expected 1 to 5, found {n_cases}"):
        check_update(reply(good(), n_cases=n_cases), TASK, SENT, 5, "float32")


@pytest.mark.parametrize("n_cases", [0, 1])
def test_a_site_that_declared_no_case_cannot_train(n_cases: int) -> None:
    with pytest.raises(MessageError, match=f"n_cases: expected 1 to 0, found {n_cases}"):
        check_update(reply(good(), n_cases=n_cases), TASK, SENT, 0, "float32")


@pytest.mark.parametrize("round_", [1, 3])
def test_an_update_of_another_round_is_refused(round_: int) -> None:
    with pytest.raises(MessageError, match=f"round: expected 2, found {round_}"):
        check_update(reply(good(), round_=round_), TASK, SENT, 2**17, "float32")


def test_a_tensor_without_elements_is_accepted() -> None:
    nothing = {"e": np.zeros((0, 3), np.float32)}
    found = check_update(reply(nothing), TASK, nothing, 2**17, "float32")
    assert {name: tensor.shape for name, tensor in found.items()} == {"e": (0, 3)}


def test_the_norm_of_an_update_is_that_of_the_whole_difference() -> None:
    # 3-4-12: sqrt(9 + 16 + 144) = 13, over two tensors
    returned = {"a": np.array([4.0, -4.0], np.float32), "b": np.array([13.0], np.float32)}
    sent = {"a": np.array([1.0, 0.0], np.float32), "b": np.array([1.0], np.float32)}
    assert update_norm(returned, sent) == 13.0
    assert update_norm(sent, sent) == 0.0


# What a held-out site answers.

REGIONS = ("WT", "ET")
PNG = "iVBORw0KGgo="  # the first eight bytes of every PNG


def case_score(case: int, region: str, **changed: float) -> CaseScore:
    numbers = {"dice": 0.5, "hd95": 2.0, "sensitivity": 0.5, "specificity": 1.0, **changed}
    return CaseScore(case=case, region=region, **numbers)


def said(metrics: Any, n_cases: int | None, **released: Any) -> Tested:
    nothing: dict[str, Any] = {"scores": (), "pictures": (), "note": ""}
    return Tested(metrics=metrics, n_cases=n_cases, data="5" * 64, **(nothing | released))


def answer(*scores: CaseScore, picture: str = PNG, n_cases: int = 2) -> Tested:
    pictures = (Picture(kind="worst", dice=0.5, png_base64=picture),)
    return said("cases", n_cases, scores=scores, pictures=pictures)


WT1, ET1 = case_score(1, "WT"), case_score(1, "ET")
WT2, ET2 = case_score(2, "WT"), case_score(2, "ET")


def test_one_score_per_declared_case_and_region_is_accepted_in_any_order() -> None:
    check_tested(answer(WT1, ET1, WT2, ET2), REGIONS, 2)
    check_tested(answer(ET2, WT1, WT2, ET1), REGIONS, 2)


def test_the_bounds_of_every_metric_are_accepted() -> None:
    worst = {"dice": 0.0, "hd95": 373.0, "sensitivity": 0.0, "specificity": 0.0}
    best = {"dice": 1.0, "hd95": 0.0, "sensitivity": 1.0, "specificity": 1.0}
    scores = (case_score(1, "WT", **worst), case_score(1, "ET", **best))
    check_tested(answer(*scores, n_cases=1), REGIONS, 1)


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param((WT1, ET1, WT2), id="missing region"),
        pytest.param((WT1, WT2), id="region missing everywhere"),
        pytest.param((WT1, ET1), id="missing case"),
        pytest.param((), id="nothing"),
        pytest.param((WT1, ET1, WT1, ET1), id="duplicate case in the place of another"),
        pytest.param((WT1, ET1, WT2, ET2, WT2), id="duplicate beside all others"),
        pytest.param((WT1, ET1, WT2, case_score(2, "WT", dice=0.75)), id="duplicate that differs"),
        pytest.param(
            (WT1, ET1, WT2, ET2, case_score(3, "WT"), case_score(3, "ET")),
            id="case beyond the declared number",
        ),
        pytest.param(
            (WT1, ET1, case_score(3, "WT"), case_score(3, "ET")), id="case of another number"
        ),
        pytest.param((WT1, ET1, WT2, case_score(2, "TC")), id="unknown region"),
    ],
)
def test_scores_of_other_cases_or_regions_than_declared_are_refused(
    scores: tuple[CaseScore, ...],
) -> None:
    with pytest.raises(MessageError) as caught:
        check_tested(answer(*scores), REGIONS, 2)
    assert str(caught.value) == "scores: expected cases 1 to 2 with WT, ET, each once"


@pytest.mark.parametrize(
    "changed",
    [
        {"dice": 1.5},
        {"dice": -0.1},
        {"sensitivity": 1.01},
        {"sensitivity": -1.0},
        {"specificity": 100.0},
        {"specificity": -1e-9},
        {"hd95": -0.5},
    ],
)
def test_a_metric_out_of_its_range_is_refused_with_its_case_and_region(
    changed: dict[str, float],
) -> None:
    bad = case_score(2, "ET", **changed)
    with pytest.raises(MessageError) as caught:
        check_tested(answer(WT1, ET1, WT2, bad), REGIONS, 2)
    assert str(caught.value) == "scores: case 2, ET: out of range"


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"GIF89a", b"<svg>", b" \x89PNG\r\n\x1a\n"])
def test_a_picture_that_is_no_png_is_refused(content: bytes) -> None:
    picture = base64.b64encode(content).decode()
    with pytest.raises(MessageError) as caught:
        check_tested(answer(WT1, ET1, picture=picture, n_cases=1), REGIONS, 1)
    assert str(caught.value) == "picture 'worst': expected PNG"


@pytest.mark.parametrize("text", ["no base64!", "iVBORw0KGgo", "iVBORw0KGgo=\n", "*" + PNG])
def test_a_picture_that_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(MessageError) as caught:
        check_tested(answer(WT1, ET1, picture=text, n_cases=1), REGIONS, 1)
    assert str(caught.value) == "picture 'worst': expected base64"


def test_a_picture_of_letters_outside_ascii_is_refused() -> None:
    with pytest.raises(MessageError, match="picture 'worst': expected base64"):
        check_tested(answer(WT1, ET1, picture="é" + PNG, n_cases=1), REGIONS, 1)


def test_the_bytes_of_a_picture_are_those_that_were_sent() -> None:
    picture = Picture(kind="best", dice=1.0, png_base64="iVBORw0KGgoAAQL/")
    assert png_of(picture) == b"\x89PNG\r\n\x1a\n\x00\x01\x02\xff"


def test_a_site_without_pictures_is_accepted() -> None:
    check_tested(said("cases", 1, scores=(WT1, ET1)), REGIONS, 1)


@pytest.mark.parametrize("level", ["ranks", "aggregates"])
def test_below_the_level_of_cases_a_site_sends_no_metric(level: str) -> None:
    check_tested(said(level, 2), REGIONS, 2)
    check_tested(said(level, 2), REGIONS, None)
    picture = Picture(kind="worst", dice=0.5, png_base64=PNG)
    for released in ({"scores": (WT1,)}, {"pictures": (picture,)}):
        with pytest.raises(MessageError, match="expected neither scores nor pictures"):
            check_tested(said(level, 2, **released), REGIONS, 2)


def test_another_number_of_cases_than_was_declared_is_refused() -> None:
    with pytest.raises(MessageError, match="n_cases: expected 3, found 2"):
        check_tested(said("ranks", 2), REGIONS, 3)


def test_a_site_of_whose_cases_only_a_sum_is_seen_does_not_tell_their_number() -> None:
    check_tested(said("secure-sum", None), REGIONS, 2)
    check_tested(said("secure-sum", None), REGIONS, None)
    with pytest.raises(MessageError, match="n_cases: expected none"):
        check_tested(said("secure-sum", 2), REGIONS, 2)
    with pytest.raises(MessageError, match="n_cases: expected some"):
        check_tested(said("ranks", None), REGIONS, None)


# What a held-out site ranked.

POOL = no_cases(("a", "b"), REGIONS, "min")
WORD = "5" * 64
SPREAD = MetricSpread(mean=0.5, median=0.5, q1=0.25, q3=0.75)


def ranked(**changed: Any) -> Ranked:
    """Return an answer of a site with two cases, in all of which a is better."""
    losses = np.array([[[1.0] * 4] * 2, [[2.0] * 4] * 2])
    sums = sums_of(POOL, "h", ranks_of(losses, "min"))
    return Ranked(**({"data": WORD, "sums": sums} | changed))


def aggregate(**changed: Any) -> Aggregate:
    fields = {"method": "a", "region": "WT", "n_cases": 2, "n_empty_references": 1}
    return Aggregate(**(fields | {"dice": SPREAD, "hd95": SPREAD} | changed))


EVERY = tuple(aggregate(method=method, region=region) for method in "ab" for region in REGIONS)


def test_beside_a_masked_vector_a_site_tells_no_sum() -> None:
    check_masked(ranked(sums=POOL), POOL, WORD)
    for wrong in (ranked(), ranked(sums=POOL, aggregates=EVERY)):
        with pytest.raises(MessageError, match="sums: expected masked ones only"):
            check_masked(wrong, POOL, WORD)
    with pytest.raises(MessageError, match="data: expected those that were tested"):
        check_masked(ranked(sums=POOL), POOL, "6" * 64)


def test_sums_of_a_site_that_told_no_number_of_cases_are_its_own() -> None:
    check_ranked(ranked(aggregates=EVERY), "h", POOL, None, WORD)
    with pytest.raises(MessageError, match="sums: expected those of i's 2 cases"):
        check_ranked(ranked(), "i", POOL, None, WORD)


def test_sums_of_all_cases_with_or_without_aggregates_are_accepted() -> None:
    check_ranked(ranked(), "h", POOL, 2, WORD)
    check_ranked(ranked(aggregates=EVERY), "h", POOL, 2, WORD)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": "6" * 64}, "data: expected those that were tested"),
        ({"sums": no_cases(("a", "c"), REGIONS, "min")}, "sums: expected the methods"),
        ({"sums": no_cases(("a", "b"), ("WT",), "min")}, "sums: expected the methods"),
        ({"sums": no_cases(("a", "b"), REGIONS, "average")}, "sums: expected the methods"),
        ({"sums": POOL}, "expected those of h's 2 cases"),
        ({"aggregates": EVERY[:-1]}, "expected every method and region once, or none"),
        ({"aggregates": (*EVERY, EVERY[0])}, "expected every method and region once, or none"),
        ({"aggregates": (*EVERY[:-1], aggregate(method="b", region="ET", n_cases=3))}, "range"),
        (
            {"aggregates": (*EVERY[:-1], aggregate(method="b", region="ET", n_empty_references=3))},
            "aggregates: b, ET: out of range",
        ),
        (
            {
                "aggregates": (
                    *EVERY[:-1],
                    aggregate(method="b", region="ET", dice=replace(SPREAD, mean=1.5)),
                )
            },
            "aggregates: b, ET: out of range",
        ),
    ],
)
def test_sums_of_something_else_than_was_asked_for_are_refused(
    changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(MessageError, match=message):
        check_ranked(ranked(**changed), "h", POOL, 2, WORD)


def test_sums_under_another_sites_name_are_refused() -> None:
    with pytest.raises(MessageError, match="expected those of g's 2 cases"):
        check_ranked(ranked(), "g", POOL, 2, WORD)


# The same at the scale of a round: what a bad site sends never reaches the aggregate.


class Hospitals:
    """The other side of the wire: sites that answer a training round as they are told."""

    def __init__(
        self,
        answers: Mapping[str, tuple[float, int]],
        declared: Callable[[str, int], Measured],
    ) -> None:
        """Take for every site by how much it moves all weights, and its number of cases."""
        self.answers, self.declared = answers, declared

    def train(
        self,
        tasks: Mapping[str, tuple[TrainTask, Weights]],
        timeout_s: float,
        *,
        late_s: float,
        retries: int,
    ) -> Answers[Update]:
        assert (timeout_s, late_s, retries) == (24 * 3600, 0, 1)
        for site, (move, n_cases) in self.answers.items():
            task, weights = tasks[site]
            moved = {name: tensor + np.float32(move) for name, tensor in weights.items()}
            yield reply(moved, n_cases, task.round, site)

    def training(self) -> Mapping[str, TrainTask]:
        return {}

    def validate(
        self, tasks: Mapping[str, tuple[messages.ValidateTask, Weights]], timeout_s: float
    ) -> Answers[Validated]:
        assert timeout_s == 24 * 3600
        return (Failure(site, "policy", "none is released") for site in tasks)

    def measure(
        self, task: messages.MeasureTask, n_sites: int, timeout_s: float
    ) -> Answers[Measured]:
        assert (task.task.name, n_sites, timeout_s) == ("toy", 2, 24 * 3600)
        for site, (_, n_cases) in self.answers.items():
            yield Reply(site, self.declared(site, n_cases), None, 0)

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


@pytest.fixture
def experiment(toy_experiment: Make, declared: Callable[[str, int], Measured]) -> Make:
    """Return what makes an experiment of hospitals that answer as they are told."""

    def make(
        folder: Path, answers: Mapping[str, tuple[float, int]], n_declared: int = 100
    ) -> Experiment:
        hospitals = Hospitals(answers, declared)
        return toy_experiment(folder, hospitals, dict.fromkeys(answers, n_declared))

    return make


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ((np.nan, 100), "expected finite values"),
        ((np.inf, 100), "expected finite values"),
        ((1e30, 100), "expected magnitudes up to 1048576"),
        ((5.0, 0), "n_cases: expected 1 to 100, found 0"),
        ((5.0, 101), "n_cases: expected 1 to 100, found 101"),
        ((5.0, 2**17), "n_cases: expected 1 to 100, found 131072"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_nothing_of_a_refused_update_changes_the_aggregate(
    tmp_path: Path,
    experiment: Make,
    bad: tuple[float, int],
    reason: str,
    place: int,
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


@pytest.mark.parametrize(
    ("weighting", "bias"),
    [("cases", 2.5), ("uniform", 2.0), ("steps", 2.0)],  # every site took its one step
)
def test_the_configuration_says_what_a_site_counts(
    tmp_path: Path, experiment: Make, weighting: str, bias: float
) -> None:
    run = experiment(tmp_path, {"a": (1.0, 1), "b": (3.0, 3)})
    federation = replace(run.config.federation, weighting=weighting)
    run = replace(run, config=replace(run.config, federation=federation))
    _, state = train_method(run, "fedavg")
    assert state["global"]["heads.0.bias"].tolist() == [bias, bias]


def test_a_site_that_claims_other_steps_than_its_own_is_refused(
    tmp_path: Path, experiment: Make
) -> None:
    # the sites say that they took one step; an epoch of three cases in batches of two has two
    run = experiment(tmp_path, {"a": (1.0, 1), "c": (5.0, 2), "b": (3.0, 3)})
    federation = replace(
        run.config.federation, weighting="steps", local_steps=None, local_epochs=1.0
    )
    run = replace(run, config=replace(run.config, federation=federation))
    _, state = train_method(run, "fedavg")
    assert state["global"]["heads.0.bias"].tolist() == [3.0, 3.0]
    events = [event for _, event in read_events(run.folder.events)]
    (failed,) = [e for e in events if isinstance(e, SiteFailed) and e.code == "message"]
    assert (failed.site, failed.reason) == (
        "b",
        "n_steps: expected 2 of a site with 3 cases, found 1",
    )


def test_a_round_below_the_quorum_ends_the_run_and_leaves_no_checkpoint(
    tmp_path: Path, experiment: Make
) -> None:
    run = experiment(tmp_path, {"a": (1.0, 1), "evil": (np.nan, 1), "worse": (1.0, 0)})
    with pytest.raises(FederationError, match="good updates of at least 2 sites, found 1"):
        train_method(run, "fedavg")
    kept = latest_checkpoint(run.folder.checkpoints("fedavg"))
    assert kept is not None
    assert kept[0] == 0  # what the sites began with


def with_root(run: Experiment, root: str) -> Experiment:
    federation = replace(run.config.federation, methods=("trust",), root_site=root)
    return replace(run, config=replace(run.config, federation=federation))


def test_without_a_good_update_of_the_root_site_a_round_does_not_count(
    tmp_path: Path, experiment: Make
) -> None:
    answers = {"a": (1.0, 1), "b": (3.0, 3), "root": (np.nan, 1)}
    run = with_root(experiment(tmp_path, answers), "root")
    with pytest.raises(FederationError, match=r"trust, round 1 .*: expected a good update of root"):
        train_method(run, "trust")
    kept = latest_checkpoint(run.folder.checkpoints("trust"))
    assert kept is not None
    assert kept[0] == 0


def test_the_root_site_decides_how_far_a_round_moves(tmp_path: Path, experiment: Make) -> None:
    answers = {"a": (-9.0, 1), "b": (4.0, 3), "root": (0.5, 1)}
    run = with_root(experiment(tmp_path, answers), "root")
    _, state = train_method(run, "trust")
    assert state["global"]["heads.0.bias"].tolist() == pytest.approx([0.5, 0.5])


def test_a_root_site_that_is_not_there_is_a_mistake_in_the_configuration(
    tmp_path: Path, experiment: Make
) -> None:
    run = with_root(experiment(tmp_path, {"a": (1.0, 9), "b": (1.0, 9)}), "c")
    with pytest.raises(ConfigError, match="one of the training sites a, b, found 'c'"):
        join(run.sites, run.config, run.task, run.folder, run.log)


def test_a_site_that_claims_absurdly_many_cases_does_not_stop_the_run(
    tmp_path: Path, experiment: Make
) -> None:
    answers = {"evil": (9.0, 2**17), "a": (1.0, 1), "b": (3.0, 3)}
    run = experiment(tmp_path, answers, n_declared=3)
    _, state = train_method(run, "fedavg")
    # biases start at 0: (1 * 1 + 3 * 3) / 4 = 2.5
    assert state["global"]["heads.0.bias"].tolist() == [2.5, 2.5]


def test_sites_that_declare_more_cases_than_a_mean_can_hold_do_not_join(
    tmp_path: Path, experiment: Make
) -> None:
    run = experiment(tmp_path, {"a": (1.0, 2**16), "b": (1.0, 2**16)})
    cohort = join(run.sites, run.config, run.task, run.folder, run.log)
    assert list(cohort.training) == ["a", "b"]
    run = experiment(tmp_path / "larger", {"a": (1.0, 2**16), "b": (1.0, 2**16 + 1)})
    with pytest.raises(
        FederationError, match="training cases: expected at most 131072, found 131073"
    ):
        join(run.sites, run.config, run.task, run.folder, run.log)


PRIVACY = PatientPrivacy(delta=1e-3, clip_norm=0.1, sampling_rate=0.5, epsilon=8.0)
PAID = Spent(epsilon=2.0, delta=1e-3, budget_used=0.5)


def private(config: RunConfig) -> RunConfig:
    return replace(config, model=replace(config.model, norm="group"), privacy=PRIVACY)


@pytest.mark.parametrize(
    ("spent", "refusal"),
    [
        (None, "spent: expected with [privacy], found none"),
        (replace(PAID, delta=1e-2), "spent: expected delta 0.001, found 0.01"),
        (replace(PAID, epsilon=8.5), "spent: expected an epsilon up to 8, found 8.5"),
    ],
)
def test_a_private_update_says_what_it_cost_as_promised(tiny_study, spent, refusal: str):
    config = private(tiny_study.config)
    with pytest.raises(MessageError) as refused:
        check_spent(spent, config)
    assert str(refused.value) == refusal
    check_spent(PAID, config)
    with pytest.raises(MessageError, match="expected none without"):
        check_spent(PAID, tiny_study.config)


def test_a_loss_is_told_without_privacy_and_only_so(tiny_study):
    update = Update(round=1, n_cases=5, n_steps=1, loss=0.5, seconds=1.0)
    check_told(update, tiny_study.config)
    check_told(replace(update, loss=None, spent=PAID), private(tiny_study.config))
    with pytest.raises(MessageError, match="loss: expected none"):
        check_told(replace(update, spent=PAID), private(tiny_study.config))
    with pytest.raises(MessageError, match="loss: expected, found none"):
        check_told(replace(update, loss=None), tiny_study.config)
