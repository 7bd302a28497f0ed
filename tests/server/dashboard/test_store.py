"""A folder of runs that come, grow, fail to be read, and go."""

import asyncio
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest

from server.coordinator.run_status import overhead_of
from server.dashboard.alarms import Limits
from server.dashboard.log_page import LogQuery
from server.dashboard.store import RunStore
from server.dashboard.views import Alarm, RunDetail, RunSummary
from server.event_log import read_events
from server.events import RoundFinished, SiteTrained
from server.run_folder import RunFolder
from simulation.invented_events import InventedRun
from simulation.invented_runs import CORRUPT_LINES, log_line, older_lines, write_invented

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIVE = InventedRun("live", ending="running")


def plenty(_: Path) -> int:
    return 10**15


def store_of(folder: Path, **options: object) -> RunStore:
    store = RunStore(folder, Limits(), **{"free_bytes": plenty, **options})  # type: ignore[arg-type]
    store.poll(NOON)
    return store


def lines(store: RunStore) -> dict[str, RunSummary]:
    return {summary.name: summary for summary in store.summaries()}


def detail(store: RunStore, name: str, now: datetime = NOON) -> RunDetail:
    found = store.detail(name, now)
    assert found is not None
    return found


def append(run: RunFolder, *events: SiteTrained | RoundFinished, at: datetime = NOON) -> None:
    with run.events.open("ab") as file:
        for event in events:
            file.write(log_line(at, event) + b"\n")


def answer(site: str, round_: int = 8) -> SiteTrained:
    return SiteTrained(
        method="fedprox", round=round_, site=site, n_cases=9, n_steps=5, loss=-0.5,
        update_norm=1.0, seconds=200.0, upload_bytes=1000,
    )  # fmt: skip


def test_runs_come_and_go_and_other_folders_are_none(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    assert store.summaries() == ()
    write_invented(tmp_path, InventedRun("done"), NOON)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text.txt").write_text("no run")
    (tmp_path / "file").write_text("no folder")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "events.jsonl").write_text("")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "config.toml").write_text("")
    assert store.poll(NOON)
    assert {name: line.state for name, line in lines(store).items()} == {
        "done": "finished",
        "made": "waiting",
    }
    (tmp_path / "done").rename(tmp_path / "renamed")
    assert store.poll(NOON)
    assert list(lines(store)) == ["made", "renamed"]
    assert store.detail("done", NOON) is None
    shutil.rmtree(tmp_path / "renamed")
    assert store.poll(NOON)
    assert list(lines(store)) == ["made"]


def test_a_folder_may_be_one_run(tmp_path: Path) -> None:
    write_invented(tmp_path, LIVE, NOON)
    store = store_of(tmp_path / "live")
    assert list(lines(store)) == ["live"]
    assert detail(store, "live").summary.state == "running"


def test_a_folder_that_vanishes_shows_nothing_and_comes_back(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_invented(runs, LIVE, NOON)
    store = store_of(runs)
    runs.rename(tmp_path / "away")
    assert store.poll(NOON)
    assert store.summaries() == ()
    (tmp_path / "away").rename(runs)
    assert store.poll(NOON)
    assert list(lines(store)) == ["live"]


def test_nothing_new_changes_nothing(tmp_path: Path) -> None:
    write_invented(tmp_path, LIVE, NOON)
    write_invented(tmp_path, InventedRun("done"), NOON)
    store = store_of(tmp_path)
    revision = store.revision
    assert not any(store.poll(NOON + timedelta(seconds=n)) for n in range(40))
    assert store.revision == revision


def test_only_the_run_that_grew_changes(tmp_path: Path) -> None:
    write_invented(tmp_path, InventedRun("done"), NOON)
    live = write_invented(tmp_path, LIVE, NOON)
    store = store_of(tmp_path)
    before = lines(store)
    append(live, answer("site-03"))
    assert store.poll(NOON)
    after = lines(store)
    assert after["done"] is before["done"]
    assert after["live"].revision > before["live"].revision
    assert after["live"].reason == "waits for site-04"
    append(live, answer("site-04"), RoundFinished(method="fedprox", round=8, n_sites=4, seconds=9))
    store.poll(NOON)
    assert lines(store)["live"].round == 8


def test_a_site_goes_silent_as_time_passes(tmp_path: Path) -> None:
    write_invented(tmp_path, LIVE, NOON)
    store = store_of(tmp_path)
    assert store.alarms() == ()
    assert store.poll(NOON + timedelta(minutes=20))
    assert [(alarm.rule, alarm.site) for alarm in store.alarms()] == [
        ("site silent", "site-03"),
        ("site silent", "site-04"),
    ]
    found = detail(store, "live", NOON + timedelta(minutes=20))
    assert {row.site: row.state for row in found.sites}["site-03"] == "silent"
    assert found.summary.n_alarms == len(found.alarms) == 2


def test_a_detail_shows_what_lies_beside_the_log(tmp_path: Path) -> None:
    write_invented(tmp_path, InventedRun("done", private=True), NOON)
    found = detail(store_of(tmp_path), "done")
    assert list(found.rounds) == ["fedavg", "fedprox"]
    assert found.rounds["fedavg"].mean_dice().last == pytest.approx(0.792, abs=0.001)
    assert found.files.plan is not None
    assert len(found.files.scores) == 144
    assert found.files.ranking is not None
    assert found.files.config["federation.rounds"] == "10"
    assert found.files.errors == ()
    assert [event.site for event in found.held_out] == ["held-out-1"] * 2
    assert found.notes[0][1] == "a made-up run: nothing was trained"


@pytest.mark.parametrize("run", [LIVE, replace(LIVE, masked=True, failing="site-01")])
def test_what_is_not_training_is_what_the_coordinator_says(
    tmp_path: Path, run: InventedRun
) -> None:
    folder = write_invented(tmp_path, run, NOON)
    events = [event for _, event in read_events(folder.events)]
    expected = overhead_of(events, [e for e in events if isinstance(e, RoundFinished)])
    found = detail(store_of(tmp_path), "live").overhead
    assert found is not None
    assert expected is not None
    assert found.n_rounds == expected.n_rounds == 17
    assert found.round_seconds == expected.round_seconds == 17 * 300
    assert found.training_seconds == pytest.approx(expected.training_seconds)


def test_a_damaged_file_costs_only_itself(tmp_path: Path) -> None:
    run = write_invented(tmp_path, InventedRun("done"), NOON)
    run.plan.write_text("{")
    run.ranking.write_bytes(b"\xff")
    run.scores("fedavg", "held-out-1").write_text("case,region\n")
    run.config.write_text("damaged [")
    found = detail(store_of(tmp_path), "done")
    assert (found.files.plan, found.files.ranking, len(found.files.scores)) == (None, None, 72)
    assert [error.split(":")[0] for error in found.files.errors] == [
        "config.toml", "plan.json", "ranking.json", "scores/fedavg/held-out-1.csv",
    ]  # fmt: skip
    assert str(tmp_path) not in " ".join(found.files.errors)


def test_a_log_with_damage_shows_the_rest(tmp_path: Path) -> None:
    spoilt = (*CORRUPT_LINES, *older_lines(NOON))
    write_invented(tmp_path, LIVE, NOON, spoilt=spoilt)
    store = store_of(tmp_path)
    line = lines(store)["live"]
    assert (line.state, line.round, line.n_unreadable, line.worst) == ("running", 7, 6, "warning")
    assert [one.number for one in detail(store, "live").unreadable] == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(("make", "remove"), [(os.mkdir, os.rmdir), (os.mkfifo, os.unlink)])
def test_a_log_that_cannot_be_opened_takes_nothing_else_down(
    tmp_path: Path, make: Callable[[Path], None], remove: Callable[[Path], None]
) -> None:
    write_invented(tmp_path, InventedRun("done"), NOON)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.toml").write_text("")
    make(tmp_path / "odd" / "events.jsonl")
    store = store_of(tmp_path)
    assert lines(store)["odd"].state == "unreadable"
    assert lines(store)["odd"].reason == "events.jsonl cannot be read: it is not a file"
    assert lines(store)["done"].state == "finished"
    assert store.search("odd", LogQuery(), NOON) is None
    remove(tmp_path / "odd" / "events.jsonl")
    write_invented(tmp_path, replace(LIVE, name="odd"), NOON)
    store.poll(NOON)
    assert lines(store)["odd"].state == "running"


@pytest.mark.parametrize("name", ["", "..", "../live", "/etc", "live/../live", "nobody"])
def test_an_unknown_name_is_nothing(tmp_path: Path, name: str) -> None:
    write_invented(tmp_path, LIVE, NOON)
    store = store_of(tmp_path)
    assert store.detail(name, NOON) is None
    assert store.search(name, LogQuery(), NOON) is None
    assert store.kinds(name) == ()


def test_what_nobody_looks_at_is_forgotten_and_read_again(tmp_path: Path) -> None:
    for n in range(4):
        run = replace(LIVE, name=f"run-{n}")
        write_invented(tmp_path, run, NOON)
    store = store_of(tmp_path, most_bytes=1)
    remembered = [name for name, run in store._runs.items() if run.data is not None]
    assert len(remembered) == 1
    assert len(lines(store)) == 4
    store.poll(NOON + timedelta(minutes=20))
    assert len(store.alarms()) == 8  # also of those that were forgotten
    assert detail(store, "run-0").rounds["fedavg"].n_sites[1] == 4
    page = store.search("run-1", LogQuery(), NOON)
    assert page is not None
    assert page.n_total == 169
    append(RunFolder(tmp_path / "run-2"), answer("site-03"))
    store.poll(NOON + timedelta(minutes=21))
    assert lines(store)["run-2"].reason == "waits for site-04"


def test_a_full_disk_is_an_alarm_of_the_folder(tmp_path: Path) -> None:
    free = [0]
    store = store_of(tmp_path, free_bytes=lambda _: free[0])
    (alarm,) = store.alarms()
    assert (alarm.rule, alarm.run, alarm.since) == ("disk nearly full", "", NOON)
    assert not store.poll(NOON + timedelta(hours=1))
    assert store.alarms()[0].since == NOON
    free[0] = 10**15
    assert store.poll(NOON + timedelta(hours=2))
    assert store.alarms() == ()


def test_another_parts_alarm_is_shown_until_it_is_taken_back(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    alarm = Alarm("webhook failing", "warning", "", "", NOON, "text", "why")
    store.raise_alarm("webhook", alarm)
    assert store.alarms() == (alarm,)
    revision = store.revision
    store.raise_alarm("webhook", None)
    assert store.alarms() == ()
    assert store.revision == revision + 1
    store.raise_alarm("webhook", None)
    assert store.revision == revision + 1


def test_whoever_waits_is_told_of_a_change_in_another_thread(tmp_path: Path) -> None:
    live = write_invented(tmp_path, LIVE, NOON)
    store = store_of(tmp_path)

    async def wait() -> int:
        before = store.revision
        waiting = [asyncio.create_task(store.changed(since=before)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        append(live, answer("site-03"))
        thread = Thread(target=store.poll, args=[NOON])
        thread.start()
        found = await asyncio.wait_for(asyncio.gather(*waiting), 10)
        thread.join()
        assert min(found) > before
        return await store.changed(since=before)

    assert asyncio.run(wait()) == store.revision
    assert store._waiting == set()


def test_a_log_that_was_replaced_is_another_run(tmp_path: Path) -> None:
    write_invented(tmp_path, InventedRun("r"), NOON)
    store = store_of(tmp_path)
    shutil.rmtree(tmp_path / "r")
    write_invented(tmp_path, InventedRun("r", ending="waiting", n_sites=6), NOON)
    store.poll(NOON)
    assert lines(store)["r"].state == "waiting"
    assert len(detail(store, "r").sites) == 3


def test_reading_leaves_no_trace(tmp_path: Path) -> None:
    write_invented(tmp_path, InventedRun("done"), NOON)
    stamps: Callable[[], dict[Path, int]] = lambda: {  # noqa: E731 - used twice, here
        path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))
    }
    before = stamps()
    store = store_of(tmp_path)
    detail(store, "done")
    store.search("done", LogQuery(text="a"), NOON)
    assert stamps() == before
