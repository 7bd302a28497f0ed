"""`consilium provision` as a study lead uses it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from common.kit_checksums import kit_digest

Run = Callable[..., tuple[int, str, str]]
TEXT = """
name = "glioma"
address = "127.0.0.1:9092"
sites = ["north", "south"]
task = "brats-2021"
contact = "Dr. Example, telephone 0000"
"""


@pytest.fixture
def federation(tmp_path: Path) -> Path:
    path = tmp_path / "FEDERATION.toml"
    path.write_text(TEXT)
    return path


def test_it_says_of_each_kit_where_it_is_how_long_it_lasts_and_what_to_read_out(
    run: Run, federation: Path, tmp_path: Path
) -> None:
    kits = tmp_path / "kits"
    code, out, err = run("provision", federation, "-o", kits)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "coordinator: new: carry it to the coordinator's machine"
    assert lines[4] == "north: new: give it to the hospital"
    assert lines[5] == f"    folder       {kits / 'north'}"
    assert lines[6].startswith("    valid until  20")
    told = lines[7].removeprefix("    SHA-256      ").split(" ")
    assert [len(group) for group in told] == [4] * 16
    assert "".join(told) == kit_digest(kits / "north")


def test_a_second_time_it_says_that_nothing_changed(
    run: Run, federation: Path, tmp_path: Path
) -> None:
    run("provision", federation, "-o", tmp_path / "kits")
    code, out, err = run("provision", federation, "-o", tmp_path / "kits")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "glioma: nothing to change"
    assert "north: as before" in out


def test_it_says_who_needs_a_kit_again(run: Run, federation: Path, tmp_path: Path) -> None:
    kits = tmp_path / "kits"
    run("provision", federation, "-o", kits)
    federation.write_text(TEXT.replace('"south"]', '"south", "west"]'))
    _, out, _ = run("provision", federation, "-o", kits)
    assert (
        "coordinator: changed (sites): carry it to the coordinator's machine again and start it "
        "again"
    ) in out
    assert "north: the other sites' keys changed: send it again if you use secure sums" in out
    _, out, _ = run("provision", federation, "-o", kits, "--revoke", "west", "--rotate", "south")
    assert "west: revoked: refused as soon as the coordinator has its new kit" in out
    assert "south: new keys: give it to the hospital again; its old keys are refused" in out


def test_no_secret_is_printed_or_logged(
    run: Run, federation: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kits, said = tmp_path / "kits", ""
    caplog.set_level(0)
    for options in ([], ["--json"], ["--rotate", "all"], ["--rotate", "nobody"]):
        _, out, err = run("provision", federation, "-o", kits, *options)
        said += out + err
        for path in (*kits.rglob("*.key"), *kits.rglob("admin.token")):
            for line in path.read_text().splitlines():
                if "PRIVATE KEY" not in line:
                    assert line not in said + caplog.text
        secret = (kits / "coordinator" / "executor.secret").read_bytes()
        assert secret.hex() not in said + caplog.text
        assert repr(secret)[2:-1] not in said + caplog.text
    assert "PRIVATE" not in said + caplog.text


def test_a_program_can_read_the_answer(run: Run, federation: Path, tmp_path: Path) -> None:
    kits = tmp_path / "kits"
    _, out, _ = run("provision", federation, "-o", kits, "--json")
    answer = json.loads(out)
    assert [kit["name"] for kit in answer["kits"]] == ["coordinator", "north", "south"]
    assert answer["kits"][1]["state"] == "new"
    assert answer["kits"][1]["sha256"] == kit_digest(kits / "north")
    assert answer["remarks"] == []


def test_mistakes_end_with_one_line_each_and_code_2(
    run: Run, federation: Path, tmp_path: Path
) -> None:
    federation.write_text(TEXT.replace('"south"', '"a clinic", "authority"').replace("task", "tsk"))
    code, out, err = run("provision", federation, "-o", tmp_path / "kits")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 4
    assert all(line.startswith(f"consilium: {federation}: ") for line in err.splitlines())
    assert not (tmp_path / "kits").exists()


def test_the_wrong_folder_is_left_as_it_is(run: Run, federation: Path, tmp_path: Path) -> None:
    code, out, err = run("provision", federation, "-o", tmp_path)
    assert (code, out) == (2, "")
    assert err == (
        f"consilium: {tmp_path}: expected an empty folder or one that `consilium provision` made, "
        "found FEDERATION.toml\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["FEDERATION.toml"]


def test_the_readmes_say_what_the_role_needs(run: Run, federation: Path, tmp_path: Path) -> None:
    kits = tmp_path / "kits"
    run("provision", federation, "-o", kits)
    site = (kits / "north" / "README.md").read_text()
    for words in (
        "the site `north`",
        "consilium site check KIT",
        "consilium site start KIT",
        "consilium site log KIT",
        "One outgoing TCP connection",
        "`127.0.0.1:9092`",
        "Dr. Example, telephone 0000",
        "sha256sum --check SHA256SUMS",
    ):
        assert words in site
    assert "consilium coordinator start KIT" in (kits / "coordinator" / "README.md").read_text()
    authority = (kits / "authority" / "README.md").read_text()
    assert "This folder stays with the study lead" in authority
