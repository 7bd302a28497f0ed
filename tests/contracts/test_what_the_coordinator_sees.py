"""The table in the README that says what the coordinator sees of a training site, as recorded."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Message

from client.app import app
from client.privacy.ledger import open_ledger
from client.site import load_site
from common.privacy.settings import PatientPrivacy
from common.secure_aggregation import SecureAggregation
from common.task import load_task
from server.event_log import EventLog
from server.flower_sites import FlowerSites
from server.run import run
from server.run_folder import RunFolder
from simulation.grid import InProcessGrid

README = Path(__file__).parents[2] / "README.md"
TASK = load_task("brats-2021")
SITES = ("alpha", "beta", "gamma")
PRIVACY = PatientPrivacy(delta=1e-3, clip_norm=0.1, sampling_rate=0.5, noise_multiplier=2.0)
SECURE = SecureAggregation(min_sites=3)
MODES = {
    "neither": (None, None),
    "secure aggregation": (SECURE, None),
    "patient-level privacy": (None, PRIVACY),
    "both": (SECURE, PRIVACY),
}


class Recording(InProcessGrid):
    """Keeps all that the sites answer: its bytes, and the record."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.heard = b""
        self.bodies: list[dict] = []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message in super().pull_messages(message_ids):
            content = message.content
            texts = [record["json"] for record in content.config_records.values()]
            arrays = [a.data for record in content.array_records.values() for a in record.values()]
            self.heard += b"\n".join([*texts, *arrays])
            self.bodies.append(json.loads(content.config_records["body"]["json"]))
            yield message


def recorded(study, home: Path, mode: str) -> Recording:
    secure, privacy = MODES[mode]
    cases = tuple(case for names in study.sites.values() for case in names)
    config = study.config
    federation = replace(config.federation, min_sites=3, local_steps=1, secure_aggregation=secure)
    config = replace(
        config,
        federation=federation,
        model=replace(config.model, norm="instance"),
        privacy=privacy,
    )
    sites = dict(zip(SITES, (cases[:2], cases[2:4], cases[4:]), strict=True))
    files = list(replace(study, config=config, sites=sites).write_sites(home).values())
    for path in files:
        open_ledger(load_site(path).privacy_ledger_file, epsilon=100.0, delta=1e-2)
    grid = Recording(app, {n: {"site": str(path)} for n, path in enumerate(files, start=1)})
    folder = RunFolder(home / "run")
    run(config, TASK, FlowerSites(grid), folder, EventLog(folder.events), device="test")
    return grid


def seen(grid: Recording) -> dict[str, str]:
    """Return in words what can be read in the answers."""
    updates = [body for body in grid.bodies if "seconds" in body]
    masked = all("masked" in body for body in updates)
    noisy = all("spent" in body for body in updates)
    exact = "with noise" if noisy else "exact"
    return {
        "images, labels, names of cases and files": "yes" if b"phantom_" in grid.heard else "no",
        "weights after its training": f"only the sum of all sites, {exact}" if masked else exact,
        "number of its cases": "yes"
        if any(body.get("n_training_cases") for body in grid.bodies)
        else "no",
        "mean training loss": _told(updates, "loss", "no" if noisy else "only the sum"),
        "mean Dice on its validation cases": _told(updates, "validation", "only the sum"),
        "how long its training took": _told(updates, "seconds", "no"),
        "what training has cost its patients (epsilon)": _told(updates, "spent", "-"),
    }


def _told(updates: list[dict], field: str, otherwise: str) -> str:
    return "yes" if any(field in body for body in updates) else otherwise


@pytest.mark.timeout(300)
def test_the_table_in_the_readme_is_what_was_recorded(tiny_study, tmp_path: Path):
    columns = {mode: seen(recorded(tiny_study, tmp_path / mode, mode)) for mode in MODES}
    rows = list(columns["neither"])
    lines = [
        f"| of one training site, the coordinator sees | {' | '.join(MODES)} |",
        "|---" * (len(MODES) + 1) + "|",
        *(f"| {row} | {' | '.join(columns[mode][row] for mode in MODES)} |" for row in rows),
    ]
    assert "\n".join(lines) in README.read_text(), "\n" + "\n".join(lines)
