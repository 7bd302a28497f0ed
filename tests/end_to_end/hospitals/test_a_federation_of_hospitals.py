"""From provisioning to the report, with the commands of the README and real processes over TLS.

Every byte that the sites send is caught on the way and searched; what was caught is what each
site's ledger says.
"""

import hashlib
import json
import re
from collections import Counter
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from flwr.proto.message_pb2 import PushObjectRequest
from safetensors.numpy import load_file

from client.egress.entry import records_of
from client.egress.reading import read, verify
from common.codec import write_toml
from common.config import RunConfig
from common.privacy.settings import PatientPrivacy
from common.secure_aggregation import SecureAggregation

SITES = ("alpha", "beta", "gamma")
PATIENT = "Mustermann_Erika"
RUN = "study-1"


@pytest.mark.timeout(900)
def test_three_hospitals_train_and_the_ledgers_say_what_left(
    filled, archives, tiny_study, tmp_path, events
):
    network = filled.connect()
    filled.start_all()
    for site in SITES:
        filled.call("site", "check", filled.kits / site)
    federation = replace(tiny_study.config.federation, rounds=3, held_out=("gamma",), min_sites=2)
    write_toml(tmp_path / f"{RUN}.toml", tiny_study.config_with(federation=federation))
    run = filled.home / "runs" / RUN
    kit = ("--kit", filled.coordinator)
    filled.call("coordinator", "run", tmp_path / f"{RUN}.toml", *kit, "--out", run)
    filled.wait_until((run / "report.html").is_file, "the run finishes with a report", 420)

    assert sorted((e["round"], e["site"]) for e in events(run, "SiteTrained")) == [
        (1, "alpha"),
        (1, "beta"),
        (2, "alpha"),
        (2, "beta"),
        (3, "alpha"),
        (3, "beta"),
    ]
    assert (run / "scores" / "fedavg" / "gamma.csv").is_file()
    connections = {site["site"]: site["connection"] for site in filled.status()["sites"]}
    assert connections == dict.fromkeys(SITES, "connected")
    assert_ledgers_say(filled, [b for p, b in network.requests() if p.endswith("/push-object")])
    assert_nothing_of_a_patient(filled, archives, network)
    assert_a_private_run_shows_sums_only(filled, tiny_study.config, events)
    assert_nobody_else_was_called(filled)


def assert_ledgers_say(hospitals, caught: list[bytes]) -> None:
    """Compare what was caught on the way with the sites' own records, hash by hash."""
    sent = set()
    for body in caught:
        request = PushObjectRequest.FromString(body)
        assert hashlib.sha256(request.object_content).hexdigest() == request.object_id
        sent.add((request.object_id, len(request.object_content)))
    ledgers = {site: hospitals.kits / site / "state" / "egress.jsonl" for site in SITES}
    entries = {site: list(read(ledger)) for site, ledger in ledgers.items()}
    assert len(sent) > 20
    assert sent == {(o.id, o.bytes) for some in entries.values() for e in some for o in e.objects}

    assert [verify(ledger) for ledger in ledgers.values()] == [(), (), ()]
    assert {entry.run for some in entries.values() for entry in some} == {RUN}
    trained = {"measure": 1, "prepare": 1, "train": 3, "validate": 1}
    assert Counter(entry.kind for entry in entries["alpha"]) == Counter(trained)
    tested = {"measure": 1, "prepare": 1, "test": 1, "floor": 1}
    assert Counter(entry.kind for entry in entries["gamma"]) == Counter(tested)
    (test,) = [entry for entry in entries["gamma"] if entry.kind == "test"]
    assert {score["case"] for score in records_of(test)["body"]["scores"]} == {1, 2, 3}
    for ledger in ledgers.values():
        assert PATIENT.encode() not in ledger.read_bytes()
    said = hospitals.call("site", "log", hospitals.kits / "alpha", "--egress", "--verify")
    assert f"run {RUN}, fedavg, round 3: answer to train" in said
    assert "6 entries, none changed or missing" in said


def assert_nothing_of_a_patient(hospitals, archives, network) -> None:
    """Search every byte that was sent for names, paths, voxels and batch-norm statistics."""
    everything = b"\0".join(bytes(stream) for stream in network.sent)
    names = {PATIENT, "archive_", "Traceback", *map(str, archives.values()), str(hospitals.home)}
    assert [name for name in names if name.encode() in everything] == []
    n_searched = 0
    for site in SITES:
        for file in (hospitals.kits / site / "state").rglob("batch-norm/**/*.safetensors"):
            for tensor in load_file(file).values():
                n_searched += tensor.size > 1
                assert tensor.size <= 1 or tensor.tobytes() not in everything
        image = next(archives[site].rglob("*_flair.nii.gz"))
        voxels = np.asarray(nib.load(image).dataobj, dtype=np.float32).ravel()
        assert voxels[voxels != 0][:64].tobytes() not in everything
    assert n_searched > 10


def assert_a_private_run_shows_sums_only(hospitals, config: RunConfig, events) -> None:
    """Run a round with noise and masks on the same hospitals, whose ledgers a person opened."""
    name, home = "study-2", hospitals.home
    ledgers = {site: hospitals.kits / site / "state" / "privacy.jsonl" for site in SITES}
    for ledger in ledgers.values():
        hospitals.call("privacy", ledger, "--open", "--epsilon", "20", "--delta", "0.1")
    private = replace(
        config,
        federation=replace(
            config.federation,
            rounds=1,
            min_sites=3,
            secure_aggregation=SecureAggregation(min_sites=3),
        ),
        model=replace(config.model, norm="group"),
        privacy=PatientPrivacy(delta=0.01, clip_norm=0.1, sampling_rate=0.5, noise_multiplier=2.0),
    )
    write_toml(home / f"{name}.toml", private)
    run = home / "runs" / name
    kit = ("--kit", hospitals.coordinator)
    hospitals.call("coordinator", "run", home / f"{name}.toml", *kit, "--out", run)
    hospitals.wait_until((run / "report.html").is_file, "the private run finishes", 420)
    (opened,) = events(run, "SumOpened")
    assert opened["sites"] == [*SITES]
    assert "loss" not in opened
    assert events(run, "SiteTrained") == []
    for ledger in ledgers.values():
        told = json.loads(hospitals.call("privacy", ledger, "--json"))
        assert [(one["run"], one["steps"]) for one in told["runs"]] == [(name, 2)]
        assert 0 < told["spent"] < 20


def assert_nobody_else_was_called(hospitals) -> None:
    """Search every attempt of every role's processes to look up or reach an address."""
    attempts = hospitals.attempts.read_text().splitlines()
    home = re.compile(r"127\.0\.0\.\d+|localhost|::1")
    outside = [line for line in attempts if not home.search(line) and "/" not in line]
    assert len(attempts) > 100
    assert outside == []
