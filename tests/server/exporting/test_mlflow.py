"""MLflow's store, read back by MLflow's own client; and that nothing looks for a network.

A store is made once and copied: making its tables takes MLflow seconds.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.errors import ConfigError
from server.exporting.export import Targets, export
from server.exporting.mlflow_store import MlflowClient

NEW_YEAR_MS = 1767225600_000  # 2026-01-01T00:00:00 UTC
PROJECT = Path(__file__).parents[3]
LOOK_OUT = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        print("NETWORK", event, arguments, file=sys.stderr, flush=True)
        raise OSError("no network here")
sys.addaudithook(refuse)
"""
COMMAND = LOOK_OUT + "import consilium; consilium.main()"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    """Return the address of a store without runs."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def runs_in(store: str) -> dict[str, SimpleNamespace]:
    """Return what a store holds by the runs' names: MLflow's run, and its whole history."""
    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("consilium")
    found = client.search_runs([experiment.experiment_id])
    assert len({run.info.run_name for run in found}) == len(found)
    return {
        run.info.run_name: SimpleNamespace(
            run=run,
            history={
                name: [
                    (m.step, m.value, m.timestamp - NEW_YEAR_MS)
                    for m in client.get_metric_history(run.info.run_id, name)
                ]
                for name in run.data.metrics
            },
        )
        for run in found
    }


def test_mlflow_reads_back_what_the_events_say(store: str, run_dir: Callable[..., Path]) -> None:
    export(run_dir(), Targets(mlflow=store), follow=False)
    found = runs_in(store)
    assert set(found) == {"study", "study/fedavg"}
    whole, fedavg = found["study"], found["study/fedavg"]
    assert whole.history == {
        "run/seconds": [(0, 14.0, 14500)],
        "run/peak_memory_bytes": [(0, 1024.0, 14500)],
        "floor/dice/region/WT/site/h": [(0, 0.375, 13500)],
    }
    assert fedavg.history["loss/site/a"] == [(1, 1.0, 3500), (2, 0.5, 6500)]
    assert fedavg.history["loss/mean"] == [(1, 0.875, 5500), (2, 0.4375, 10500)]
    assert fedavg.history["rank/mean"] == [(2, 1.25, 14500)]
    assert fedavg.run.data.tags["mlflow.parentRunId"] == whole.run.info.run_id
    assert fedavg.run.data.tags["consilium.method"] == "fedavg"
    assert whole.run.data.tags["consilium.task"] == "brats-2021"
    assert whole.run.data.tags["consilium.version.torch"] == "2.13"
    for one in (whole, fedavg):
        assert one.run.info.status == "FINISHED"
        assert one.run.info.start_time == NEW_YEAR_MS + 500
        assert one.run.info.end_time == NEW_YEAR_MS + 14500
        assert one.run.data.params["training.learning_rate"] == "0.003"
        assert one.run.data.params["federation.methods"] == "fedavg"


def test_no_path_of_this_machine_is_in_the_store(
    store: str, tmp_path: Path, run_dir: Callable[..., Path]
) -> None:
    export(run_dir(), Targets(mlflow=store), follow=False)
    content = Path(store.removeprefix("sqlite:///")).read_bytes()
    assert b"federation.exclude_after" in content
    for path in (b"/home/someone", b"brain.toml", b"public", b"brains", bytes(tmp_path)):
        assert path not in content
    assert bytes(Path.cwd()) + b"/mlruns/1" not in content  # MLflow's own choice for artifacts


def test_a_run_that_grew_is_continued_and_exported_again_is_the_same(
    store: str, run_dir: Callable[..., Path], lines: SimpleNamespace
) -> None:
    run = run_dir(*lines.whole[:5])
    export(run, Targets(mlflow=store), follow=False)
    found = runs_in(store)
    assert {one.run.info.status for one in found.values()} == {"RUNNING"}
    assert found["study/fedavg"].history["loss/site/a"] == [(1, 1.0, 3500)]
    (run / "events.jsonl").write_text(lines.text_of(*lines.whole))
    for _ in range(2):
        export(run, Targets(mlflow=store), follow=False)
        found = runs_in(store)
        assert {one.run.info.status for one in found.values()} == {"FINISHED"}
        history = found["study/fedavg"].history
        assert history["loss/site/a"] == [(1, 1.0, 3500), (2, 0.5, 6500)]
        assert sum(map(len, history.values())) == 60


def test_what_the_store_holds_is_not_written_again_although_a_file_changed(
    store: str, run_dir: Callable[..., Path]
) -> None:
    run = run_dir()
    export(run, Targets(mlflow=store), follow=False)
    (run / "ranking.json").write_text((run / "ranking.json").read_text().replace("1.25", "1.5"))
    export(run, Targets(mlflow=store), follow=False)
    assert runs_in(store)["study/fedavg"].history["rank/mean"] == [(2, 1.25, 14500)]


def test_a_finished_run_that_is_resumed_runs_again(
    store: str, run_dir: Callable[..., Path], lines: SimpleNamespace
) -> None:
    run = run_dir(*lines.whole, {**lines.started, "resumed": True})
    export(run, Targets(mlflow=store), follow=False)
    assert {one.run.info.status for one in runs_in(store).values()} == {"RUNNING"}


def test_two_runs_of_one_name_stay_apart(
    store: str, tmp_path: Path, run_dir: Callable[..., Path], lines: SimpleNamespace
) -> None:
    export(run_dir(), Targets(mlflow=store), follow=False)
    other = tmp_path / "elsewhere" / "study"
    other.mkdir(parents=True)
    later = lines.at(50, "RunFinished", seconds=50.0, peak_memory_bytes=1)
    (other / "events.jsonl").write_text(lines.text_of(later))
    export(other, Targets(mlflow=store), follow=False)
    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("consilium")
    names = sorted(r.info.run_name for r in client.search_runs([experiment.experiment_id]))
    assert names == ["study", "study", "study/fedavg"]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("file:///mlruns", "expected sqlite:///FILE.db, http://HOST:PORT or https://HOST"),
        ("mlruns", "MLflow no longer takes folders"),
        ("databricks", "expected sqlite:///FILE.db"),
        ("sqlite://", "expected sqlite:///FILE.db"),
        ("sqlite:////proc/none.db", "none.db: expected a database that can be written, found un"),
        ("http://127.0.0.1:9", "expected an MLflow store or server that answers, found API"),
    ],
)
def test_an_address_that_cannot_be_used_is_a_clear_mistake(
    run_dir: Callable[..., Path], address: str, words: str
) -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        export(run_dir(), Targets(mlflow=address), follow=False)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert time.monotonic() - began < 20


def test_a_file_that_is_no_store_is_a_clear_mistake(
    tmp_path: Path, run_dir: Callable[..., Path]
) -> None:
    (tmp_path / "text.db").write_text("not a database, but long enough to be looked at\n" * 20)
    with pytest.raises(ConfigError, match=r"text\.db: .* file is not a database"):
        export(run_dir(), Targets(mlflow=f"sqlite:///{tmp_path / 'text.db'}"), follow=False)


def command_of(run: Path, folder: Path, store: str, *options: str) -> list[str]:
    places = {name: folder / name for name in ("csv", "parquet", "tensorboard")}
    targets = [text for name, path in places.items() for text in (f"--{name}", str(path))]
    arguments = ["events", str(run), *targets, "--mlflow", store, *options]
    return [sys.executable, "-c", COMMAND, *arguments]


def test_the_look_out_sees_what_telemetry_would_do() -> None:
    tried = "import requests; requests.get('https://telemetry.example', timeout=1)"
    done = subprocess.run(
        [sys.executable, "-c", LOOK_OUT + tried], capture_output=True, text=True, check=False
    )
    assert "NETWORK socket." in done.stderr


WRITER = """
import sys, time
from pathlib import Path
from server.event_log import EventLog
from server.events import RoundFinished, RunFinished, SiteTrained
log, enough, round_ = EventLog(Path(sys.argv[1])), Path(sys.argv[2]), 0
while not enough.exists():
    round_ += 1
    for site in ("a", "b"):
        log.append(SiteTrained(method="fedavg", round=round_, site=site, n_cases=1, n_steps=1,
            loss=1.0 / round_, update_norm=1.0, seconds=1.0, upload_bytes=round_))
    log.append(RoundFinished(method="fedavg", round=round_, n_sites=2, seconds=1.0))
    time.sleep(0.1)
log.append(RunFinished(seconds=1.0, peak_memory_bytes=1))
"""


def test_an_export_killed_while_the_run_grows_doubles_and_loses_nothing_and_needs_no_network(
    store: str, tmp_path: Path, run_dir: Callable[..., Path], lines: SimpleNamespace
) -> None:
    run, out, enough = run_dir(lines.started), tmp_path / "out", tmp_path / "enough"
    log, command = run / "events.jsonl", command_of(run, out, store, "--follow")
    write = [sys.executable, "-c", WRITER, str(log), str(enough)]
    with subprocess.Popen(write, cwd=PROJECT, env=_environment()) as writing:
        try:
            with subprocess.Popen(command, cwd=PROJECT, env=_environment()) as exporting:
                try:
                    _wait_until_larger(out / "tensorboard" / "fedavg", 20_000)
                finally:
                    exporting.kill()
            assert exporting.returncode == -signal.SIGKILL
            assert writing.poll() is None
        finally:
            enough.touch()
    done = subprocess.run(
        command, cwd=PROJECT, env=_environment(), capture_output=True, text=True, check=True
    )
    rounds = list(range(1, log.read_text().count("RoundFinished") + 1))
    assert len(rounds) > 5
    n_events = 3 * len(rounds) + 2
    assert (done.stdout, done.stderr) == (f"{run}: {n_events} events exported\n", "")
    history = runs_in(store)["study/fedavg"].history
    read = EventAccumulator(str(out / "tensorboard" / "fedavg"))
    read.Reload()
    for name in ("loss/site/a", "loss/site/b", "loss/mean", "upload_bytes/round", "sites/failed"):
        assert [step for step, _, _ in history[name]] == rounds
        assert [event.step for event in read.Scalars(name)] == rounds
    assert [value for _, value, _ in history["upload_bytes/site/b"]] == rounds
    table = pd.read_csv(out / "csv" / "SiteTrained.csv")
    assert table["round"].tolist() == [round_ for round_ in rounds for _ in "ab"]
    assert pd.read_parquet(out / "parquet" / "RoundFinished.parquet")["round"].tolist() == rounds


def _wait_until_larger(folder: Path, n_bytes: int) -> None:
    """Wait until the files in a folder are larger than that."""
    deadline = time.monotonic() + 120
    while sum(path.stat().st_size for path in folder.glob("*")) < n_bytes:
        assert time.monotonic() < deadline, "the export stands still"
        time.sleep(0.02)


def _environment() -> dict[str, str]:
    """Return an environment without what tells MLflow of a test: its telemetry would hide."""
    return {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ} | {
        "PYTHONPATH": str(PROJECT),
        "OMP_NUM_THREADS": "1",
    }
