"""What the lines of a log come to: the same as the report's, and once for what was repeated."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.privacy.mechanism import Spent
from server.dashboard import kept
from server.dashboard.cells import snapshot
from server.dashboard.facts import facts_of
from server.dashboard.method_rounds import MethodRounds
from server.dashboard.run_data import RunData, add_event, follow
from server.dashboard.run_settings import RunSettings
from server.events import (
    Event,
    Note,
    ReplyIgnored,
    RoundFinished,
    RunStarted,
    SiteFailed,
    SiteMasked,
    SiteTrained,
    SiteValidated,
    SumLost,
    SumOpened,
)
from server.reporting.report_data import collect
from server.validation_curve import validation_curve
from simulation.invented_events import InventedRun
from simulation.invented_runs import CORRUPT_LINES, log_line, older_lines, write_invented

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STARTED = RunStarted(
    run="r", task="t", methods=("fedavg",), seed=1, resumed=False, versions={}, device="CPU"
)


def trained(site: str, round_: int, loss: float | None = 0.5, **more: object) -> SiteTrained:
    given = {"n_steps": 1, "update_norm": 2.0, "seconds": 30.0, "upload_bytes": 100, **more}
    return SiteTrained(  # type: ignore[arg-type]
        method="fedavg", round=round_, site=site, n_cases=5, loss=loss, **given
    )


def validated(site: str, round_: int, wt: float, et: float) -> SiteValidated:
    return SiteValidated(method="fedavg", round=round_, site=site, dice={"WT": wt, "ET": et})


def ended(round_: int, n_sites: int = 2) -> RoundFinished:
    return RoundFinished(method="fedavg", round=round_, n_sites=n_sites, seconds=60.0)


def failed(site: str, round_: int, code: str = "data") -> SiteFailed:
    return SiteFailed(method="fedavg", round=round_, site=site, code=code, reason="why")


def data_of(*events: Event, step_s: float = 10.0) -> RunData:
    data = RunData()
    for n, event in enumerate(events):
        add_event(data, NOON + timedelta(seconds=n * step_s), event)
    return data


def rounds_of(data: RunData, method: str = "fedavg") -> MethodRounds:
    return snapshot(method, data.cells[method])


def write_log(path: Path, *events: Event, first: datetime = NOON) -> Path:
    lines = [log_line(first + timedelta(seconds=n), event) for n, event in enumerate(events)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def test_numbers_stand_by_round_and_site() -> None:
    found = rounds_of(
        data_of(
            STARTED,
            trained("b", 1, 0.75),
            trained("a", 1, 0.25, update_norm=4.0),
            ended(1),
            validated("a", 1, 0.5, 0.25),
            validated("b", 1, 0.75, 0.25),
            trained("a", 2, None, upload_bytes=300, download_bytes=7),
        )
    )
    assert found.sites == ("a", "b")
    assert found.regions == ("WT", "ET")
    np.testing.assert_array_equal(found.loss[1], [0.25, 0.75])
    np.testing.assert_array_equal(found.loss[2], [np.nan, np.nan])
    np.testing.assert_array_equal(found.update_norm[1], [4.0, 2.0])
    np.testing.assert_array_equal(found.upload_bytes[2], [300, np.nan])
    assert found.site_dice("b", "WT").values.tolist() == [0.75]
    assert found.mean_dice("WT").values.tolist() == [0.625]
    assert found.mean_dice().values.tolist() == [0.4375]
    assert found.mean_loss().values.tolist() == [0.5]
    assert [curve.values.tolist() for curve in found.spread_dice("WT")] == [[0.5], [0.75]]
    assert found.slowest(1) == ("a", 30.0)
    assert found.slowest(0) is None
    assert found.sites_with("trained", 2) == ("a",)
    assert found.finished_time(1, NOON) == NOON + timedelta(seconds=30)
    assert found.finished_time(2, NOON) is None


def test_a_round_that_a_resumed_run_repeats_counts_once() -> None:
    data = data_of(
        STARTED,
        trained("a", 1, upload_bytes=100),
        trained("b", 1, upload_bytes=100),
        STARTED,
        trained("a", 1, upload_bytes=500),
        trained("b", 1, upload_bytes=500),
        ended(1),
    )
    facts = facts_of(data, RunSettings())
    assert facts.upload_bytes == 1000
    assert data.course.n_starts == 2


def test_of_a_masked_run_only_sums_are_known() -> None:
    masked = {
        name: SiteMasked(
            method="fedavg", round=2, site=name, seconds=9.0, upload_bytes=50, download_bytes=5
        )
        for name in ("a", "b")
    }
    opened = SumOpened(
        method="fedavg",
        round=2,
        sites=("a", "b"),
        count=9,
        loss=0.25,
        dice={"WT": 0.5, "ET": 0.75},
        update_norm=3.0,
        seconds=1.5,
    )
    found = rounds_of(data_of(STARTED, *masked.values(), opened))
    assert found.mean_dice().rounds.tolist() == [1]  # of the weights as they were sent
    assert found.mean_dice("ET").values.tolist() == [0.75]
    assert found.mean_loss().values.tolist() == [0.25]
    assert found.sites_with("masked", 2) == ("a", "b")
    assert np.isnan(found.update_norm).all()
    assert (found.sum_norm[2], found.sum_open_s[2]) == (3.0, 1.5)


def test_a_lost_sum_is_there_until_the_round_is_summed_after_all() -> None:
    lost = SumLost(method="fedavg", round=1, reason="too few")
    data = data_of(STARTED, lost)
    assert rounds_of(data).lost == ((1, "too few"),)
    assert facts_of(data, RunSettings()).lost == (1, "too few")
    opened = SumOpened(
        method="fedavg", round=1, sites=("a",), count=1, update_norm=1.0, seconds=1.0
    )
    add_event(data, NOON + timedelta(hours=1), opened)
    assert rounds_of(data).lost == ()
    assert facts_of(data, RunSettings()).lost is None


def test_failures_in_a_row_end_with_a_good_answer() -> None:
    data = data_of(STARTED, failed("a", 1), failed("a", 2), failed("a", 2), failed("b", 2))
    assert data.members["a"].n_in_a_row == 2  # the repeated round counts once
    assert data.members["a"].n_failures == 3
    assert data.members["a"].failing_since == NOON + timedelta(seconds=10)
    add_event(data, NOON, trained("a", 3))
    assert (data.members["a"].n_in_a_row, data.members["b"].n_in_a_row) == (0, 1)


def test_facts_stay_as_they_were_while_the_log_goes_on() -> None:
    data = data_of(STARTED, failed("a", 1))
    facts = facts_of(data, RunSettings())
    add_event(data, NOON, failed("a", 2))
    assert facts.sites[0].member.n_failures == 1


def test_refusals_by_policy_are_counted_and_a_missing_approval_is_none() -> None:
    data = data_of(STARTED, failed("a", 1, "policy:rounds"), failed("a", 2, "policy:approval"))
    member = data.members["a"]
    assert (member.n_refusals, member.n_failures, member.last_refusal) == (
        1,
        1,
        "policy:rounds: why",
    )
    assert member.awaited == NOON + timedelta(seconds=20)


def test_a_site_that_fails_at_validating_keeps_what_it_gave() -> None:
    data = data_of(STARTED, trained("a", 1, download_bytes=7), ended(1), failed("a", 1, "message"))
    found = rounds_of(data)
    assert (found.upload_bytes[1].tolist(), found.download_bytes[1].tolist()) == ([100.0], [7.0])
    assert found.sites_with("failed", 1) == ("a",)
    assert data.course.answered == {}  # of the next round


def test_an_ignored_reply_leaves_a_good_one_as_it_is() -> None:
    ignored = ReplyIgnored(method="fedavg", round=1, site="a", reason="a second answer")
    other = ReplyIgnored(method="fedavg", round=1, site="b", reason="too late")
    found = rounds_of(data_of(STARTED, trained("a", 1), ignored, other))
    assert (found.sites_with("trained", 1), found.sites_with("ignored", 1)) == (("a",), ("b",))


def test_privacy_is_the_largest_epsilon_and_the_last_share_of_the_budget() -> None:
    spent = [Spent(epsilon=e, delta=1e-5, budget_used=b) for e, b in ((1, 0.5), (2, 0.8), (2, 1))]
    data = data_of(STARTED, *(trained("a", n + 1, None, spent=s) for n, s in enumerate(spent)))
    member = data.members["a"]
    assert member.spent == spent[1]
    assert member.budget_used == 1
    assert member.budget_since == (
        NOON + timedelta(seconds=20),
        NOON + timedelta(seconds=30),
    )


@pytest.mark.parametrize(
    "event",
    [
        trained("a", 200_000),
        trained("a", -1),
        trained("a", 1, upload_bytes=-5),
        trained("a", 1, 1.7e308),
        trained("a", 1, update_norm=-1.7e308),
        trained("a", 1, seconds=1e200),
        validated("a", 1, 1.7e308, 1.7e308),
        RoundFinished(method="m", round=1, n_sites=1, seconds=1e300),
        trained("a", 1, upload_bytes=10**400),
        RoundFinished(method="m", round=10**30, n_sites=1, seconds=1.0),
        RoundFinished(method="m", round=1, n_sites=10**30, seconds=1.0),
    ],
)
def test_absurd_numbers_take_no_memory_and_are_told(tmp_path: Path, event: Event) -> None:
    data = follow(write_log(tmp_path / "e", STARTED, event, trained("b", 1)), RunData())
    assert data.n_unreadable == 1
    assert data.unreadable[0].number == 2
    assert data.n_bytes < 2**20
    assert "b" in data.members


def test_long_names_are_refused_and_long_texts_are_cut(tmp_path: Path) -> None:
    long = "x" * 5000
    events = (trained(long, 1), SiteFailed(method="m", round=1, site="a", code="c", reason=long))
    data = follow(write_log(tmp_path / "e", *events), RunData())
    assert (data.n_unreadable, list(data.members)) == (1, ["a"])
    assert len(data.members["a"].last_failure) == len(data.kept.faults[0].reason) == 1000


def test_what_is_kept_as_it_is_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_BYTES", 1000)
    notes = [Note(text=f"{n:0100}") for n in range(50)]
    data = follow(write_log(tmp_path / "e", *notes), RunData())
    assert len(kept.kept_of(data.kept, Note)) == 6
    assert data.n_unreadable == 0


def test_more_methods_or_regions_than_any_run_has_are_refused(tmp_path: Path) -> None:
    many = [RoundFinished(method=f"m{n}", round=1, n_sites=1, seconds=1.0) for n in range(105)]
    regions = SiteValidated(method="m1", round=1, site="a", dice={f"r{n}": 0.5 for n in range(17)})
    data = follow(write_log(tmp_path / "e", *many, regions), RunData())
    assert data.n_unreadable == 6
    assert len(data.cells) == 100


SITES = st.sampled_from(["a", "b", "c"])
ROUNDS = st.integers(1, 12)
DICE = st.floats(0, 1)
EVENTS = st.one_of(
    st.builds(trained, SITES, ROUNDS, st.floats(-1, 1)),
    st.builds(validated, SITES, st.integers(0, 12), DICE, DICE),
    st.builds(failed, SITES, ROUNDS),
    st.builds(ended, ROUNDS, st.integers(0, 3)),
    st.builds(Note, text=st.text(max_size=5)),
    st.just(STARTED),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(events=st.lists(EVENTS, max_size=60))
def test_what_the_report_collects_is_what_is_shown(tmp_path: Path, events: list[Event]) -> None:
    path = write_log(tmp_path / "events.jsonl", STARTED, *events)
    data, report = follow(path, RunData()), collect(tmp_path)
    assert (
        sum(event.upload_bytes for event in report.trained)
        == facts_of(data, RunSettings()).upload_bytes
    )
    assert len(report.faults) == data.kept.n_faults
    if "fedavg" not in data.cells:
        return
    found = rounds_of(data)
    losses = {(event.site, event.round): event.loss for event in report.trained}
    assert losses == {
        (site, round_): value
        for site in found.sites
        for round_, value in zip(*_pairs(found, site), strict=True)
    }
    curve = found.mean_dice()
    expected = validation_curve(path, "fedavg")
    assert [n for n in curve.rounds.tolist() if n > 0] == list(expected)
    assert curve.values[curve.rounds > 0].tolist() == pytest.approx(list(expected.values()))
    assert int((found.n_sites * ~np.isnan(found.round_s)).sum()) == sum(
        event.n_sites for event in report.rounds
    )


def _pairs(found: MethodRounds, site: str) -> tuple[list[int], list[float]]:
    curve = found.site_loss(site)
    return curve.rounds.tolist(), curve.values.tolist()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(cuts=st.lists(st.integers(0, 40_000), max_size=6))
def test_a_log_read_while_it_grows_comes_to_the_same(tmp_path: Path, cuts: list[int]) -> None:
    run = InventedRun("r", n_sites=3, n_rounds=4, failing="site-01", private=True)
    written = write_invented(tmp_path, run, NOON, spoilt=(*CORRUPT_LINES, *older_lines(NOON)))
    whole, path = written.events.read_bytes(), tmp_path / "growing"
    path.unlink(missing_ok=True)
    data = RunData()
    for end in [*sorted(cuts), len(whole)]:
        path.write_bytes(whole[:end])
        data = follow(path, data)
    at_once = follow(written.events, RunData())
    assert facts_of(data, RunSettings()) == facts_of(at_once, RunSettings())
    assert data.n_unreadable == 6
    assert data.index.begins == at_once.index.begins
    for method in at_once.cells:
        np.testing.assert_array_equal(rounds_of(data, method).loss, rounds_of(at_once, method).loss)


def test_a_replaced_log_is_folded_from_nothing(tmp_path: Path) -> None:
    path = write_log(tmp_path / "e", STARTED, trained("a", 1), ended(1))
    data = follow(path, RunData())
    write_log(path, STARTED, trained("b", 1), first=NOON + timedelta(days=1))
    data = follow(path, data)
    assert list(data.members) == ["b"]
    assert len(data.index) == 2
