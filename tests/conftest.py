"""Fixtures that several rooms' tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder with real and golden data, or skip."""
    folder = os.environ.get("CONSILIUM_SHARED", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real and golden data: set CONSILIUM_SHARED to their folder")
    return Path(folder)
