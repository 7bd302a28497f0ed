"""The privacy ledger: opened by a person, believed only when it is whole."""

import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from client.chain.appending import append, head_file
from client.privacy.entry import (
    FORMAT,
    NOISY_STEPS,
    RELEASED,
    WITHOUT_PRIVACY,
    Entry,
    new_entry,
)
from client.privacy.ledger import load_account, open_ledger, record_entry, require_account
from common.errors import ConfigError, PolicyError
from common.privacy.mechanism import NoisySteps


def noisy(run: str = "r", steps: int = 5, **fields: object) -> Entry:
    mechanism = NoisySteps(sampling_rate=0.1, noise_multiplier=2.0, steps=steps)
    return new_entry(NOISY_STEPS, run=run, method="fedavg", round=1, steps=mechanism, **fields)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "privacy.jsonl"
    open_ledger(path, 8.0, 1e-3, data_set="glioma 2026")
    append(path, noisy(), FORMAT)
    append(path, noisy("s", 7), FORMAT)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(PolicyError) as refused:
        require_account(path)
    assert refused.value.rule == "privacy"
    return str(refused.value)


def test_a_ledger_keeps_its_budget_and_all_noisy_steps(ledger: Path):
    account = require_account(ledger)
    assert account.budget is not None
    assert (account.budget.epsilon, account.budget.delta) == (8.0, 1e-3)
    assert [steps.steps for steps in account.noisy] == [5, 7]
    assert [steps.steps for steps in account.of_run("s")] == [7]
    assert [steps.steps for steps in account.of_other_runs("s")] == [5]
    assert stat.S_IMODE(ledger.stat().st_mode) == 0o600


def test_without_a_ledger_nothing_is_believed(tmp_path: Path):
    assert "expected the privacy ledger of this data set, found none" in refusal(tmp_path / "x")


def test_a_deleted_ledger_is_not_a_new_one(ledger: Path):
    ledger.unlink()
    assert "found none" in refusal(ledger)
    with pytest.raises(ConfigError, match="this one is open already"):
        open_ledger(ledger, 8.0, 1e-3)
    with pytest.raises(ConfigError, match="lines are missing"):
        open_ledger(ledger, 8.0, 1e-3, reason="please")


def test_a_ledger_without_its_head_is_refused(ledger: Path):
    head_file(ledger).unlink()
    assert "privacy.head: is missing" in refusal(ledger)
    with pytest.raises(PolicyError, match="expected beside"):
        record_entry(ledger, noisy())


def test_a_shortened_ledger_is_refused(ledger: Path):
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:-1]))
    assert "the last ones are missing" in refusal(ledger)
    with pytest.raises(PolicyError, match="lines are missing"):
        record_entry(ledger, noisy())


def test_a_changed_line_is_refused(ledger: Path):
    ledger.write_bytes(
        ledger.read_bytes().replace(b'"noise_multiplier":2.0', b'"noise_multiplier":9.0', 1)
    )
    assert "was changed" in refusal(ledger)
    with pytest.raises(ConfigError, match="was changed"):
        open_ledger(ledger, 8.0, 1e-3, reason="mended")


def test_a_damaged_head_is_refused(ledger: Path):
    head_file(ledger).write_text("{")
    assert "privacy.head: expected JSON" in refusal(ledger)


def test_a_line_of_an_unknown_kind_costs_infinity(ledger: Path):
    append(ledger, new_entry("noisy-median", run="r"), FORMAT)
    assert "entry 4: 'noisy-median' is not understood" in refusal(ledger)
    assert len(load_account(ledger).entries) == 4


def test_noisy_steps_that_do_not_say_how_many_are_not_understood(ledger: Path):
    append(ledger, new_entry(NOISY_STEPS, run="r"), FORMAT)
    assert "is not understood" in refusal(ledger)


def test_after_training_without_privacy_a_person_has_to_open_it_again(ledger: Path):
    append(ledger, new_entry(WITHOUT_PRIVACY, run="open", method="fedavg", round=1), FORMAT)
    assert "run open trained on these patients without privacy" in refusal(ledger)
    with pytest.raises(ConfigError, match="needs --reason"):
        open_ledger(ledger, 8.0, 1e-3)
    open_ledger(ledger, 9.0, 1e-3, reason="the model of run open was deleted")
    account = require_account(ledger)
    assert [steps.steps for steps in account.noisy] == [5, 7]
    assert account.budget is not None
    assert account.budget.epsilon == 9.0


def test_what_left_without_noise_costs_no_epsilon(ledger: Path):
    record_entry(ledger, new_entry(RELEASED, run="r", what="counts"))
    assert len(require_account(ledger).noisy) == 2


def test_the_account_is_looked_at_again_when_somebody_else_wrote(ledger: Path):
    looked: list[int] = []
    known = record_entry(ledger, noisy(), 3, lambda account: looked.append(len(account.entries)))
    assert (known, looked) == (4, [])
    append(ledger, noisy("other"), FORMAT)
    known = record_entry(ledger, noisy(), 4, lambda account: looked.append(len(account.entries)))
    assert (known, looked) == (6, [5])


def test_on_a_full_disk_nothing_is_done(tmp_path: Path):
    path = tmp_path / "privacy.jsonl"
    path.symlink_to("/dev/full")
    head_file(path).write_text('{"count": 0, "hash": "' + "0" * 64 + '", "bytes": 0}')
    with pytest.raises(PolicyError, match="No space left on device; nothing is trained that is"):
        record_entry(path, noisy())


STEPPER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_ledger import noisy
from client.privacy.ledger import record_entry
done = open(sys.argv[2], "ab", buffering=0)
while True:
    record_entry(Path(sys.argv[1]), noisy(steps=3))
    for _ in range(3):
        done.write(b".")
"""


def test_a_process_that_is_killed_never_did_more_than_is_written_down(tmp_path: Path):
    path, done = tmp_path / "privacy.jsonl", tmp_path / "done"
    open_ledger(path, 1000.0, 1e-3)
    for wait_s in (0.0, 0.013, 0.027):
        before = done.stat().st_size if done.exists() else 0
        process = subprocess.Popen(
            [sys.executable, "-c", STEPPER, str(path), str(done), str(Path(__file__).parent)]
        )
        while not done.exists() or done.stat().st_size < before + 9:
            time.sleep(0.002)
            assert process.poll() is None
        time.sleep(wait_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        n_done = done.stat().st_size
        n_written = sum(steps.steps for steps in require_account(path).noisy)
        assert n_done <= n_written <= n_done + 4 * 3
    record_entry(path, noisy())
    assert require_account(path).entries[-1].run == "r"
