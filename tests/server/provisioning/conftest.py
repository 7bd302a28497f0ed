"""A small federation and what makes its kits at a moment of one's choice."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from server.provisioning.federation_file import FederationFile
from server.provisioning.provision import Provisioned, provision
from server.provisioning.wish import Wish

MARCH = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FEDERATION = FederationFile(
    name="glioma",
    address="federation.example.org:9092",
    sites=("north", "south", "east"),
    task="brats-2021",
)
Make = Callable[..., Provisioned]


@pytest.fixture
def kits(tmp_path: Path) -> Path:
    return tmp_path / "kits"


@pytest.fixture
def make(kits: Path) -> Make:
    """Return what provisions in March 2026, or at `now`; other fields replace the federation's."""

    def call(
        *,
        revoke: tuple[str, ...] = (),
        rotate: tuple[str, ...] = (),
        now: datetime = MARCH,
        **fields: object,
    ) -> Provisioned:
        federation = replace(FEDERATION, **fields)  # type: ignore[arg-type]
        return provision(federation, kits, Wish(revoke, rotate), now)

    return call
