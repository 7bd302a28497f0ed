"""Held-out sites that let out only the sum of theirs: all that the coordinator receives, searched.

Five held-out sites: three mask, one releases ranks and one the metrics of its cases.
"""

import json
import math
import shutil
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flwr.app import Message, RecordDict
from scipy.stats import chisquare

from client.app import app
from client.scoring.kept_scores import KeptScores
from client.site import SiteConfig
from common.axes import Weights
from common.codec import read_json, read_toml, write_toml
from common.errors import FederationError
from common.evaluation.postprocess import KeepLargest
from common.messages import KeysTask, Ranked, RankTask, TestTask
from common.ranks.ranking import Ranking
from common.secure_sum import MaskKey, public_key_of
from common.task import load_task
from common.wire import body_of, to_content, weights_of
from server.event_lines import line_of
from server.event_log import EventLog, read_events
from server.events import SumsReleased
from server.flower_sites import FlowerSites
from server.reporting.report import write_report
from server.run import run
from server.run_folder import RunFolder
from simulation.grid import InProcessGrid

TASK = load_task("brats-2021")
METHODS = ("fedavg", "fedprox", "local-only")
TRAINING, MASKING = ("alpha", "beta"), ("delta", "epsilon", "gamma")
RELEASES = {**dict.fromkeys(MASKING, "secure-sum"), "open": "cases", "ranks": "ranks"}
N_WORDS = 1 + 3 * 6 + 3 * 24 + 3 + 4 * 3 * 3


class Recording(InProcessGrid):
    """Keeps all that sites answer, and can change an answer on its way."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.names = dict(enumerate(files, start=1))
        super().__init__(app, {n: {"site": str(files[name])} for n, name in self.names.items()})
        self.heard: list[tuple[str, str, RecordDict]] = []
        self.asked: list[tuple[str, RecordDict]] = []
        self.change = lambda _name, _kind, content: content

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message_id in message_ids:
            asked = self._waiting[message_id]
            name, kind = self.names[asked.metadata.dst_node_id], asked.metadata.message_type
            self.asked.append((kind, asked.content))
            for reply in super().pull_messages([message_id]):
                if reply.has_error():
                    yield reply
                    continue
                self.heard.append((name, kind, reply.content))
                yield Message(self.change(name, kind, reply.content), reply_to=asked)

    def bodies(self, site: str, kind: str) -> list[dict]:
        found = [content for name, k, content in self.heard if (name, k) == (site, kind)]
        return [json.loads(content.config_records["body"]["json"]) for content in found]

    def ask(self, site: str, kind: str, task: object, weights: Weights | None = None) -> Message:
        (node,) = (node for node, name in self.names.items() if name == site)
        (reply,) = self.send_and_receive([Message(to_content(task, weights), node, kind)])
        return reply


@dataclass(frozen=True)
class Done:
    """A run that ended, and what was said in it."""

    study: object
    home: Path
    files: dict[str, Path]
    folder: RunFolder
    grid: Recording

    def log_of(self, site: str) -> str:
        return (self.home / site / "state" / "site.log").read_text()


@pytest.fixture(scope="module")
def study(tiny_study):
    cases = [case for names in tiny_study.sites.values() for case in names]
    sites = dict(zip((*TRAINING, *RELEASES), ((case,) for case in cases), strict=True))
    federation = replace(
        tiny_study.config.federation,
        methods=METHODS,
        held_out=tuple(RELEASES),
        rounds=1,
        proximal_mu=0.5,
    )
    evaluation = replace(tiny_study.config.evaluation, pictures=False)
    config = tiny_study.config_with(federation=federation, evaluation=evaluation)
    return replace(tiny_study, config=config, sites=sites)


def identity(path: Path, seed: int) -> str:
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed] * 32))
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return private.public_key().public_bytes_raw().hex()


def files_of(study, home: Path, releases: dict[str, str], **rules: object) -> dict[str, Path]:
    """Write the sites' files; those that mask hide their counts, sign and know each other."""
    files = study.write_sites(home)
    peers = {name: identity(home / f"{name}.pem", n) for n, name in enumerate(MASKING)}
    for name, level in releases.items():
        site = read_toml(SiteConfig, files[name])
        masks = level == "secure-sum"
        policy = replace(
            site.policy,
            metrics=level,
            pictures=False,
            fingerprint="secure-sum" if masks else "exact",
            **(rules if masks else {}),
        )
        changed = replace(site, policy=policy)
        if masks:
            changed = replace(changed, identity=str(home / f"{name}.pem"), peers=peers)
        write_toml(files[name], changed)
    return files


def start(study, home: Path, releases: dict[str, str], **rules: object) -> Done:
    files = files_of(study, home, releases, **rules)
    done = Done(study, home, files, RunFolder(home / "run"), Recording(files))
    resume(done)
    return done


def resume(done: Done) -> None:
    log = EventLog(done.folder.events)
    run(done.study.config, TASK, FlowerSites(done.grid), done.folder, log, device="")


def copied(done: Done, home: Path, **rules: object) -> Done:
    """Return a copy of a run as after a crash before its ranking, with changed policies."""
    shutil.copytree(done.home, home)
    files = {name: home / name / "site.toml" for name in done.files}
    for name, path in files.items():
        site = read_toml(SiteConfig, path)
        policy = replace(site.policy, **rules)
        write_toml(path, replace(site, state=str(home / name / "state"), policy=policy))
    copy = Done(done.study, home, files, RunFolder(home / "run"), Recording(files))
    copy.folder.ranking.unlink()
    copy.folder.released_together.unlink()
    return copy


@pytest.fixture(scope="module")
def masked_run(study, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return start(study, tmp_path_factory.mktemp("masked"), RELEASES)


@pytest.fixture(scope="module")
def open_run(masked_run: Done, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Return the same run, tested again by sites that all release the metrics of their cases."""
    copy = copied(masked_run, tmp_path_factory.mktemp("open") / "copy", metrics="cases")
    shutil.rmtree(copy.folder.path / "scores")
    shutil.rmtree(copy.folder.path / "released")
    resume(copy)
    return copy


@pytest.fixture
def again(masked_run: Done, tmp_path: Path) -> Done:
    return copied(masked_run, tmp_path / "copy")


# What comes out


def test_the_ranking_is_that_of_all_cases_to_the_last_bit(open_run, masked_run):
    pooled, found = (read_json(Ranking, done.folder.ranking) for done in (open_run, masked_run))
    assert found.n_cases == {"open": 1, "ranks": 1, "delta+epsilon+gamma": 3}
    unknown = {"wilcoxon": None, "stability": None, "bootstrap": None}
    assert replace(pooled, **unknown, n_cases=found.n_cases) == found
    assert pooled.permutation == found.permutation
    assert len({*pooled.mean_rank.values()}) > 1


def released(done: Done) -> SumsReleased:
    (event,) = (e for _, e in read_events(done.folder.events) if isinstance(e, SumsReleased))
    return event


def test_the_event_tells_mean_and_deviation_of_all_their_cases(open_run, masked_run):
    event = released(masked_run)
    assert (event.sites, event.n_cases) == (MASKING, 3)
    assert len(event.results) == 9
    for result in event.results:
        paths = [open_run.folder.scores(result.method, site) for site in MASKING]
        rows = pd.concat([pd.read_csv(path) for path in paths]).query("region == @result.region")
        for told, values, unit in (
            (result.dice, rows.dice, 2.0**-20),
            (result.hd95, rows.hd95, 2.0**-8),
        ):
            assert abs(told.mean - values.mean()) <= unit / 2 + 1e-12
            assert abs(told.sd - values.std()) <= unit / math.sqrt(2) + 1e-9
    assert line_of(event, 1) == (
        "delta, epsilon, gamma released sums of ranks and metrics over 3 cases together"
    )


def test_the_report_shows_what_the_sites_told_together(masked_run):
    page = write_report(masked_run.folder.path).read_text()
    text = (masked_run.folder.path / "report.md").read_text()
    mean = f"{released(masked_run).results[0].dice.mean:.3f} ± "
    for shown in (page, text):
        assert "3 sites together: 3 cases" in shown
        assert "Medians do not follow from sums" in shown
        assert mean in shown
    assert "gamma: cases that took no part in training" in page
    assert "ranks: 1 cases that took no part" in page
    assert "3 methods on 5 held-out cases" in page


# What the coordinator receives


def metrics_of(done: Done, site: str) -> set[float]:
    """Return every metric that a site measured and that is worth a search."""
    folder = done.home / site / "state" / "runs" / "run" / "tested"
    values = {
        value
        for path in folder.iterdir()
        for regions in read_json(KeptScores, path).scores.values()
        for region in regions.values()
        for value in vars(region).values()
    }
    return {value for value in values if len(repr(value).replace(".", "")) > 5}


def bytes_of(content: RecordDict) -> bytes:
    texts = [record["json"] for record in content.config_records.values()]
    arrays = [array.data for record in content.array_records.values() for array in record.values()]
    return b"\n".join([*texts, *arrays])


def traces(done: Done, site: str) -> set[float]:
    """Return the metrics of a site that occur in its answers, as text, as numbers or as units."""
    heard = b"\n".join(bytes_of(content) for name, _, content in done.grid.heard if name == site)
    found = set()
    for value in metrics_of(done, site):
        numbers = [struct.pack(code, value) for code in ("<d", ">d", "<f", ">f")]
        units = [struct.pack("<q", round(value * unit)) for unit in (2**20, 2**8)]
        if any(sought in heard for sought in (f"{value:.6g}".encode(), *numbers, *units)):
            found.add(value)
    return found


def test_nothing_of_a_single_sites_scores_is_in_its_answers(open_run, masked_run):
    for site in MASKING:
        assert len(metrics_of(open_run, site)) > 3
        assert traces(open_run, site)  # the search finds what is there
        assert not traces(masked_run, site)


def test_a_masking_site_says_this_and_nothing_else(masked_run):
    for site in MASKING:
        kinds = [kind for name, kind, _ in masked_run.grid.heard if name == site]
        assert kinds == [
            *("query.measure", "query.prepare"),
            *["evaluate.test"] * 4,
            *("query.keys", "evaluate.rank"),
        ]
        (measured,) = masked_run.grid.bodies(site, "query.measure")
        assert measured["fingerprint"]["n_cases"] == 0
        assert measured["metrics_min_sites"] == 3
        (prepared,) = masked_run.grid.bodies(site, "query.prepare")
        assert (prepared["n_training_cases"], prepared["n_validation_cases"]) == (0, 0)
        for tested in masked_run.grid.bodies(site, "evaluate.test"):
            assert tested.keys() == {"metrics", "data", "scores", "pictures", "note"}
            assert (tested["metrics"], tested["scores"], tested["pictures"]) == (
                "secure-sum",
                [],
                [],
            )
        (ranked,) = masked_run.grid.bodies(site, "evaluate.rank")
        assert ranked.keys() == {"data", "sums", "aggregates"}
        assert (ranked["sums"]["institutions"], ranked["aggregates"]) == ({}, [])
        assert not any(pair["counts"] for pair in ranked["sums"]["differences"])


def vectors_of(done: Done) -> dict[str, np.ndarray]:
    return {
        name: weights_of(content)["metrics"]
        for name, kind, content in done.grid.heard
        if kind == "evaluate.rank" and content.array_records
    }


def looks_random(vectors: Iterable[np.ndarray]) -> bool:
    words = np.concatenate([*vectors])
    counts = np.bincount(words.view(np.uint8), minlength=256)
    return chisquare(counts).pvalue > 1e-6 and len(np.unique(words)) == words.size


def test_a_single_masked_vector_looks_random_and_only_the_sum_does_not(masked_run):
    vectors = vectors_of(masked_run)
    assert {name: vector.shape for name, vector in vectors.items()} == dict.fromkeys(
        MASKING, (N_WORDS,)
    )
    assert all(looks_random([vector]) for vector in vectors.values())
    assert looks_random(vectors.values())
    total = sum(vector.view(np.uint64) for vector in vectors.values())
    assert total[0] == 3  # cases
    assert not looks_random([total])
    assert looks_random([total - vectors["gamma"].view(np.uint64)])  # two are not a sum


def test_the_number_of_a_sites_cases_is_nowhere_at_the_coordinator(masked_run):
    events = [json.loads(line) for line in masked_run.folder.events.read_text().splitlines()]
    for event in events:
        assert event.get("site") not in MASKING or "n_cases" not in event
    for path in masked_run.folder.path.rglob("*.tested.json"):
        known = path.name.split(".")[0] not in MASKING
        assert ("n_cases" in json.loads(path.read_text())) == known
    assert not [path for site in MASKING for path in masked_run.folder.path.rglob(f"{site}.csv")]


# Coming back


def test_a_run_that_is_resumed_does_not_ask_for_the_sum_again(masked_run):
    before = masked_run.folder.ranking.read_bytes()
    grid = Recording(masked_run.files)
    resume(replace(masked_run, grid=grid))
    again = {kind for kind, _ in grid.asked}
    assert again.isdisjoint({"train", "query.keys", "evaluate.test", "evaluate.rank"})
    assert masked_run.folder.ranking.read_bytes() == before
    assert released(masked_run).n_cases == 3


def test_a_sum_that_a_crash_lost_is_asked_for_again_of_the_same_sites(masked_run, again):
    resume(again)
    assert again.folder.ranking.read_bytes() == masked_run.folder.ranking.read_bytes()
    one, other = vectors_of(masked_run), vectors_of(again)
    assert not (one["gamma"] == other["gamma"]).any()


def test_a_site_that_lost_its_answer_masks_anew(again):
    lost = ["gamma"]

    def lose(name: str, kind: str, content: RecordDict) -> RecordDict:
        if kind == "evaluate.rank" and name in lost:
            lost.remove(name)
            return RecordDict({})
        return content

    again.grid.change = lose
    resume(again)
    notes = [e.text for _, e in read_events(again.folder.events) if hasattr(e, "text")]
    assert any(text.startswith("secure sum, attempt 1: gamma: message") for text in notes)
    assert notes[-1] == "the metrics of delta, epsilon, gamma were seen only as their sum"


# What is refused


def test_with_fewer_masking_sites_than_they_want_nothing_is_trained(study, tmp_path: Path):
    with pytest.raises(FederationError) as stopped:
        start(study, tmp_path, RELEASES, min_secure_sites=4)
    assert str(stopped.value) == (
        "held-out sites whose metrics are seen only as a sum: delta asks for at least 4, "
        "found 3: delta, epsilon, gamma"
    )
    assert not (tmp_path / "run" / "plan.json").exists()


def altered(place: int | None) -> object:
    def alter(name: str, kind: str, content: RecordDict) -> RecordDict:
        if (name, kind) != ("gamma", "evaluate.rank") or not content.array_records:
            return content
        vector = weights_of(content)["metrics"].copy()
        vector = vector[:-1] if place is None else vector + (np.arange(vector.size) == place)
        return to_content(body_of(Ranked, content), {"metrics": vector})

    return alter


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (0, "expected masks that cancel"),  # a case more
        (1, "expected masks that cancel"),  # a half rank
        (N_WORDS - 1, "expected masks that cancel"),  # a square
        (None, f"gamma: message .metrics: expected one vector of {N_WORDS} words"),
    ],
)
def test_sums_that_do_not_add_up_end_the_run_in_one_clear_line(again, place: int | None, told: str):
    again.grid.change = altered(place)
    with pytest.raises(FederationError, match=told) as stopped:
        resume(again)
    assert "secure sum" in str(stopped.value).splitlines()[0]
    assert not again.folder.ranking.exists()
    assert not again.folder.released_together.exists()


@pytest.mark.parametrize("what", ["weights", "steps"])
def test_a_site_that_was_given_another_model_is_not_singled_out(masked_run, again, what: str):
    asked = masked_run.grid.asked
    content = next(content for kind, content in asked if kind == "evaluate.test")
    task, weights = body_of(TestTask, content), weights_of(content)
    if what == "weights":  # of which everybody knows that they find nothing
        weights = {name: np.zeros_like(tensor) for name, tensor in weights.items()}
    else:
        task = replace(task, postprocessing=(KeepLargest(labels=(4,)),))
    assert not again.grid.ask("gamma", "evaluate.test", task, weights).has_error()
    with pytest.raises(FederationError, match="expected masks that cancel"):
        resume(again)


def test_a_coordinator_that_swaps_a_key_learns_nothing(again):
    def swap(name: str, kind: str, content: RecordDict) -> RecordDict:
        if (name, kind) != ("delta", "query.keys"):
            return content
        return to_content(replace(body_of(MaskKey, content), public_key=public_key_of("7" * 64)))

    again.grid.change = swap
    with pytest.raises(FederationError, match="gamma: policy:privacy"):
        resume(again)
    assert "key of delta: expected a signature by its pinned key" in again.log_of("gamma")
    assert not vectors_of(again)


def rank_question(done: Done) -> RankTask:
    """Return the question by which the sites were asked for their masked sums."""
    asked = [body_of(RankTask, content) for kind, content in done.grid.asked if "rank" in kind]
    return next(task for task in asked if task.roster is not None)


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (lambda task: task, "expected one with an unused key"),  # a replay
        (lambda task: replace(task, roster=None), "masked sums only, found no roster"),
        (
            lambda task: replace(
                task,
                roster=replace(
                    task.roster, keys=(*task.roster.keys, replace(task.roster.keys[0], site="eve"))
                ),
            ),
            "expected held-out sites of the run .*, found eve",
        ),
    ],
)
def test_another_question_than_the_one_of_the_sum_is_refused(masked_run, tamper, told: str):
    question = tamper(rank_question(masked_run))
    reply = Recording(masked_run.files).ask("gamma", "evaluate.rank", question)
    assert (reply.has_error() and reply.error.reason) == "policy:privacy"
    assert pd.Series(masked_run.log_of("gamma").splitlines()).str.contains(told).any()


@pytest.mark.parametrize(
    ("sites", "told"),
    [
        ((*MASKING, "open"), "metrics were masked for the sum of other sites before"),
        (("delta", "gamma"), "at least 3 sites that mask their metrics, found 2: delta, gamma"),
    ],
)
def test_a_run_keeps_its_company(masked_run, sites: tuple[str, ...], told: str):
    asked = KeysTask(run="run", nonce="e" * 32, sites=sites, purpose="metrics")
    reply = Recording(masked_run.files).ask("gamma", "query.keys", asked)
    assert (reply.has_error() and reply.error.reason) == "policy:privacy"
    assert told in masked_run.log_of("gamma")


@pytest.mark.parametrize("kind", ["query.keys", "evaluate.rank"])
def test_a_site_that_releases_ranks_masks_nothing(masked_run, kind: str):
    keys = KeysTask(run="run", nonce="e" * 32, sites=(*MASKING, "ranks"), purpose="metrics")
    asked = keys if kind == "query.keys" else rank_question(masked_run)
    reply = Recording(masked_run.files).ask("ranks", kind, asked)
    assert (reply.has_error() and reply.error.reason) == "policy:privacy"
    assert "policy.metrics: 'ranks' masks nothing" in masked_run.log_of("ranks")
