import json

from common.codec import write_toml


def test_the_status_of_a_coordinator_that_does_not_run_says_so_and_ends_with_1(kit, run):
    code, out, err = run("coordinator", "status", "--kit", kit.folder.path)
    assert (code, err) == (1, "")
    assert "NOT RUNNING" in out
    assert "  revoked: revoked at 2024-01-01T00:00:00+00:00" in out.splitlines()
    assert "  early: unknown; KIT NOT VALID before 2098-01-01" in out.splitlines()
    assert "  expired: unknown; KIT EXPIRED on 2021-01-01" in out.splitlines()


def test_programs_read_the_same_status(kit, run):
    code, out, _ = run("coordinator", "status", "--json", "--kit", kit.folder.path)
    found = json.loads(out)
    assert code == 1
    assert (found["healthy"], found["running"], found["superlink"]) == (False, False, False)
    assert {site["site"] for site in found["sites"]} == {
        "alpha",
        "beta",
        "revoked",
        "expired",
        "early",
    }


def test_the_kit_comes_from_the_environment_or_the_current_folder(kit, run, monkeypatch, tmp_path):
    monkeypatch.setenv("CONSILIUM_KIT", str(kit.folder.path))
    assert run("coordinator", "status")[0] == 1
    monkeypatch.delenv("CONSILIUM_KIT")
    monkeypatch.chdir(kit.folder.path)
    assert run("coordinator", "status")[0] == 1
    monkeypatch.chdir(tmp_path)
    code, _, err = run("coordinator", "status")
    assert code == 2
    assert err.startswith("consilium: --kit: expected a coordinator's kit")


def test_stopping_what_does_not_run_is_a_mistake(kit, run):
    code, _, err = run("coordinator", "stop", "--kit", kit.folder.path)
    assert code == 2
    assert err == f"consilium: {kit.folder.path}: its coordinator is not running\n"
    code, _, err = run("coordinator", "stop", "--run", "one", "--kit", kit.folder.path)
    assert (code, err) == (2, "consilium: --run: expected the name of a run, none; found 'one'\n")


def test_a_run_is_noted_for_the_coordinator_and_can_be_stopped(kit, run, tiny_study, tmp_path):
    write_toml(tmp_path / "study.toml", tiny_study.config)
    code, out, err = run(
        "coordinator", "run", tmp_path / "study.toml", "--kit", kit.folder.path, "--out",
        tmp_path / "first",
    )  # fmt: skip
    assert (code, out.splitlines()[0]) == (0, f"run folder: {tmp_path / 'first'}")
    assert f"consilium coordinator start {kit.folder.path}" in err
    _, out, _ = run("coordinator", "status", "--kit", kit.folder.path)
    assert "  first: is kept going; fedavg: round 0 of 2" in out.splitlines()
    assert run("coordinator", "stop", "--run", "first", "--kit", kit.folder.path)[0] == 0
    _, out, _ = run("coordinator", "status", "--kit", kit.folder.path)
    assert "  first: stopped; fedavg: round 0 of 2" in out.splitlines()


def test_a_site_that_does_not_exist_is_named_with_the_nearest_one(kit, run, tiny_study, tmp_path):
    write_toml(tmp_path / "study.toml", tiny_study.config)
    code, _, err = run(
        "coordinator", "run", tmp_path / "study.toml", "--kit", kit.folder.path, "--admit", "alfa"
    )
    assert code == 2
    assert "consilium: --admit: 'alfa' is no site of the kit; did you mean 'alpha'?" in err
    assert not kit.folder.runs.exists()


def test_service_files_are_printed(kit, run):
    code, out, _ = run("coordinator", "service", kit.folder.path)
    assert (code, "Restart=always" in out) == (0, True)
    code, out, _ = run("coordinator", "service", kit.folder.path, "--for", "container")
    assert (code, "ENTRYPOINT" in out) == (0, True)
    assert run("coordinator", "service", kit.folder.path, "--for", "docker")[0] == 2
