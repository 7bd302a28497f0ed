from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.codec import read_toml, write_toml
from common.config import RunConfig
from common.errors import ConfigError
from common.task import Task
from server.coordinator.run_start import RunRequest, default_folder, make_run, read_request
from server.coordinator.wanted_runs import WantedRun, change, named, read_wanted, want


@pytest.fixture
def request_of(toy_config, declared):
    def make(**federation: object) -> RunRequest:
        task = declared("alpha", 1).fingerprint
        return RunRequest(
            toy_config(**federation),
            Task(
                name="toy",
                version=1,
                channels=tuple(task.channels),
                labels={"background": 0, "one": 1},
                regions={"one": (1,)},
            ),
        )

    return make


def test_a_run_folder_holds_configuration_and_task(kit, request_of, tmp_path):
    asked = request_of(held_out=["beta"], min_sites=1)
    folder = make_run(asked, kit.folder.read(), tmp_path / "run")
    assert read_toml(RunConfig, folder.config) == asked.config
    assert read_toml(Task, folder.task) == asked.task


@pytest.mark.parametrize(
    ("federation", "says"),
    [
        (
            {"held_out": ["betta"], "min_sites": 1},
            "federation.held_out: 'betta' is no site of the kit; did you mean 'beta'?",
        ),
        (
            {"held_out": ["revoked"], "min_sites": 1},
            "federation.held_out: site 'revoked' was revoked",
        ),
        (
            {"min_sites": 5},
            (
                "federation.min_sites: expected at most 4, the kit's training sites "
                "(alpha, beta, early, expired), found 5"
            ),
        ),
    ],
)
def test_a_run_that_does_not_fit_the_kits_sites_is_refused_and_nothing_written(
    kit, request_of, tmp_path, federation, says
):
    with pytest.raises(ConfigError) as refused:
        make_run(request_of(**federation), kit.folder.read(), tmp_path / "run")
    assert says in str(refused.value).splitlines()
    assert not (tmp_path / "run").exists()


def test_a_root_site_has_to_be_a_training_site_of_the_kit(kit, request_of, tmp_path):
    trust = {"methods": ["trust"], "min_sites": 1}
    with pytest.raises(ConfigError, match="did you mean 'alpha'"):
        make_run(request_of(root_site="alfa", **trust), kit.folder.read(), tmp_path / "run")


def test_a_folder_with_another_run_is_left_alone_and_one_with_this_run_is_resumed(
    kit, request_of, tmp_path
):
    known = kit.folder.read()
    make_run(request_of(), known, tmp_path / "run")
    make_run(request_of(), known, tmp_path / "run", without=("alpha",))
    with pytest.raises(ConfigError, match="holds another run"):
        make_run(request_of(rounds=9), known, tmp_path / "run")


def test_sites_come_to_and_leave_only_a_run_that_exists(kit, request_of, tmp_path):
    with pytest.raises(ConfigError, match="expected for a run that is resumed"):
        make_run(request_of(), kit.folder.read(), tmp_path / "run", admit=("alpha",))


def test_paths_of_a_configuration_are_made_whole_and_its_partition_is_left_out(
    tiny_study, tmp_path
):
    written = tiny_study.config_with(task="my.toml")
    write_toml(tmp_path / "study.toml", written)
    with pytest.raises(ConfigError, match=str(tmp_path / "my.toml")):
        read_request(tmp_path / "study.toml")
    write_toml(tmp_path / "study.toml", tiny_study.config)
    found = read_request(tmp_path / "study.toml")
    assert found.task.name == "brats-2021"
    assert found.config.simulation is None


def test_a_run_lies_below_the_kit_if_nobody_says_otherwise():
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert default_folder(Path("/kit"), Path("x/study.toml"), now) == Path(
        "/kit/runs/study-20260102-030405"
    )


def test_wanted_runs_are_kept_in_order_and_changed_one_by_one(tmp_path):
    path = tmp_path / "state" / "runs.json"
    assert read_wanted(path) == ()
    for name in ("one", "two"):
        want(path, WantedRun(folder=str(tmp_path / name), added="2026-01-02T03:04:05+00:00"))
    change(path, str(tmp_path / "one"), given_up="no sites")
    change(path, str(tmp_path / "unknown"), stopped=True)
    assert [(run.run.name, run.is_wanted) for run in read_wanted(path)] == [
        ("one", False),
        ("two", True),
    ]
    want(path, WantedRun(folder=str(tmp_path / "one"), added="2026-02-02T03:04:05+00:00"))
    assert named(path, "one").is_wanted
    with pytest.raises(ConfigError, match="one, two; found 'three'"):
        named(path, "three")
