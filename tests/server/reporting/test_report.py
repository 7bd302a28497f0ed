"""The report: numbers, sentences, escaping, unfinished runs."""

import base64
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from common.codec import write_json
from common.errors import ConfigError
from common.evaluation.metrics import RegionScore
from common.evaluation.scores import ScoringDefinition, write_scores
from common.planning.plan import Configuration, Normalization, Plan, PlannedFor
from common.ranks.ranking import PairwiseTest, Ranking
from server.event_log import EventLog
from server.events import (
    FloorMeasured,
    HeldOutScored,
    Note,
    PictureReleased,
    PlanMade,
    ReplyIgnored,
    RoundFinished,
    RunFinished,
    RunStarted,
    SiteExcluded,
    SiteFailed,
    SiteJoined,
    SitePersonalised,
    SiteTrained,
    SiteValidated,
)
from server.reporting.held_out_data import summarise
from server.reporting.report import write_report
from server.reporting.report_data import collect

METHODS = ("fedavg", "fedprox", "local-only")
ODD_SITE = "<b>north</b> | *1*"
ONE_EMPTY = 373.1287
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CONFIG = 'task = "brats-2021"\n\n[evaluation]\nhd95 = "pooled"\n'
PLAN = Plan(
    schema=1,
    hash="ab" * 32,
    rules="paper",
    planned_for=PlannedFor(n_training_cases=20, n_foreground_classes=3, memory_gb=8.0),
    channels=("t1", "flair"),
    transpose=(0, 1, 2),
    normalization=(Normalization(channel="t1", scheme="z-score"),),
    configurations={
        "3d_fullres": Configuration(
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
    },
    limits=("batch size 9 reduced to 2",),
)
RANKING = Ranking(
    scheme="brats",
    ties="min",
    methods=METHODS,
    mean_rank={"fedavg": 1.25, "fedprox": 1.75, "local-only": 3.0},
    score={"fedavg": 0.4167, "fedprox": 0.5833, "local-only": 1.0},
    final_rank={"fedavg": 1, "fedprox": 2, "local-only": 3},
    permutation=(
        PairwiseTest(a="fedavg", b="fedprox", p_a_better=0.25, p_b_better=0.75),
        PairwiseTest(a="local-only", b="fedavg", p_a_better=1.0, p_b_better=0.0004),
    ),
)


def _start_run(folder: Path) -> EventLog:
    """Write what a run has written when it stops after its first round."""
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG)
    write_json(folder / "plan.json", PLAN)
    log = EventLog(folder / "events.jsonl")
    start = RunStarted(
        run="trial",
        task="brats-2021",
        methods=METHODS,
        seed=7,
        resumed=False,
        versions={"consilium": "0.1.0", "torch": "2.13.0"},
        device="cpu, 2 threads",
    )
    log.append(start)
    log.append(SiteJoined(site=ODD_SITE, role="training", n_cases=4))
    log.append(SiteJoined(site="east", role="held-out", n_cases=3))
    log.append(PlanMade(plan_hash=PLAN.hash, n_cases=4, limits=PLAN.limits))
    log.append(Note(text="fp16 & bf16 are <off>"))
    log.append(_trained(loss=0.9))
    log.append(replace(start, resumed=True))
    log.append(_trained(loss=0.8125))
    dice = {"WT": 0.7, "ET": 0.5}
    log.append(SiteValidated(method="fedavg", round=1, site=ODD_SITE, dice=dice))
    log.append(RoundFinished(method="fedavg", round=1, n_sites=1, seconds=3.0))
    failure = {"code": "timeout", "reason": "no answer within 60 s"}
    log.append(SiteFailed(method="fedprox", round=2, site=ODD_SITE, **failure))
    late = {"site": ODD_SITE, "reason": "it belongs to round 2"}
    log.append(ReplyIgnored(method="fedprox", round=4, **late))
    given_up = {"site": ODD_SITE, "reason": "failed in 3 rounds in a row, at last: timeout"}
    log.append(SiteExcluded(method="fedprox", round=5, **given_up))
    return log


def _finish_run(folder: Path, log: EventLog) -> None:
    """Write what the end of a run adds."""
    _write_scores(folder, "fedavg", wt_dice=(0.8, 0.9, 0.7))
    _write_scores(folder, "fedprox", wt_dice=(0.7, 0.8, 0.6))
    _write_scores(folder, "local-only", wt_dice=(0.5, 0.6, 0.4))
    _write_scores(folder, "local-only@west", wt_dice=(0.5, 0.6, 0.4))
    for method in METHODS:
        log.append(HeldOutScored(method=method, site="east", n_cases=3, note="from 16 patches"))
    own = {"shared": {"WT": 0.7, "ET": 0.5}, "own": {"WT": 0.8125, "ET": 0.625}}
    log.append(SitePersonalised(method="fedavg", site=ODD_SITE, n_steps=40, **own))
    floor = {"channel": "flair", "mean_dice": 0.6123, "threshold": 0.71}
    log.append(FloorMeasured(site="east", region="WT", **floor))
    for kind in ("worst", "best"):
        file = f"pictures/{kind}.png"
        picture = {"method": "fedavg", "site": "east", "kind": kind, "dice": 0.5}
        log.append(PictureReleased(file=file, **picture))
    (folder / "pictures").mkdir()
    (folder / "pictures" / "best.png").write_bytes(PIXEL)
    write_json(folder / "ranking.json", RANKING)
    log.append(RunFinished(seconds=3725.0, peak_memory_bytes=3 * 2**30))


def _write_scores(folder: Path, method: str, wt_dice: tuple[float, float, float]) -> None:
    enhancing = (
        RegionScore(dice=0.0, hd95=ONE_EMPTY, sensitivity=0.0, specificity=1.0),  # missed
        RegionScore(dice=0.0, hd95=ONE_EMPTY, sensitivity=0.0, specificity=0.99),  # false alarm
        RegionScore(dice=1.0, hd95=0.0, sensitivity=1.0, specificity=1.0),  # both empty
    )
    table = {
        str(number): {
            "WT": RegionScore(dice=dice, hd95=4.0 * number, sensitivity=0.9, specificity=0.99),
            "ET": enhancing[number - 1],
        }
        for number, dice in enumerate(wt_dice, start=1)
    }
    definition = ScoringDefinition(
        task="brats-2021", hd95="pooled", hd95_one_empty_mm=ONE_EMPTY, hd95_missing_case_mm=374.0
    )
    write_scores(folder / "scores" / method / "east.csv", table, definition)


def _trained(loss: float) -> SiteTrained:
    return SiteTrained(
        method="fedavg",
        round=1,
        site=ODD_SITE,
        n_cases=4,
        n_steps=10,
        loss=loss,
        update_norm=1.0,
        seconds=2.0,
        upload_bytes=2048,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "trial"
    _finish_run(folder, _start_run(folder))
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return (run / "report.html").read_text()


@pytest.fixture(scope="module")
def markdown(run: Path) -> str:
    return (run / "report.md").read_text()


class _Page(HTMLParser):
    """Collects a page's text, the elements left open and every address that it names."""

    VOID = frozenset({"meta", "img", "br", "path", "use"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.alternatives: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "srcset", "action"}:
                self.addresses.append(value or "")
            if name in {"alt", "aria-label"}:
                self.alternatives.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_site_s_own_model_stands_beside_the_shared_one(html: str, markdown: str) -> None:
    for text in (html, markdown):
        assert "made from the shared one by further training" in text
        assert "WT 0.700, ET 0.500" in text
        assert "WT 0.812, ET 0.625" in text


def test_the_summary_says_who_won_and_whether_the_floor_was_beaten(
    html: str, markdown: str
) -> None:
    first = (
        "FedAvg won among 3 methods on 3 held-out cases with the ranking score 0.417 "
        "(mean rank 1.25), ahead of FedProx 0.583 and Local only 1.000; by the permutation test "
        "the lead is not significant against FedProx (p = 0.250) and significant against "
        "Local only (p < 0.001)."
    )
    second = (
        "Both federated models beat the learning-free floor on whole tumour at east: mean Dice "
        "FedAvg 0.800 and FedProx 0.700, floor 0.612 (the best threshold on flair alone)."
    )
    plain = " ".join("".join(_Page(html).text).replace("\N{NO-BREAK SPACE}", " ").split())
    assert first in plain
    assert second in plain
    assert second in markdown


def test_every_section_is_there(html: str) -> None:
    text = "".join(_Page(html).text)
    for heading in (
        "The run",
        "Learning curves",
        "Results on held-out sites",
        "Ranking",
        "Example cases",
        "Faults and notes",
        "How the numbers are defined",
        "Reproduce",
    ):
        assert heading in text


def test_facts_of_the_run_are_shown(html: str, markdown: str) -> None:
    text = "".join(_Page(html).text)
    for fact in (
        "40 × 48 × 40",  # noqa: RUF001 - the sign that the report prints
        "3.5 × 3 × 3",  # noqa: RUF001 - as above
        "8, 16",
        "batch size 9 reduced to 2",
        "1 h 2 min",
        "3.0 GiB",
        "cpu, 2 threads",
        "consilium 0.1.0, torch 2.13.0",
        "no answer within 60 s",
        "resumed 1 time",
    ):
        assert fact in text
        assert fact in markdown
    assert 'hd95 = "pooled"' in text
    assert 'hd95 = "pooled"' in markdown


def test_held_out_tables_show_means_quartiles_and_empty_cases(html: str, markdown: str) -> None:
    line = (
        "| WT | FedAvg | 0.800 ± 0.100 | 0.800 \\[0.750, 0.850\\] | 8.0 ± 4.0 "
        "| 8.0 \\[6.0, 10.0\\] | 0 | 0 | 0 |"
    )
    assert line in markdown
    assert "| ET | FedAvg | 0.333 ± 0.577 |" in markdown
    assert "| 373.1 \\[186.6, 373.1\\] | 1 | 1 | 1 |" in markdown
    assert "<td>0.800 ± 0.100</td><td>0.800 [0.750, 0.850]</td>" in html


def test_local_models_stand_apart_and_are_explained(html: str, markdown: str) -> None:
    assert "| WT | west | 0.500 ± 0.100 |" in markdown
    assert "| WT | Local only | 0.500 ± 0.100 |" in markdown
    assert "not ranked one by one" in html
    assert "The mean, in every case, over the training sites’ own models" in html  # noqa: RUF001


def test_the_page_is_well_formed_and_loads_nothing_from_outside(html: str) -> None:
    page = _Page(html)
    assert page.open == []
    assert "http" not in html
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert page.tags.count("caption") == page.tags.count("table")
    assert page.tags.count("svg") == 6  # loss, Dice, round times, two of held-out cases, p-values


def test_pictures_are_inside_the_page_best_first_and_a_missing_one_is_named(html: str) -> None:
    page = _Page(html)
    text = "".join(page.text)
    assert base64.b64encode(PIXEL).decode() in html
    assert "Overlay picture: best case of FedAvg at east, mean Dice 0.500" in page.alternatives
    assert "The picture pictures/worst.png is missing." in text
    assert text.index("Best case of FedAvg") < text.index("Worst case of FedAvg")


def test_names_and_notes_are_escaped(html: str, markdown: str) -> None:
    text = "".join(_Page(html).text)
    assert ODD_SITE in text
    assert "<b>" not in html
    assert "fp16 & bf16 are <off>" in text
    assert r"| \<b\>north\</b\> \| \*1\* | training | 4 | 4 |" in markdown


def test_repeated_work_after_a_resumption_is_counted_once(run: Path, markdown: str) -> None:
    assert [event.loss for event in collect(run).trained] == [0.8125]
    assert "| 1 | 10 | 2.0 s | 2.0 KiB | 0 B | 0.812 | WT 0.700, ET 0.500 |" in markdown


def test_markdown_links_to_the_plots_beside_it(run: Path, markdown: str) -> None:
    for name in ("loss", "dice", "held-out-1-dice", "held-out-1-hd95"):
        assert f"(plots/{name}.svg)" in markdown
        assert (run / "plots" / f"{name}.svg").read_text().startswith("<?xml")


def test_the_same_run_gives_the_same_bytes(run: Path, html: str, markdown: str) -> None:
    numbers = (run / "report-numbers.csv").read_bytes()
    write_report(run)
    assert (run / "report-numbers.csv").read_bytes() == numbers
    assert (run / "report.html").read_text() == html
    assert (run / "report.md").read_text() == markdown


def test_an_unfinished_run_says_what_is_missing(tmp_path: Path) -> None:
    _start_run(tmp_path / "trial")
    text = "".join(_Page(write_report(tmp_path / "trial").read_text()).text)
    assert "This run is unfinished and has no ranking yet; finished rounds: FedAvg 1" in text
    assert "The comparison with a learning-free floor is missing: no floor was measured." in text
    assert "No held-out site has tested a model yet." in text


def test_a_finished_run_without_a_held_out_site_is_not_called_unfinished(tmp_path: Path) -> None:
    log = _start_run(tmp_path / "trial")
    log.append(RunFinished(seconds=1.0, peak_memory_bytes=1))
    text = "".join(_Page(write_report(tmp_path / "trial").read_text()).text)
    assert "This run has no ranking: no held-out site tested its models." in text
    assert "unfinished" not in text


def test_a_run_that_only_started_can_be_reported(tmp_path: Path) -> None:
    start = RunStarted(
        run="t", task="t", methods=("fedavg",), seed=1, resumed=False, versions={}, device="cpu"
    )
    EventLog(tmp_path / "events.jsonl").append(start)
    assert "No site has sent an update yet." in write_report(tmp_path).read_text()


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        write_report(tmp_path)
    expected = f"{tmp_path}: expected a run directory, found no events.jsonl in it"
    assert str(caught.value) == expected
    assert list(tmp_path.iterdir()) == []


def test_a_picture_outside_the_run_is_refused(tmp_path: Path) -> None:
    log = _start_run(tmp_path / "trial")
    (tmp_path / "secret.png").write_bytes(PIXEL)
    picture = {"method": "fedavg", "site": "east", "kind": "best", "dice": 0.5}
    log.append(PictureReleased(file="../secret.png", **picture))
    with pytest.raises(ConfigError, match="expected pictures inside it"):
        write_report(tmp_path / "trial")


def test_a_missing_score_counts_as_the_worst(tmp_path: Path) -> None:
    _start_run(tmp_path / "trial")
    path = tmp_path / "trial" / "scores" / "fedavg" / "east.csv"
    path.parent.mkdir(parents=True)
    path.write_text("case,region,dice,hd95,sensitivity,specificity\n1,NA,,inf,0.5,0.5\n")
    (row,) = summarise(collect(tmp_path / "trial").scores, METHODS)
    assert (row.region, row.dice.mean, row.hd95.mean) == ("NA", 0.0, 374.0)
    assert row.n_missed == row.n_false_alarms == 0


def test_what_was_ignored_and_who_was_given_up_stand_among_the_faults(markdown: str) -> None:
    assert "| FedProx | 2 | timeout | no answer within 60 s |" in markdown
    assert "| FedProx | 4 | ignored | it belongs to round 2 |" in markdown
    reason = "failed in 3 rounds in a row, at last: timeout"
    assert f"| FedProx | 5 | excluded | {reason} |" in markdown
