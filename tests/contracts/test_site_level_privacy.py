"""A whole federation with noise at the coordinator: what that costs, also after a crash."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.app import app
from common.errors import DiskError
from common.privacy.site_level import SiteLevelPrivacy
from common.task import load_task
from server.event_counts import is_finished
from server.event_lines import line_of
from server.event_log import EventLog, read_events
from server.events import Event, SitePrivacySpent
from server.flower_sites import FlowerSites
from server.reporting.report import write_report
from server.run import run
from server.run_folder import RunFolder, checkpoint_file, read_state
from simulation.grid import InProcessGrid

TASK = load_task("brats-2021")
SETTINGS = SiteLevelPrivacy(clip_norm=0.01, noise_multiplier=4.0, delta=1e-3)
EXACT = (0.59201, 0.89405, 1.13852, 1.35228, 1.54605)
"""Epsilon of 1 to 5 rounds: the composed normal noise by theorem 8 of Balle and Wang 2018."""
ACCOUNTANT = 0.012  # above the exact value at most


class Federation:
    """Two sites, two methods of two rounds each, and a run that can be begun again."""

    def __init__(self, study, home: Path) -> None:
        federation = replace(
            study.config.federation,
            methods=("fedavg", "fedprox"),
            proximal_mu=0.5,
            weighting="uniform",
            local_steps=1,
            site_privacy=SETTINGS,
        )
        self.config = study.config_with(federation=federation)
        self.files = list(study.write_sites(home).values())
        self.folder = RunFolder(home / "run")

    def run(self, watcher: Callable[[Event], None] | None = None) -> None:
        nodes = {n: {"site": str(path)} for n, path in enumerate(self.files, start=1)}
        sites, log = FlowerSites(InProcessGrid(app, nodes)), EventLog(self.folder.events, watcher)
        run(self.config, TASK, sites, self.folder, log, device="test")

    def checkpoint(self, method: str, round_: int) -> Path:
        return checkpoint_file(self.folder.checkpoints(method), round_)

    @property
    def spent(self) -> list[SitePrivacySpent]:
        events = [event for _, event in read_events(self.folder.events)]
        return [event for event in events if isinstance(event, SitePrivacySpent)]


def require_accounted(spent: list[SitePrivacySpent]) -> None:
    """Demand what so many rounds cost exactly, or a little more."""
    for event, exact in zip(spent, EXACT, strict=False):
        assert exact <= event.epsilon <= exact + ACCOUNTANT


@pytest.fixture(scope="module")
def done(tiny_study, tmp_path_factory: pytest.TempPathFactory) -> Federation:
    federation = Federation(tiny_study, tmp_path_factory.mktemp("site-level"))
    federation.run()
    return federation


def test_every_round_of_every_method_says_what_all_rounds_so_far_cost(done: Federation):
    assert [(event.method, event.round) for event in done.spent] == [
        ("fedavg", 1),
        ("fedavg", 2),
        ("fedprox", 1),
        ("fedprox", 2),
    ]
    assert {(event.n_sites, event.delta) for event in done.spent} == {(2, 1e-3)}
    require_accounted(done.spent)


def test_the_shared_weights_have_the_noise_that_was_accounted_for(done: Federation):
    before, after = (read_state(done.checkpoint("fedavg", n))["global"] for n in (1, 2))
    change = np.concatenate([(after[name] - before[name]).ravel() for name in before])
    assert change.size > 5000
    # 4 times 0.01, over 2 sites; what was learned is at most 0.01 long
    assert np.std(change) == pytest.approx(0.02, rel=0.05)


def test_the_log_and_the_report_say_that_it_means_little_here(done: Federation):
    warning = "site-level privacy means little here: 2 sites, expected at least 100; noise of norm"
    assert all(event.warning.startswith(warning) for event in done.spent)
    assert line_of(done.spent[0], 2).startswith(
        "fedavg round 1/2: site-level epsilon 0.60 at 0.001"
    )
    page = write_report(done.folder.path).read_text()
    for text in (page, (done.folder.path / "report.md").read_text()):
        assert "the unit is a site, not a patient): epsilon 1.37 at delta 0.001" in text  # upwards
        assert warning in text


def test_a_round_that_a_crash_took_from_the_disk_costs_again(tiny_study, tmp_path: Path):
    federation = Federation(tiny_study, tmp_path)
    blocked = federation.checkpoint("fedavg", 2)

    def block(event: Event) -> None:
        if isinstance(event, SitePrivacySpent) and event.round == 2:
            blocked.mkdir()  # no file can take its place: the aggregate is lost

    with pytest.raises(DiskError, match="round-0002"):
        federation.run(block)
    assert [event.round for event in federation.spent] == [1, 2]  # said before it was used
    first = federation.spent
    blocked.rmdir()
    federation.run()
    assert is_finished(federation.folder.events)
    assert federation.spent[:2] == first
    assert [(event.method, event.round) for event in federation.spent] == [
        ("fedavg", 1),
        ("fedavg", 2),
        ("fedavg", 2),
        ("fedprox", 1),
        ("fedprox", 2),
    ]
    require_accounted(federation.spent)
    assert "epsilon 1.56 at delta 0.001" in write_report(federation.folder.path).read_text()
