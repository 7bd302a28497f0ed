"""Simulated time follows the challenge's rules and moves only when somebody waits."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.codec import write_json
from common.config import Simulation
from common.task import load_task
from server.convergence import convergence_score, convergences
from server.event_log import EventLog, read_events
from server.events import RoundFinished, SiteFailed, SiteTrained
from server.reporting.report import write_report
from server.run_folder import RunFolder
from simulation.clock import (
    RealWorldTimes,
    SimulatedClock,
    Speed,
    speeds_of,
    training_seconds,
)
from simulation.simulate import Study, simulate

STEADY = Speed(training=(3.0, 0.0), validation=(2.0, 0.0), download=(10.0, 0.0), upload=(5.0, 0.0))
WEEK_S = 7 * 24 * 3600.0


def test_a_round_is_download_two_validations_training_and_upload():
    assert training_seconds(STEADY, 20, 4, seed=1, site="a", round_=1) == 10 + 8 + 60 + 8 + 5


def test_no_drawn_time_is_below_a_second():
    quick = Speed((0.01, 0.0), (0.01, 0.0), (0.01, 0.0), (0.01, 0.0))
    assert training_seconds(quick, 20, 4, seed=1, site="a", round_=1) == 1 + 4 + 20 + 4 + 1


def test_equal_seeds_draw_equal_times_and_sites_and_rounds_differ():
    wide = Speed((30.0, 5.0), (2.0, 0.5), (10.0, 3.0), (5.0, 1.0))
    first = training_seconds(wide, 20, 4, seed=1, site="a", round_=1)
    assert first == training_seconds(wide, 20, 4, seed=1, site="a", round_=1)
    assert first != training_seconds(wide, 20, 4, seed=1, site="a", round_=2)
    assert first != training_seconds(wide, 20, 4, seed=1, site="b", round_=1)
    assert first != training_seconds(wide, 20, 4, seed=2, site="a", round_=1)


def test_hardware_and_network_are_drawn_apart_and_each_belongs_together():
    times = RealWorldTimes(
        training_times=((1.0, 0.0), (2.0, 0.0)),
        validation_times=((10.0, 0.0), (20.0, 0.0)),
        download_times=((3.0, 0.0), (4.0, 0.0), (5.0, 0.0)),
        upload_times=((30.0, 0.0), (40.0, 0.0), (50.0, 0.0)),
    )
    found = speeds_of(times, [f"site-{n}" for n in range(60)], seed=3).values()
    assert {(s.training[0], s.validation[0]) for s in found} == {(1, 10), (2, 20)}
    assert {(s.download[0], s.upload[0]) for s in found} == {(3, 30), (4, 40), (5, 50)}
    assert len({(s.training, s.download) for s in found}) == 6


def test_the_clock_measures_a_round_from_its_first_question():
    clock = SimulatedClock()
    clock.sleep(100)
    clock.begin_round()
    clock.sleep(7)
    clock.begin_round()  # a second site is asked
    clock.sleep(3)
    assert clock.end_round() == 10
    assert clock.end_round() is None  # nothing began since, as after a crash


def test_the_convergence_score_is_the_area_under_the_best_dice_so_far():
    curve = [(10.0, 0.5), (30.0, 0.4), (60.0, 0.8)]
    # 0 for 10 s, .5 until 60 s, .8 until 100 s
    assert convergence_score(curve, limit_s=100) == pytest.approx((0.5 * 50 + 0.8 * 40) / 100)


def test_what_comes_after_the_week_does_not_count():
    assert convergence_score([(50.0, 0.5), (101.0, 0.9)], limit_s=100) == pytest.approx(0.25)
    assert convergence_score([], limit_s=100) == 0


@given(st.lists(st.tuples(st.floats(0, WEEK_S), st.floats(0, 1)), max_size=20))
def test_the_score_never_exceeds_the_best_dice(points: list[tuple[float, float]]):
    curve = sorted(points)
    best = max((dice for _, dice in curve), default=0.0)
    assert 0 <= convergence_score(curve) <= best + 1e-9


# In a run


def timed(tiny_study, folder: Path, **federation: object) -> Study:
    """Return the tiny study with one slow institution and one quick one, without spread."""
    times = RealWorldTimes(
        training_times=((3.0, 0.0),),
        validation_times=((2.0, 0.0),),
        download_times=((10.0, 0.0), (1000.0, 0.0)),
        upload_times=((5.0, 0.0), (5.0, 0.0)),
    )
    write_json(folder / "times.json", times)
    sizes = {name: len(cases) for name, cases in tiny_study.sites.items()}
    config = tiny_study.config_with(
        federation=replace(tiny_study.config.federation, **federation),
        simulation=Simulation(sizes=sizes, times=str(folder / "times.json")),
    )
    return Study(config, load_task(config.task), tiny_study.data)


def networks(tiny_study, seed: int) -> list[bool]:
    """Return which sites get the slow network."""
    times = RealWorldTimes(
        training_times=((3.0, 0.0),),
        validation_times=((2.0, 0.0),),
        download_times=((10.0, 0.0), (1000.0, 0.0)),
        upload_times=((5.0, 0.0), (5.0, 0.0)),
    )
    speeds = speeds_of(times, sorted(tiny_study.sites), seed)
    return [speeds[name].download[0] == 1000 for name in sorted(tiny_study.sites)]


def seed_with(tiny_study, slow: list[bool]) -> int:
    return next(seed for seed in range(100) if networks(tiny_study, seed) == slow)


def test_a_round_lasts_as_long_as_its_slowest_site(tiny_study, tmp_path):
    seed = seed_with(tiny_study, [False, True])
    folder = RunFolder(tmp_path / "run")
    simulate(timed(tiny_study, tmp_path, seed=seed), folder, EventLog(folder.events))
    events = [event for _, event in read_events(folder.events)]
    rounds = [e.simulated_s for e in events if isinstance(e, RoundFinished)]
    assert len(rounds) == 2
    assert all(1000 < seconds < 1100 for seconds in rounds)
    (found,) = convergences(events)
    assert found.method == "fedavg"
    assert found.simulated_s == sum(rounds)
    write_report(folder.path)
    assert "Convergence score" in (folder.path / "report.md").read_text()


def test_a_site_slower_than_the_deadline_is_left_out_without_anyone_waiting(tiny_study, tmp_path):
    seed = seed_with(tiny_study, [False, True])
    study = timed(tiny_study, tmp_path, seed=seed, min_sites=1, round_timeout_s=500.0)
    folder = RunFolder(tmp_path / "run")
    simulate(study, folder, EventLog(folder.events))
    events = [event for _, event in read_events(folder.events)]
    slow = sorted(tiny_study.sites)[1]
    late = {e.site for e in events if isinstance(e, SiteFailed) and e.code == "timeout"}
    assert late == {slow}
    assert slow not in {e.site for e in events if isinstance(e, SiteTrained)}
