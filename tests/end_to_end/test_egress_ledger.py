"""Real SuperNodes with the ledger in front of their sending: what is in it, and all goes on."""

import socket
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from client.egress.entry import records_of
from client.egress.reading import read, verify

LAUNCHER = """
import sys
from pathlib import Path
from client.egress.recording import install
install(Path(sys.argv.pop(1)))
from flwr.supernode.cli.flower_supernode import flower_supernode
flower_supernode()
"""


def supernode(flower, ledger: Path, site: Path, port: int) -> Sequence[str]:
    own = ["--host", "127.0.0.1", "--port", str(port), "--node-config", f'site="{site}"']
    where = ["--insecure", "--superlink", f"127.0.0.1:{flower.port}"]
    return [sys.executable, "-c", LAUNCHER, str(ledger), *where, *own]


@pytest.mark.timeout(600)
def test_real_nodes_write_down_every_answer_and_the_run_ends_well(
    tiny_study, tmp_path: Path, flower, free_ports
):
    federation = replace(tiny_study.config.federation, rounds=1, held_out=("beta",), min_sites=1)
    study = replace(tiny_study, config=tiny_study.config_with(federation=federation))
    folder = tmp_path / "real" / "run"
    study.write_run(folder)
    ledgers = {}
    for (site, path), port in zip(
        study.write_sites(tmp_path / "real").items(), free_ports, strict=True
    ):
        ledgers[site] = path.parent / "state" / "egress.jsonl"
        flower._start(site, supernode(flower, ledgers[site], path, port))
    flower.run_to_its_end(folder)

    for ledger in ledgers.values():
        assert verify(ledger) == ()
    alpha, beta = (list(read(ledgers[site])) for site in ("alpha", "beta"))
    assert Counter(entry.kind for entry in alpha) == Counter(
        {"measure": 1, "prepare": 1, "train": 1, "validate": 1}
    )
    assert Counter(entry.kind for entry in beta) == Counter(
        {"measure": 1, "prepare": 1, "test": 1, "floor": 1}
    )
    assert {entry.run for entry in (*alpha, *beta)} == {"run"}
    (trained,) = [entry for entry in alpha if entry.kind == "train"]
    assert (trained.method, trained.round) == ("fedavg", 1)
    assert records_of(trained)["body"]["n_cases"] == 2
    numbers = {score["case"] for e in beta if e.kind == "test" for score in _scores(e)}
    assert numbers == {1, 2, 3, 4}
    for ledger in ledgers.values():
        assert b"phantom" not in ledger.read_bytes()
        assert str(tmp_path).encode() not in ledger.read_bytes()


def _scores(entry):
    return records_of(entry)["body"]["scores"]


@pytest.fixture
def free_ports() -> tuple[int, int]:
    """Return two ports of this machine that nobody uses now."""
    probes = [socket.socket() for _ in range(2)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = tuple(int(probe.getsockname()[1]) for probe in probes)
    for probe in probes:
        probe.close()
    return ports  # type: ignore[return-value]
