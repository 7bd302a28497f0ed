"""The log of events: whole lines only, whatever moment a crash chose."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.evaluation.metric_sums import MeanAndSd
from common.ranks.held_out_sums import RegionResult
from server.event_lines import line_of
from server.event_log import EventLog, read_events
from server.events import (
    EVENT_TYPES,
    ApprovalAwaited,
    Event,
    FloorMeasured,
    HeldOutScored,
    Note,
    PictureReleased,
    PlanMade,
    PostprocessingChosen,
    RanksReleased,
    ReplyIgnored,
    RoundFinished,
    RunFinished,
    RunStarted,
    SiteExcluded,
    SiteFailed,
    SiteJoined,
    SiteLeft,
    SiteMasked,
    SitePersonalised,
    SitePrivacySpent,
    SiteTrained,
    SiteValidated,
    SumLost,
    SumOpened,
    SumsReleased,
)
from server.log_lines import read_usual

RESULT = RegionResult(
    method="fedavg",
    region="WT",
    n_empty_references=2,
    dice=MeanAndSd(mean=0.75, sd=0.125),
    hd95=MeanAndSd(mean=4.5, sd=2.25),
)
ALL: tuple[Event, ...] = (
    RunStarted(
        run="r",
        task="brats-2021",
        methods=("fedavg", "fedprox"),
        seed=1,
        resumed=False,
        versions={"torch": "2.13"},
        device="CPU, 2 threads, float32",
    ),
    SiteJoined(site="a", role="training", n_cases=12),
    PlanMade(plan_hash="0123456789abcdef" * 4, n_cases=12, limits=("batch size 9 cut to 4",)),
    Note(text="ein Hinweis: \u2028 \x85 \n é"),
    SiteTrained(
        method="fedavg",
        round=2,
        site="a",
        n_cases=12,
        n_steps=10,
        loss=0.25,
        update_norm=1.5,
        seconds=61.5,
        upload_bytes=1000,
    ),
    SiteValidated(method="fedavg", round=2, site="a", dice={"WT": 0.5, "TC": 0.25, "ET": 0.125}),
    SiteFailed(method="fedavg", round=2, site="a", code="data", reason="the site's log says more"),
    ReplyIgnored(method="fedavg", round=3, site="a", reason="it belongs to round 2"),
    SiteExcluded(method="fedavg", round=2, site="a", reason="failed in 3 rounds in a row"),
    RoundFinished(method="fedavg", round=2, n_sites=4, seconds=61.5),
    HeldOutScored(method="fedavg", site="h", n_cases=5, note="statistics estimated"),
    FloorMeasured(site="h", region="WT", channel="flair", mean_dice=0.625, threshold=0.9),
    PictureReleased(method="fedavg", site="h", kind="best", dice=0.9, file="pictures/x.png"),
    RunFinished(seconds=125.0, peak_memory_bytes=3 * 2**29),
    RanksReleased(site="h", n_cases=12, n_aggregates=6),
    SiteLeft(site="a"),
    PostprocessingChosen(
        method="fedavg",
        steps=("components of WT below 50 mm3 go",),
        reasons=("changes 3 of 9 validation cases", "none of 27 candidates helps"),
        sites=("a", "b"),
    ),
    SitePersonalised(
        method="fedavg", site="a", n_steps=20, shared={"WT": 0.5, "ET": 0.25}, own={"WT": 0.75}
    ),
    ApprovalAwaited(site="b"),
    SiteMasked(method="fedavg", round=2, site="a", seconds=61.5, upload_bytes=1000),
    SumOpened(
        method="fedavg",
        round=2,
        sites=("a", "b", "c"),
        count=40,
        loss=0.25,
        dice={"WT": 0.5},
        update_norm=1.5,
        seconds=0.5,
    ),
    SumLost(method="fedavg", round=3, reason="3 sites must agree who survived, 2 did"),
    SitePrivacySpent(
        method="fedavg", round=1, n_sites=4, epsilon=1.9, delta=1e-3, warning="4 sites"
    ),
    SumsReleased(sites=("h", "i", "j"), n_cases=40, results=(RESULT,)),
    HeldOutScored(method="fedavg", site="h", note="", metrics="secure-sum"),
)


def written(path: Path, *events: Event) -> Path:
    log = EventLog(path)
    for event in events:
        log.append(event)
    return path


def events_in(path: Path) -> list[Event]:
    return [event for _, event in read_events(path)]


def test_every_kind_of_event_is_tried_here() -> None:
    assert {type(event).__name__ for event in ALL} == set(EVENT_TYPES)


def test_events_come_back_in_the_order_written(tmp_path: Path) -> None:
    path = written(tmp_path / "run" / "events.jsonl", *ALL)
    assert events_in(path) == list(ALL)
    regions = [event.dice for event in events_in(path) if isinstance(event, SiteValidated)]
    assert [list(dice) for dice in regions] == [["WT", "TC", "ET"]]


def test_every_kind_of_event_is_read_the_quick_way(tmp_path: Path) -> None:
    lines = written(tmp_path / "e", *ALL).read_bytes().splitlines()
    found = [read_usual(line) for line in lines]
    assert [one.event for one in found if one is not None] == list(ALL)


def test_an_event_is_one_line_of_ascii_with_its_time_and_kind(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    content = written(tmp_path / "e", ALL[3]).read_bytes()
    assert content.endswith(b"\n")
    assert content.count(b"\n") == 1
    assert content.isascii()
    plain = json.loads(content)
    assert list(plain) == ["time", "event", "text"]
    assert plain["event"] == "Note"
    (time, _) = next(read_events(tmp_path / "e"))
    assert abs((time - before).total_seconds()) < 10
    assert time.tzinfo is not None


def test_the_watcher_is_told_after_the_event_is_on_disk(tmp_path: Path) -> None:
    seen: list[list[Event]] = []
    path = tmp_path / "e"
    log = EventLog(path, lambda _: seen.append(events_in(path)))
    log.append(ALL[1])
    log.append(ALL[7])
    assert seen == [[ALL[1]], [ALL[1], ALL[7]]]


def test_a_log_is_appended_to_by_the_next_process(tmp_path: Path) -> None:
    written(tmp_path / "e", ALL[0])
    assert events_in(written(tmp_path / "e", ALL[1])) == [ALL[0], ALL[1]]


def test_an_unfinished_last_line_is_skipped(tmp_path: Path) -> None:
    path = written(tmp_path / "e", ALL[1], ALL[4])
    path.write_bytes(path.read_bytes()[:-20])
    assert events_in(path) == [ALL[1]]


def test_after_an_unfinished_line_a_new_one_begins(tmp_path: Path) -> None:
    path = written(tmp_path / "e", ALL[1], ALL[4])
    path.write_bytes(path.read_bytes()[:-20])
    written(path, ALL[7], ALL[11])
    assert events_in(path) == [ALL[1], ALL[7], ALL[11]]


def test_a_whole_line_without_its_end_still_counts(tmp_path: Path) -> None:
    path = written(tmp_path / "e", ALL[1])
    path.write_bytes(path.read_bytes()[:-1])
    assert events_in(written(path, ALL[7])) == [ALL[1], ALL[7]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.data())
def test_a_crash_at_any_byte_costs_at_most_the_event_being_written(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "e"
    path.unlink(missing_ok=True)
    content = written(path, ALL[3], ALL[5], ALL[1]).read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    # a line that lacks only its end is whole
    n_whole = content[: cut + 1].count(b"\n")
    assert events_in(path) == [ALL[3], ALL[5], ALL[1]][:n_whole]
    written(path, ALL[7])
    assert events_in(path) == [*[ALL[3], ALL[5], ALL[1]][:n_whole], ALL[7]]


def test_a_whole_line_that_does_not_fit_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "e", ALL[1])
    with path.open("a") as file:
        file.write('{"time": "2024-01-01T00:00:00+00:00", "event": "Note", "txt": "x"}\n')
    with pytest.raises(ConfigError, match=r"e:2: txt: unknown key; did you mean 'text'\?"):
        events_in(path)


@pytest.mark.parametrize(
    "line",
    [
        '{"time": "2024-01-01T00:00:00+00:00", "event": "FromTheFuture"}',
        '{"event": "Note", "text": "x"}',
        '{"time": "yesterday", "event": "Note", "text": "x"}',
        "5",
    ],
)
def test_a_whole_line_of_no_known_event_is_a_clear_mistake(tmp_path: Path, line: str) -> None:
    (tmp_path / "e").write_text(line + "\n")
    with pytest.raises(ConfigError, match="e:1:"):
        events_in(tmp_path / "e")


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (ALL[0], "run r started: brats-2021, fedavg, fedprox"),
        (ALL[1], "a joined: training, 12 cases"),
        (ALL[2], "plan 0123456789abcdef agreed for 12 cases; limited: batch size 9 cut to 4"),
        (ALL[4], "fedavg round 2/3: a: loss 0.250 in 62 s"),
        (ALL[5], "fedavg after round 2: a: Dice WT 0.500, TC 0.250, ET 0.125"),
        (ALL[6], "fedavg round 2: a FAILED: data: the site's log says more"),
        (ALL[7], "fedavg round 3: a: reply ignored: it belongs to round 2"),
        (ALL[8], "a is no longer asked: failed in 3 rounds in a row"),
        (ALL[9], "fedavg round 2/3: 4 sites, 62 s"),
        (ALL[10], "fedavg: 5 cases of h scored"),
        (ALL[11], "h: learning-free floor on WT: mean Dice 0.625"),
        (ALL[12], ""),
        (ALL[13], "run finished in 125 s, peak memory 1.5 GiB"),
        (ALL[15], "a left the run"),
        (ALL[14], "h released rank sums of 12 cases and 6 aggregates"),
        (ALL[18], "b waits for a person there to approve the run"),
        (ALL[19], "fedavg round 2/3: a: masked update in 62 s"),
        (ALL[20], "fedavg round 2/3: sum of 3 sites opened: loss 0.250"),
        (
            ALL[21],
            "fedavg round 3/3 LOST, the weights stay: 3 sites must agree who survived, 2 did",
        ),
        (ALL[17], "fedavg: a: Dice 0.375, of its own model 0.750"),
        (ALL[22], "fedavg round 1/3: site-level epsilon 1.90 at 0.001; 4 sites"),
        (ALL[23], "h, i, j released sums of ranks and metrics over 40 cases together"),
        (ALL[24], "fedavg: the cases of h scored"),
    ],
)
def test_an_event_in_words(event: Event, line: str) -> None:
    assert line_of(event, 3) == line
