"""Rules of the tree that no linter knows."""

import importlib
import io
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

PROJECT = Path(__file__).parents[1]
ROOMS = ("client", "common", "server", "simulation")
MAX_LINES = 400


def test_no_module_is_longer_than_400_lines():
    modules = [path for room in ROOMS for path in (PROJECT / room).rglob("*.py")]
    long = {
        str(path): n for path in modules if (n := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert len(modules) > 50
    assert long == {}


@pytest.mark.parametrize("room", ROOMS)
def test_the_imported_room_is_ours(room):
    assert Path(importlib.import_module(room).__file__).parent == PROJECT / room


def test_the_flower_bundle_holds_no_code():
    bundle = zipfile.ZipFile(io.BytesIO(build_fab_from_disk(PROJECT)))
    names = {Path(name).name for name in bundle.namelist()}
    assert {"README.md", "pyproject.toml"} <= names
    assert {Path(name).suffix for name in names} <= {".md", ".toml", ""}


def test_no_pickle_is_read_or_written_in_any_room():
    forbidden = ("import pickle", "torch.load(", "torch.save(", "allow_pickle=True", "joblib")
    for room in ROOMS:
        for path in (PROJECT / room).rglob("*.py"):
            text = path.read_text()
            assert not [word for word in forbidden if word in text], path
