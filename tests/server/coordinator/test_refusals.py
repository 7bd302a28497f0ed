from datetime import UTC, datetime, timedelta

from server.coordinator.refusals import MAX_BYTES, RefusalError, RefusalLog, refusals_since

START = datetime(2026, 1, 2, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def test_the_same_refusal_is_told_once_a_minute_with_a_count(tmp_path):
    clock = Clock()
    log = RefusalLog(tmp_path / "refused.jsonl", clock)
    for _ in range(10):
        log.append(RefusalError("token", "no"), "10.0.0.1", "/v1/control/start-run")
        clock.now += timedelta(seconds=1)
    log.append(RefusalError("token", "no"), "10.0.0.2", "/v1/control/start-run")
    clock.now += timedelta(seconds=60)
    log.append(RefusalError("token", "no"), "10.0.0.1", "/v1/control/start-run")
    found = refusals_since(tmp_path / "refused.jsonl", START)
    assert [(one.address, one.count) for one in found] == [
        ("10.0.0.1", 1),
        ("10.0.0.2", 1),
        ("10.0.0.1", 10),
    ]


def test_many_addresses_do_not_fill_memory_or_disk(tmp_path):
    log = RefusalLog(tmp_path / "refused.jsonl", Clock())
    for number in range(3000):
        address = f"10.0.{number // 256}.{number % 256}"
        log.append(RefusalError("not-for-sites", "no"), address, "/" + 10_000 * "x")
    found = refusals_since(tmp_path / "refused.jsonl", START)
    assert len(found) == 1001
    assert found[-1].address == "many"
    assert max(len(one.path) for one in found) == 80


def test_a_log_that_is_full_begins_again_and_the_older_one_is_still_read(tmp_path):
    path, clock = tmp_path / "refused.jsonl", Clock()
    log = RefusalLog(path, clock)
    log.append(RefusalError("token", "no"), "10.0.0.1", "/")
    path.write_text(path.read_text() + MAX_BYTES * " " + "\n")
    clock.now += timedelta(hours=1)
    log.append(RefusalError("revoked", "no", "alpha"), "10.0.0.1", "/")
    assert path.stat().st_size < 1000
    assert [one.reason for one in refusals_since(path, START)] == ["token", "revoked"]
    assert [one.site for one in refusals_since(path, clock.now)] == ["alpha"]
