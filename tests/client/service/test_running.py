import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from client.service.environment import environment
from client.service.files import ServiceFiles
from client.service.running import only_one, running_process, stop
from client.service.service_log import Follower, in_words, last_lines
from client.service.supervise import Pulse
from client.service.units import unit
from client.service.waits import Waits
from common.errors import ConfigError

RECEIVED = "2026-11-21 19:00:03,123 INFO train received"
FAILED = "2026-11-21 19:00:09,001 ERROR train failed"
LOG = f"{RECEIVED}\n{FAILED}\nTraceback (most recent call last):\n  /data/patient-7\n"


def seeded(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - for waits


def test_waits_double_up_to_the_longest_and_begin_anew():
    waits = Waits(longest_s=300.0, rng=seeded(1))
    first = [waits.next_s() for _ in range(12)]
    for plain, wait in zip([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300], first, strict=True):
        assert 0.75 * plain <= wait <= plain
    waits.begin_anew()
    assert waits.next_s() <= 1.0
    assert 225.0 <= waits.long_s() <= 300.0


def test_two_sites_do_not_come_back_at_the_same_time():
    one, other = Waits(rng=seeded(1)), Waits(rng=seeded(2))
    assert [one.next_s() for _ in range(5)] != [other.next_s() for _ in range(5)]


def test_a_site_runs_once(tmp_path):
    files = ServiceFiles(tmp_path / "service")
    with only_one(files):
        assert running_process(files) == os.getpid()
        with pytest.raises(ConfigError, match="this site runs already"), only_one(files):
            pass
    assert running_process(files) is None


def test_stopping_what_does_not_run_says_so(tmp_path):
    assert stop(ServiceFiles(tmp_path / "service")) is False


def test_stopping_waits_for_the_end(tmp_path):
    holder = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from client.service.files import ServiceFiles\n"
        "from client.service.running import only_one\n"
        "with only_one(ServiceFiles(Path(sys.argv[1]))):\n"
        "    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", holder, str(tmp_path)])
    files = ServiceFiles(tmp_path)
    while running_process(files) != child.pid:
        assert child.poll() is None
        time.sleep(0.05)
    assert stop(files) is True
    assert child.wait(10) == -15


def test_a_process_dies_with_the_one_that_started_it(tmp_path):
    child = (
        "import os, sys, time\n"
        "from client.service.processes import die_with_parent\n"
        "die_with_parent(int(sys.argv[1]))\n"
        "open(sys.argv[2], 'w').write(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    parent = (
        "import os, subprocess, sys, time\n"
        "child = [sys.executable, '-c', sys.argv[1], str(os.getpid()), sys.argv[2]]\n"
        "subprocess.Popen(child)\n"
        "time.sleep(60)\n"
    )
    noted = tmp_path / "pid"
    started = subprocess.Popen([sys.executable, "-c", parent, child, str(noted)])
    while not noted.exists() or not noted.read_text():
        assert started.poll() is None
        time.sleep(0.05)
    started.kill()
    started.wait()
    until(lambda: not lives(int(noted.read_text())))


def lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_line_of_the_log_in_words():
    assert in_words(RECEIVED) == "2026-11-21 19:00:03  working: train a round"
    assert in_words("2026-11-21 19:00:05,000 INFO query.measure answered") == (
        "2026-11-21 19:00:05  answered: describe the data"
    )
    assert in_words("2026-11-21 19:00:05,000 WARNING waiting") == (
        "2026-11-21 19:00:05  warning: waiting"
    )


def test_details_of_an_error_are_shown_on_request_only(tmp_path):
    log = tmp_path / "site.log"
    log.write_text(LOG)
    short = last_lines(log, 50, full=False)
    assert [line[21:46] for line in short] == [
        "working: train a round",
        "FAILED: train a round; on",
    ]
    assert last_lines(log, 2, full=True)[-1] == "  /data/patient-7"
    assert last_lines(tmp_path / "none", 5, full=True) == []


def test_a_log_is_followed_in_whole_lines_from_its_end(tmp_path):
    log = tmp_path / "site.log"
    log.write_text("old\n")
    follower = Follower(log)
    with log.open("a") as file:
        file.write("one\ntw")
        file.flush()
        assert list(follower.new_lines()) == ["one"]
        file.write("o\n")
        file.flush()
        assert list(follower.new_lines()) == ["two"]
    log.write_text("")
    assert list(follower.new_lines()) == []


def test_a_pulse_counts_from_its_last_touch(tmp_path):
    pulse = Pulse(tmp_path / "pulse")
    assert pulse.silent_s() >= 0
    assert not pulse.beats
    pulse.path.touch()
    pulse.seen_s -= 100
    assert pulse.silent_s() < 50
    assert pulse.beats
    pulse.seen_s -= 100
    assert pulse.silent_s() >= 100


def test_nothing_is_reported_or_installed(tmp_path):
    found = environment(ServiceFiles(tmp_path))
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert found["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert found["FLWR_HOME"] == str(tmp_path / "flower")


def test_the_unit_starts_this_kit_and_stays_down_when_a_person_is_needed(tmp_path):
    text = unit("hospital-1", tmp_path)
    assert f"ExecStart={sys.executable} -m consilium site start {tmp_path}\n" in text
    assert "Restart=always\n" in text
    assert "RestartPreventExitStatus=2\n" in text


def test_the_commands_that_need_nothing_to_run(make_kit, run):
    made = make_kit(1)
    assert run("site", "stop", made.folder)[:2] == (0, "the site does not run\n")
    assert run("site", "log", made.folder)[:2] == (0, "")
    code, out, _ = run("site", "service", made.folder)
    assert (code, out.splitlines()[0]) == (0, "# /etc/systemd/system/consilium-hospital-1.service")


def test_a_site_that_cannot_start_says_all_that_is_wrong(make_kit, run):
    made = make_kit(1)
    made.write(version="9.9.9")
    (made.folder / "site.key").chmod(0o640)
    code, out, err = run("site", "start", made.folder)
    assert code == 2
    assert "failed       kit: site.key: expected rights 0600" in out
    assert "failed       package: consilium 0.1.0 is installed, the kit is for 9.9.9" in out
    assert err.endswith("this site cannot start; mend first what failed above\n")


def test_what_runs_for_months_beside_the_training_does_not_load_torch():
    small = "client.service.supervise, client.service.check, client.service.supernode"
    code = f"import sys, {small}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_import_of_the_app_leaves_the_accelerator_alone():
    look = (
        "import json, threading, client.app, torch\n"
        "print(json.dumps([torch.cuda.is_initialized(), threading.active_count()]))\n"
    )
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout.splitlines()[-1]) == [False, 1]


def test_a_forked_task_computes_with_all_its_threads():
    work = (
        "import os, sys\n"
        "import client.app, blosc2, numpy as np, torch\n"
        "if __name__ == '__main__':\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "    torch.set_num_threads(2)\n"
        "    layer = torch.nn.Conv3d(1, 8, 3)\n"
        "    layer(torch.ones(1, 1, 40, 40, 40)).sum().backward()\n"
        "    np.ones((600, 600)) @ np.ones((600, 600))\n"
        "    blosc2.asarray(np.ones(1_000_000))[:]\n"
        "    os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", work], check=True, timeout=120)
