"""The main job as a user starts it, in a process that may not look outside the machine."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.codec import read_json
from common.evaluation.scores import read_scores
from common.ranks.ranking import Ranking

WATCHED = Path(__file__).with_name("watched.py")
TIMEOUT_S = 1200


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[str]]:
    """Run `consilium demo` once: (run directory, its output, connections it attempted)."""
    folder = tmp_path_factory.mktemp("demo")
    attempts = folder / "attempts.txt"
    command = [sys.executable, str(WATCHED), str(attempts), "demo", "--out", str(folder / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout, attempts.read_text().splitlines()


@pytest.mark.timeout(TIMEOUT_S)
def test_the_demo_ends_with_the_path_of_a_report(demo):
    run, output, _ = demo
    assert output.splitlines()[-1] == f"report: {run / 'report.html'}"
    assert (run / "report.html").stat().st_size > 10_000


def test_the_demo_attempts_no_connection(demo):
    assert demo[2] == []


def test_the_demo_federates_four_unequal_sites_and_holds_one_out(demo, events):
    joined = events(demo[0], "SiteJoined")
    sizes = [event["n_cases"] for event in joined if event["role"] == "training"]
    assert len(sizes) >= 4
    assert len(set(sizes)) > 1
    assert [event["site"] for event in joined if event["role"] == "held-out"] == ["site-5"]
    rounds = events(demo[0], "RoundFinished")
    assert {(e["method"], e["round"]) for e in rounds} >= {("fedavg", 3), ("fedprox", 3)}


def test_the_demo_ranks_three_methods_on_the_held_out_site(demo):
    ranking = read_json(Ranking, demo[0] / "ranking.json")
    assert set(ranking.methods) == {"fedavg", "fedprox", "local-only"}
    assert len(ranking.permutation) == 3


def test_both_federated_models_beat_the_floor_and_the_report_says_so(demo, events):
    run, _, _ = demo
    floor = events(run, "FloorMeasured")[0]
    for method in ("fedavg", "fedprox"):
        table = read_scores(run / "scores" / method / "site-5.csv")
        mean = sum(rows["WT"].dice for rows in table.values()) / len(table)
        assert mean > floor["mean_dice"], method
    report = re.sub(r"\s+", " ", (run / "report.md").read_text())
    assert f"{floor['mean_dice']:.3f}" in report
    assert "floor" in report
