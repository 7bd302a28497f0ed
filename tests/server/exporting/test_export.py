"""The command: what it needs, whose folder it writes into, and what it refuses."""

import fcntl
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import ConfigError
from server.exporting.export import Targets, export

Run = Callable[..., tuple[int, str, str]]


def test_the_command_says_how_many_events_it_exported(
    run: Run, tmp_path: Path, run_dir: Callable[..., Path]
) -> None:
    folder, out = run_dir(), tmp_path / "out"
    assert run("events", folder, "--csv", out) == (0, f"{folder}: 15 events exported\n", "")
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) == [
        "FloorMeasured.csv",
        "HeldOutScored.csv",
        "RoundFinished.csv",
        "RunFinished.csv",
        "RunStarted.csv",
        "SiteJoined.csv",
        "SiteTrained.csv",
        "SiteValidated.csv",
        "export.json",
        "scores.csv",
    ]


def test_one_folder_can_have_csv_and_parquet(tmp_path: Path, run_dir: Callable[..., Path]) -> None:
    both = Targets(csv=tmp_path / "out", parquet=tmp_path / "out")
    export(run_dir(), both, follow=False)
    export(tmp_path / "study", both, follow=False)
    assert (tmp_path / "out" / "scores.csv").is_file()
    assert (tmp_path / "out" / "scores.parquet").is_file()


def test_nothing_wanted_is_a_mistake(run: Run, run_dir: Callable[..., Path]) -> None:
    code, _, told = run("events", run_dir())
    assert code == 2
    assert told == (
        "consilium: expected at least one of --csv, --parquet, --tensorboard and --mlflow\n"
    )


def test_a_log_without_events_is_a_mistake(tmp_path: Path, run_dir: Callable[..., Path]) -> None:
    folder = run_dir()
    (folder / "events.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"events\.jsonl: expected events, found none"):
        export(folder, Targets(csv=tmp_path / "out"), follow=False)


@pytest.mark.parametrize(
    ("extra", "package", "target"),
    [
        ("parquet", "pyarrow", "out"),
        ("tensorboard", "tensorboard", "out"),
        ("mlflow", "mlflow", "sqlite:///out.db"),
    ],
)
def test_without_an_extra_one_line_says_how_to_install_it(
    run: Run,
    run_dir: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    extra: str,
    package: str,
    target: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    code, _, told = run("events", run_dir(), f"--{extra}", target)
    assert code == 2
    assert told == (
        f"consilium: --{extra}: expected the package {package}, found none; "
        f"pip install 'consilium[{extra}]'\n"
    )


def test_csv_needs_no_extra(
    run: Run, tmp_path: Path, run_dir: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("tensorboard", "mlflow"):
        monkeypatch.setitem(sys.modules, package, None)
    assert run("events", run_dir(), "--csv", tmp_path / "out")[0] == 0


def test_a_folder_with_other_files_is_left_alone(
    tmp_path: Path, run_dir: Callable[..., Path]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "scores.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"out: expected an empty folder .*, found scores\.csv"):
        export(run_dir(), Targets(csv=out), follow=False)
    assert (out / "scores.csv").read_text() == "mine"
    assert [path.name for path in out.iterdir()] == ["scores.csv"]


def test_a_folder_of_another_runs_exports_is_left_alone(
    tmp_path: Path, run_dir: Callable[..., Path], lines: SimpleNamespace
) -> None:
    out, folder = Targets(tensorboard=tmp_path / "out"), run_dir()
    export(folder, out, follow=False)
    (folder / "events.jsonl").write_text(lines.text_of(lines.finished(40, 1)))
    with pytest.raises(ConfigError, match=r"found exports of run study, begun 2026-01-01 00:00:00"):
        export(folder, out, follow=False)


def test_two_exports_into_one_folder_are_refused(
    tmp_path: Path, run_dir: Callable[..., Path]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is exporting into this folder"):
            export(run_dir(), Targets(csv=out), follow=False)
