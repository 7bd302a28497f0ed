"""A held-out site that releases ranks: what it sends, searched for every metric of every case."""

import json
import shutil
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flwr.app import Message

from client.app import app
from client.dataset.nifti import read_labels, write_labels
from client.policy import Policy
from client.scoring.kept_scores import KeptScores
from client.site import SiteConfig
from common.codec import read_json, read_toml, write_toml
from common.errors import ConfigError, FederationError
from common.ranks.ranking import Ranking
from common.task import load_task
from server.event_log import EventLog
from server.flower_sites import FlowerSites
from server.reporting.report import write_report
from server.run import run
from server.run_folder import RunFolder
from simulation.grid import InProcessGrid

TASK = load_task("brats-2021")
METHODS = ("fedavg", "fedprox", "local-only")
N_CASES = 4  # of the held-out site
FEWEST_DIGITS = 5  # of a metric that is searched for; shorter numbers occur by chance


class Eavesdropper(InProcessGrid):
    """Keeps what the held-out site answers to the messages about final models."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message_id in message_ids:
            kind = self._waiting[message_id].metadata.message_type
            for message in super().pull_messages([message_id]):
                if kind in {"evaluate.test", "evaluate.rank", "evaluate.floor"}:
                    self.heard.append((kind, message))
                yield message

    heard: list[tuple[str, Message]]


@pytest.fixture(scope="module")
def study(tiny_study):
    federation = replace(
        tiny_study.config.federation,
        methods=METHODS,
        held_out=("beta",),
        min_sites=1,
        rounds=1,
        proximal_mu=0.5,
    )
    return replace(tiny_study, config=replace(tiny_study.config, federation=federation))


@dataclass(frozen=True)
class Done:
    """A run that ended, and what its held-out site sent."""

    home: Path
    folder: RunFolder
    grid: Eavesdropper


@pytest.fixture(scope="module")
def runs(study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """Run once at every level of release."""
    return {
        level: start(study, tmp_path_factory.mktemp(level), level, min_cases_per_aggregate=N_CASES)
        for level in ("ranks", "aggregates", "cases")
    }


def start(study, home: Path, level: str, **policy: object) -> Done:
    """Run the whole federation, with beta held out under a policy."""
    files = study.write_sites(home)
    site = read_toml(SiteConfig, files["beta"])
    open_ = level == "cases"
    changed = replace(site.policy, metrics=level, pictures=open_, **policy)
    write_toml(files["beta"], replace(site, policy=changed))
    grid = Eavesdropper(app, {n: {"site": str(f)} for n, f in enumerate(files.values(), start=1)})
    grid.heard = []
    folder = RunFolder(home / "run")
    done = Done(home, folder, grid)
    resume(study, done)
    return done


def resume(study, done: Done) -> None:
    folder, log = done.folder, EventLog(done.folder.events)
    run(study.config, TASK, FlowerSites(done.grid), folder, log, device="")


def core(done: Done) -> Ranking:
    """Return the ranking without what only the metrics of cases can tell."""
    found = read_json(Ranking, done.folder.ranking)
    return replace(found, wilcoxon=None, stability=None, bootstrap=None)


def kept(done: Done) -> Iterator[KeptScores]:
    for path in (done.home / "beta" / "state" / "runs" / "run" / "tested").iterdir():
        yield read_json(KeptScores, path)


def metrics(done: Done) -> set[float]:
    """Return every metric of every case that the site measured and that is worth a search."""
    values = {
        value
        for scores in kept(done)
        for regions in scores.scores.values()
        for region in regions.values()
        for value in vars(region).values()
    }
    return {value for value in values if len(repr(value).replace(".", "")) > FEWEST_DIGITS}


def texts_of(message: Message) -> list[str]:
    return [bytes(record["json"]).decode() for record in message.content.config_records.values()]


def sent(done: Done) -> bytes:
    parts = []
    for _, message in done.grid.heard:
        if message.has_error():
            parts.append(str(message.error.reason).encode())
            continue
        parts += [text.encode() for text in texts_of(message)]
        records = message.content.array_records.values()
        parts += [array.data for record in records for array in record.values()]
    return b"\n".join(parts)


def numbers_in(plain: object) -> Iterator[float]:
    if isinstance(plain, dict):
        for key, value in plain.items():
            yield from numbers_in(value)
            if key.lstrip("-").replace(".", "").isdecimal():
                yield float(key)
    elif isinstance(plain, list):
        for value in plain:
            yield from numbers_in(value)
    elif isinstance(plain, int | float) and not isinstance(plain, bool):
        yield float(plain)


def test_a_site_that_releases_ranks_sends_no_metric_of_any_case(runs):
    done = runs["ranks"]
    secrets, heard = metrics(done), sent(done)

    assert len(secrets) > 2 * N_CASES  # the models are poor but their metrics are numbers
    for value in secrets:
        for digits in range(FEWEST_DIGITS, 18):
            assert f"{value:.{digits}g}".encode() not in heard
        for code in "<d", ">d", "<f", ">f":
            assert struct.pack(code, value) not in heard
    # Nor any other number but counts and sums of ranks:
    plain = [
        json.loads(text) for _, m in done.grid.heard if not m.has_error() for text in texts_of(m)
    ]
    numbers = set(numbers_in(plain))
    assert numbers
    assert all(number == int(number) for number in numbers)
    # and what the coordinator wrote holds none of the secrets either.
    for path in done.folder.path.rglob("*"):
        if path.is_file() and path.suffix in {".json", ".jsonl", ".csv", ".html", ".md"}:
            content = path.read_text()
            assert not [value for value in secrets if repr(value) in content], path


def test_a_site_that_releases_ranks_sends_this_and_nothing_else(runs):
    grid = runs["ranks"].grid
    kinds = [kind for kind, _ in grid.heard]
    assert kinds == ["evaluate.test"] * 3 + ["evaluate.floor", "evaluate.rank"]
    *tests, floor, ranks = [message for _, message in grid.heard]
    for message in tests:
        (text,) = texts_of(message)
        told = json.loads(text)
        assert told.keys() == {"metrics", "n_cases", "data", "scores", "pictures", "note"}
        assert (told["metrics"], told["n_cases"]) == ("ranks", N_CASES)
        assert told["scores"] == told["pictures"] == []
    assert (floor.has_error(), floor.error.reason) == (True, "policy:metrics")
    (text,) = texts_of(ranks)
    told = json.loads(text)
    assert told.keys() == {"data", "sums", "aggregates"}
    assert told["aggregates"] == []
    assert told["sums"].keys() == {"methods", "regions", "ties", "institutions", "differences"}
    assert told["sums"]["institutions"]["beta"].keys() == {"n_cases", "half_ranks"}


@pytest.mark.parametrize("level", ["ranks", "aggregates"])
def test_the_ranking_is_the_same_at_every_level_of_release(runs, level: str):
    assert core(runs[level]) == core(runs["cases"])
    assert core(runs["cases"]).n_cases == {"beta": N_CASES}


def test_aggregates_are_those_of_the_sites_cases(runs):
    released = json.loads(runs["aggregates"].folder.released("beta").read_text())["aggregates"]
    assert len(released) == 3 * len(METHODS)
    found = released[0]
    assert (found["method"], found["region"]) == ("fedavg", "WT")
    assert (found["n_cases"], found["n_empty_references"]) == (N_CASES, 0)
    path = runs["cases"].folder.scores("fedavg", "beta")
    dice = pd.read_csv(path).query("region == 'WT'").dice.describe()
    for name, row in {"mean": "mean", "median": "50%", "q1": "25%", "q3": "75%"}.items():
        assert found["dice"][name] == pytest.approx(dice[row], abs=1e-12)


def test_aggregates_of_too_few_cases_stay_at_the_site(study, tmp_path: Path):
    few = start(study, tmp_path, "aggregates", min_cases_per_aggregate=N_CASES + 1)
    assert json.loads(few.folder.released("beta").read_text())["aggregates"] == []


@pytest.mark.parametrize(
    ("level", "shown", "not_shown"),
    [
        ("ranks", "its metrics are not released", "Dice (fraction)"),
        ("aggregates", "Empty<br>references", "only, from which"),
        ("cases", "whiskers within 1.5 box lengths", "not released"),
    ],
)
def test_the_report_shows_what_was_released(runs, level: str, shown: str, not_shown: str):
    page = write_report(runs[level].folder.path).read_text()
    assert f"beta: {N_CASES} cases that took no part in training" in page
    results = page[page.index("Results on held-out sites") : page.index("<h2>Ranking</h2>")]
    assert shown in results
    assert not_shown not in results
    assert "Map of p-values" in page
    intervals = "bootstrap samples of the cases (seed 7)"
    assert (intervals in page) == (level == "cases")


def test_a_reference_that_changed_before_the_ranking_stops_it(study, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(study.data, data)
    study = replace(study, data=data)
    done = start(study, tmp_path, "ranks")
    for path in (done.folder.released("beta"), done.folder.ranking):
        path.unlink()  # as after a crash before the ranking
    (label,) = data.glob(f"{study.sites['beta'][0]}/*_seg.nii.gz")
    labels, of = read_labels(label, None)
    write_labels(label, np.where(labels == 4, 1, labels).astype(np.uint8), of)
    with pytest.raises(FederationError, match="beta could not rank the models: data"):
        resume(study, done)
    assert (
        "references changed since fedavg, fedprox, local-only@alpha were tested"
        in (done.home / "beta" / "state" / "site.log").read_text()
    )
    assert not done.folder.ranking.exists()


def test_pictures_are_released_only_with_the_metrics_of_cases(tmp_path: Path):
    path = tmp_path / "site.toml"
    path.write_text(
        'name = "b"\ndata = "d"\nstate = "s"\n[policy]\nmetrics = "ranks"\npictures = true\n'
        'validation_means = true\nfingerprint = "exact"\n'
    )
    with pytest.raises(ConfigError, match="pictures show single cases and metrics is 'ranks'"):
        read_toml(SiteConfig, path)
    closed = Policy(metrics="none", validation_means=False, pictures=False, fingerprint="exact")
    assert closed.min_cases_per_aggregate == 5
