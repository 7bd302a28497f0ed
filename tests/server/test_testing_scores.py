"""Scores of held-out sites: numbered cases in, one table per method out."""

import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from common import messages
from common.axes import Weights
from common.codec import decode
from common.config import RunConfig
from common.errors import FederationError
from common.evaluation.mean_scores import mean_table
from common.evaluation.metrics import RegionScore
from common.evaluation.scores import ScoreTable, read_scores
from common.federation import MethodName
from common.planning.fingerprint import empty
from common.planning.plan import Normalization, Plan
from common.ranks.rank_sums import no_cases, sums_of_tables
from common.ranks.ranking import Ranking
from common.task import load_task
from server import ranking, testing
from server.event_log import EventLog, read_events
from server.events import HeldOutScored, PictureReleased, RanksReleased
from server.experiment import Experiment
from server.planning.cohort import Cohort
from server.run_folder import RunFolder, load_model
from server.sites import Answers, Failure, Reply
from server.strategies import State, build_strategy

Make = Callable[..., Experiment]
CONFIG = """
task = "hippocampus"
[federation]
seed = 1
methods = ["fedavg", "local-only", "fedprox"]
proximal_mu = 0.1
rounds = 1
local_steps = 1
held_out = ["h"]
min_sites = 2
[model]
configuration = "3d_fullres"
norm = "instance"
batch_norm = "local-statistics"
output = "labels"
base_features = 4
deep_supervision = false
[planning]
rules = "paper"
memory_gb = 8
[training]
optimizer = "sgd"
learning_rate = 0.01
momentum = 0.9
weight_decay = 0
schedule = { name = "poly", power = 0.9 }
gradient_clip_norm = 12
augmentation = { preset = "none" }
validation_fraction = 0
[evaluation]
hd95 = "pooled"
mirroring = false
calibration_patches = 1
ties = "min"
pictures = true
"""
REGIONS = ("anterior", "posterior")
TWELVE = tuple(range(1, 13))
WORD = "5" * 64  # of the site's data
PNG = "iVBORw0KGgo="  # the first eight bytes of every PNG


def score(dice: float, hd95: float, sensitivity: float, specificity: float) -> RegionScore:
    return RegionScore(dice=dice, hd95=hd95, sensitivity=sensitivity, specificity=specificity)


A = {
    "case-0001": {"WT": score(0.5, 4.0, 1.0, 0.5), "ET": score(1.0, 0.0, 1.0, 1.0)},
    "case-0002": {"WT": score(0.25, 8.0, 0.0, 1.0), "ET": score(0.0, 373.0, 0.0, 1.0)},
}
B = {
    "case-0001": {"WT": score(1.0, 2.0, 0.5, 1.0), "ET": score(0.0, 373.0, 0.0, 1.0)},
    "case-0002": {"WT": score(0.75, 0.0, 1.0, 1.0), "ET": score(0.0, 373.0, 0.0, 0.5)},
}


def test_every_metric_is_averaged_over_the_models_per_case_and_region() -> None:
    assert mean_table([A, B]) == {
        "case-0001": {"WT": score(0.75, 3.0, 0.75, 0.75), "ET": score(0.5, 186.5, 0.5, 1.0)},
        "case-0002": {"WT": score(0.5, 4.0, 0.5, 1.0), "ET": score(0.0, 373.0, 0.0, 0.75)},
    }


def test_the_order_of_cases_and_regions_is_that_of_the_first_model() -> None:
    turned = {case: dict(reversed(B[case].items())) for case in reversed(B)}
    table = mean_table([A, turned])
    assert list(table) == ["case-0001", "case-0002"]
    assert list(table["case-0001"]) == ["WT", "ET"]
    assert table == mean_table([A, B])


def test_one_model_is_its_own_mean() -> None:
    assert mean_table([A]) == A
    assert mean_table([{}]) == {}


class HeldOutSite:
    """The other side of the wire: scores a model by its only weight, twelve cases, two regions."""

    def __init__(
        self, picture: str = PNG, cases: Sequence[int] = TWELVE, *, fails: bool = False
    ) -> None:
        """Take the picture to release, in base64, the cases, and whether the site fails."""
        self.picture, self.cases, self.fails = picture, cases, fails
        self.asked: list[tuple[str, bool]] = []

    def test(
        self, tasks: Mapping[str, tuple[messages.TestTask, Weights]], timeout_s: float
    ) -> Answers[messages.Tested]:
        assert timeout_s == 24 * 3600
        for site, (task, weights) in tasks.items():
            self.asked.append((task.method, task.pictures))
            if self.fails:
                yield Failure(site, "data", "the site's log says more")
                continue
            dice = float(weights["w"][0])
            scores = self.scores_of(dice)
            best = messages.Picture(kind="best", dice=dice, png_base64=self.picture)
            pictures = (best,) if task.pictures else ()
            yield Reply(site, self.answer(scores, pictures), None, 0)

    def scores_of(self, dice: float) -> tuple[messages.CaseScore, ...]:
        return tuple(
            messages.CaseScore(
                case=case,
                region=region,
                dice=dice,
                hd95=8 * dice,
                sensitivity=0.5,
                specificity=0.75,
            )
            for case in self.cases
            for region in REGIONS
        )

    def answer(
        self, scores: tuple[messages.CaseScore, ...], pictures: tuple[messages.Picture, ...]
    ) -> messages.Tested:
        return messages.Tested(
            metrics="cases", n_cases=12, data=WORD, scores=scores, pictures=pictures, note="n"
        )


@pytest.fixture
def experiment(toy_plan: Plan) -> Make:
    """Return what makes an experiment with one held-out site and nobody who trains."""
    return partial(_experiment, toy_plan)


def _experiment(toy_plan: Plan, folder: Path, site: HeldOutSite) -> Experiment:
    task = load_task("hippocampus")
    plan = replace(
        toy_plan,
        channels=("MRI",),
        normalization=(Normalization(channel="MRI", scheme="z-score"),),
    )
    run = RunFolder(folder / "run")
    fingerprint = replace(
        empty(task),
        n_cases=12,
        shapes_voxels=({8: 12},) * 3,
        spacings_ticks=({10_000: 12},) * 3,
        extents_ticks=({80_000: 12},) * 3,
    )
    held_out = {"h": messages.Measured(site="h", fingerprint=fingerprint, version="0")}
    return Experiment(
        config=decode(RunConfig, tomllib.loads(CONFIG), source="test"),
        task=task,
        plan=plan,
        cohort=Cohort(training={}, held_out=held_out),
        folder=run,
        sites=site,  # type: ignore[arg-type] - only held-out sites are asked here
        log=EventLog(run.events),
    )


def weights(value: float) -> Weights:
    return {"w": np.array([value], np.float32)}


def tried(run: Experiment, method: MethodName, state: State) -> tuple[str, ...]:
    return testing.score_method(run, build_strategy(method, run.config.federation), state)


NUMBERS = ("01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12")


def table(dice: float) -> ScoreTable:
    row = score(dice, 8 * dice, 0.5, 0.75)
    return {f"case-00{number}": dict.fromkeys(REGIONS, row) for number in NUMBERS}


def test_a_shared_model_is_kept_and_scored_by_numbered_case(
    tmp_path: Path, experiment: Make
) -> None:
    site = HeldOutSite()
    run = experiment(tmp_path, site)
    tried(run, "fedavg", {"global": weights(0.5)})
    assert read_scores(run.folder.scores("fedavg", "h")) == table(0.5)
    assert load_model(run.folder.model("fedavg"))["w"].tolist() == [0.5]
    assert run.folder.picture("fedavg", "h", "best").read_bytes() == b"\x89PNG\r\n\x1a\n"
    assert [event for _, event in read_events(run.folder.events)] == [
        # pictures first: once the scores lie there, the site is never asked again
        PictureReleased(
            method="fedavg", site="h", kind="best", dice=0.5, file="pictures/fedavg-h-best.png"
        ),
        HeldOutScored(method="fedavg", site="h", n_cases=12, note="n"),
    ]


def test_a_method_of_one_model_per_site_scores_their_mean_and_keeps_each(
    tmp_path: Path, experiment: Make
) -> None:
    site = HeldOutSite()
    run = experiment(tmp_path, site)
    tried(run, "local-only", {"a": weights(0.25), "b": weights(0.75)})
    assert site.asked == [("local-only@a", False), ("local-only@b", False)]
    assert read_scores(run.folder.scores("local-only@a", "h")) == table(0.25)
    assert read_scores(run.folder.scores("local-only@b", "h")) == table(0.75)
    assert read_scores(run.folder.scores("local-only", "h")) == table(0.5)
    assert not run.folder.model("local-only").exists()


def test_a_method_that_was_tested_is_not_tested_again(tmp_path: Path, experiment: Make) -> None:
    site = HeldOutSite()
    run = experiment(tmp_path, site)
    for _ in range(2):
        tried(run, "fedavg", {"global": weights(0.5)})
    assert site.asked == [("fedavg", True)]


def test_a_held_out_site_that_fails_ends_the_run(tmp_path: Path, experiment: Make) -> None:
    run = experiment(tmp_path, HeldOutSite(fails=True))
    with pytest.raises(FederationError, match="h could not test fedavg: data"):
        tried(run, "fedavg", {"global": weights(0.5)})
    assert not run.folder.scores("fedavg", "h").exists()


def test_a_picture_that_cannot_be_read_is_the_sites_fault(tmp_path: Path, experiment: Make) -> None:
    run = experiment(tmp_path, HeldOutSite(picture="no base64!"))
    with pytest.raises(
        FederationError, match=r"h could not test fedavg: message \(picture 'best': expected base64"
    ):
        tried(run, "fedavg", {"global": weights(0.5)})
    assert not run.folder.scores("fedavg", "h").exists()


@pytest.mark.parametrize("cases", [TWELVE[:-1], (*TWELVE, 13), (*TWELVE[:-1], 1), ()])
def test_nothing_of_a_site_that_scores_other_cases_than_it_declared_is_kept(
    tmp_path: Path, cases: Sequence[int], experiment: Make
) -> None:
    run = experiment(tmp_path, HeldOutSite(cases=cases))
    expected = "message (scores: expected cases 1 to 12 with anterior, posterior, each once)"
    with pytest.raises(FederationError) as caught:
        tried(run, "fedavg", {"global": weights(0.5)})
    assert str(caught.value) == f"h could not test fedavg: {expected}"
    assert not run.folder.scores("fedavg", "h").exists()
    assert not run.folder.picture("fedavg", "h", "best").exists()
    assert not run.folder.events.exists()


def test_methods_are_ranked_on_all_held_out_cases(tmp_path: Path, experiment: Make) -> None:
    run = experiment(tmp_path, HeldOutSite())
    models = {
        "fedavg": tried(run, "fedavg", {"global": weights(0.5)}),
        "local-only": tried(run, "local-only", {"a": weights(0.25), "b": weights(0.5)}),
    }
    assert models == {"fedavg": ("fedavg",), "local-only": ("local-only@a", "local-only@b")}
    found = ranking.rank(run, models)
    assert found is not None
    # Dice .5 beats .375, HD95 3 beats 4: of the two metrics each method wins one.
    assert found.mean_rank == {"fedavg": 1.5, "local-only": 1.5}
    assert run.folder.ranking.exists()


class SecretiveSite(HeldOutSite):
    """Releases sums of ranks only; in every third case the worse model is better."""

    def __init__(self, word: str = WORD) -> None:
        super().__init__()
        self.word, self.kept, self.n_ranked = word, dict[str, ScoreTable](), 0

    def scores_of(self, dice: float) -> tuple[messages.CaseScore, ...]:
        return tuple(
            replace(row, dice=row.dice if row.case % 3 else 1 - row.dice)
            for row in super().scores_of(dice)
        )

    def answer(self, scores: tuple[messages.CaseScore, ...], _pictures: object) -> messages.Tested:
        numbered: dict[str, dict[str, RegionScore]] = {}
        for row in scores:
            one = score(row.dice, row.hd95, row.sensitivity, row.specificity)
            numbered.setdefault(f"name-{row.case}", {})[row.region] = one
        self.kept[self.asked[-1][0]] = numbered
        return messages.Tested(
            metrics="ranks", n_cases=12, data=self.word, scores=(), pictures=(), note="n"
        )

    def rank(self, task: messages.RankTask, sites: Sequence[str]) -> Answers[messages.Ranked]:
        self.n_ranked += 1
        tables = {
            method: mean_table([self.kept[model] for model in models])
            for method, models in task.methods.items()
        }
        for site in sites:
            pool = no_cases(tuple(task.methods), REGIONS, "min")
            sums = sums_of_tables(pool, site, tables)
            yield Reply(site, messages.Ranked(data=self.word, sums=sums), None, 0)


class TalkativeSite(SecretiveSite):
    """Has the same cases and releases their metrics."""

    def answer(
        self, scores: tuple[messages.CaseScore, ...], pictures: tuple[messages.Picture, ...]
    ) -> messages.Tested:
        return HeldOutSite.answer(self, scores, pictures)


def outcome_of(run: Experiment) -> Ranking:
    models = {
        "fedavg": tried(run, "fedavg", {"global": weights(0.5)}),
        "local-only": tried(run, "local-only", {"a": weights(0.25), "b": weights(0.625)}),
    }
    found = ranking.rank(run, models)
    assert found is not None
    return found


def test_sums_of_ranks_give_the_ranking_that_the_cases_give(
    tmp_path: Path, experiment: Make
) -> None:
    talkative = outcome_of(experiment(tmp_path / "cases", TalkativeSite()))
    secretive = outcome_of(experiment(tmp_path / "ranks", SecretiveSite()))
    # Dice .5 beats .4375 in eight cases and loses in four; HD95 4 loses to 3.5 in all.
    assert secretive.mean_rank == {"fedavg": 80 / 48, "local-only": 64 / 48}
    assert secretive == replace(talkative, wilcoxon=None, stability=None, bootstrap=None)
    assert talkative.bootstrap is not None


def test_a_site_that_releases_ranks_leaves_no_scores_on_the_coordinators_disk(
    tmp_path: Path, experiment: Make
) -> None:
    run = experiment(tmp_path, SecretiveSite())
    outcome_of(run)
    assert list(run.folder.path.rglob("*.csv")) == []
    events = [event for _, event in read_events(run.folder.events)]
    tests = [event for event in events if isinstance(event, HeldOutScored)]
    assert {event.metrics for event in tests} == {"ranks"}
    assert [event.method for event in tests] == ["fedavg", "local-only@a", "local-only@b"]
    assert events[-1] == RanksReleased(site="h", n_cases=12, n_aggregates=0)


def test_a_resumed_run_asks_neither_for_a_test_nor_for_ranks_again(
    tmp_path: Path, experiment: Make
) -> None:
    site = SecretiveSite()
    run = experiment(tmp_path, site)
    first = outcome_of(run)
    assert outcome_of(run) == first
    assert (len(site.asked), site.n_ranked) == (3, 1)


def test_a_crash_between_two_models_repeats_only_the_second(
    tmp_path: Path, experiment: Make
) -> None:
    site = HeldOutSite()
    run = experiment(tmp_path, site)
    state = {"a": weights(0.25), "b": weights(0.75)}
    tried(run, "local-only", state)
    run.folder.tested("local-only@b", "h").unlink()
    run.folder.scores("local-only", "h").unlink()
    tried(run, "local-only", state)
    assert [model for model, _ in site.asked] == ["local-only@a", "local-only@b", "local-only@b"]
    assert read_scores(run.folder.scores("local-only", "h")) == table(0.5)


def test_images_or_references_that_change_between_two_tests_are_noticed(
    tmp_path: Path, experiment: Make
) -> None:
    site = SecretiveSite()
    run = experiment(tmp_path, site)
    tried(run, "fedavg", {"global": weights(0.5)})
    site.word = "6" * 64
    with pytest.raises(FederationError, match="references changed since fedavg was tested"):
        tried(run, "fedprox", {"global": weights(0.25)})
    assert not run.folder.tested("fedprox", "h").exists()


def test_sums_of_data_that_were_replaced_are_asked_for_again(
    tmp_path: Path, experiment: Make
) -> None:
    site = SecretiveSite()
    run = experiment(tmp_path, site)
    outcome_of(run)
    shutil.rmtree(run.folder.path / "scores")  # as the message above advises
    site.word = "6" * 64
    outcome_of(run)
    assert site.n_ranked == 2


def test_sums_that_do_not_fit_end_the_run_and_are_not_kept(
    tmp_path: Path, experiment: Make
) -> None:
    site = SecretiveSite()
    run = experiment(tmp_path, site)
    models = {"fedavg": tried(run, "fedavg", {"global": weights(0.5)})}
    site.word = "6" * 64
    with pytest.raises(FederationError, match=r"h could not rank the models: message \(data:"):
        ranking.rank(run, models)
    assert not run.folder.released("h").exists()
