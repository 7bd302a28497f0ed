"""The README's tested blocks, line by line, in an empty folder with the data that they name."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def folder(tiny_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cases = tiny_study.sites["alpha"]
    for case in cases:
        shutil.copytree(tiny_study.data / case, tmp_path / "data" / case)
        for name in ("reference", "first", "second"):
            (tmp_path / name).mkdir(exist_ok=True)
            shutil.copy(
                tiny_study.data / case / f"{case}_seg.nii.gz", tmp_path / name / f"{case}.nii.gz"
            )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_readme_work_as_they_stand(run, folder: Path):
    blocks = re.findall(r"<!-- tested.*?-->\n```console\n(.*?)```", README.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 7
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "consilium"
        code, _, stderr = run(*arguments)
        assert code == 0, f"{line}\n{stderr}"
    for name in ("fingerprint.json", "plan.json", "cache", "first.csv", "ranking.json"):
        assert (folder / name).exists()


def test_every_file_that_the_readme_links_to_exists():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text())
    assert len(links) > 5
    assert [link for link in links if not (README.parent / link).exists()] == []
