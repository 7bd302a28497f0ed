import io
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from client.service.bundle import defects

PROJECT = Path(__file__).parents[3]
PYPROJECT = """
[project]
name = "consilium"
version = "0.1.0"
[tool.flwr.app]
publisher = "consilium"
[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"
"""


def bundle(**files: str | bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {"pyproject.toml": PYPROJECT, ".info/CONTENT": "", **files}.items():
            archive.writestr(name, text)
    return content.getvalue()


def test_this_projects_own_bundle_is_accepted():
    assert defects(build_fab_from_disk(PROJECT)) == ()


def test_words_are_accepted():
    assert defects(bundle(**{"README.md": "hello", "client/README.md": "hello"})) == ()


@pytest.mark.parametrize(
    "name",
    [
        "client/app.py",
        "torch.py",
        "sitecustomize.py",
        "client/native.so",
        "run.sh",
        "../README.md",
        "/etc/README.md",
        "a/../../README.md",
        "..\\README.md",
        ".info/evil.py",
        "README.md/__init__.py",
        "plan.toml",
    ],
)
def test_any_other_file_is_refused_by_name(name):
    (defect,) = defects(bundle(**{name: "x"}))
    assert defect.startswith("expected no file but README.md and pyproject.toml, found ")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ('clientapp = "client.app:app"', 'clientapp = "os:system"'),
        ('serverapp = "server.app:app"', 'serverapp = "antigravity:app"'),
        ('clientapp = "client.app:app"', 'clientapp = "client.app:app"\nagentapp = "x:y"'),
    ],
)
def test_other_components_are_refused(ours, theirs):
    (defect,) = defects(bundle(**{"pyproject.toml": PYPROJECT.replace(ours, theirs)}))
    assert defect.startswith("pyproject.toml: components: expected ")


def test_a_name_that_would_lead_out_of_its_folder_is_refused():
    text = PYPROJECT.replace('version = "0.1.0"', 'version = "../../../1"')
    (defect,) = defects(bundle(**{"pyproject.toml": text}))
    assert defect == "pyproject.toml: version: expected letters, digits and . _ + -, found " + repr(
        "../../../1"
    )


def test_a_bundle_that_swells_is_refused_without_being_unpacked():
    swollen = bundle(**{"README.md": b"0" * 50_000_000})
    assert len(swollen) < 100_000
    assert defects(swollen) == ("README.md: expected at most 4194304 bytes unpacked",)


def test_a_file_listed_twice_is_refused():
    content = io.BytesIO(bundle(**{"README.md": "x"}))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(content, "a") as archive:
        archive.writestr("README.md", "y")
    (defect,) = defects(content.getvalue())
    assert defect == "expected at most 100 files, each once, found 4"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"import os"])
def test_what_is_no_archive_is_refused(content):
    assert defects(content) == ("expected an archive with pyproject.toml, found BadZipFile",)


def test_a_bundle_without_configuration_is_refused():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("README.md", "x")
    assert defects(content.getvalue()) == (
        "expected an archive with pyproject.toml, found KeyError",
    )
