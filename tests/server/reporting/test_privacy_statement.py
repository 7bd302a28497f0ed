"""The privacy statement says what was seen in each mode, and never that a private run was not."""

from pathlib import Path

import pytest

from common.codec import read_toml, write_toml
from common.config import RunConfig
from common.privacy.mechanism import Spent
from server.event_log import EventLog
from server.events import (
    Event,
    RunStarted,
    SiteJoined,
    SiteMasked,
    SiteTrained,
    SiteValidated,
    SumOpened,
)
from server.reporting.privacy_statement import not_private, what_was_seen
from server.reporting.report import write_report
from server.reporting.report_data import ReportData, collect
from server.reporting.sources import without_sources

SITES = ("north", "south", "west")
SPENT = Spent(epsilon=2.5, delta=0.001, budget_used=0.25)
TRAINED = SiteTrained(
    method="fedavg",
    round=1,
    site="north",
    n_cases=4,
    n_steps=10,
    loss=0.5,
    update_norm=1.0,
    seconds=2.0,
    upload_bytes=2048,
)
MASKED = tuple(
    SiteMasked(method="fedavg", round=1, site=site, seconds=2.0, upload_bytes=2048, spent=SPENT)
    for site in SITES
)
OPENED = SumOpened(method="fedavg", round=1, sites=SITES, count=12, update_norm=1.5, seconds=0.1)
CONFIG = """
task = "brats-2021"
[federation]
seed = 1
methods = ["fedavg"]
rounds = 2
local_steps = 3
held_out = []
min_sites = 3
secure_aggregation = { min_sites = 3 }
[privacy]
epsilon = 4.0
delta = 0.001
clip_norm = 0.1
sampling_rate = 0.5
[model]
configuration = "3d_fullres"
norm = "instance"
batch_norm = "shared"
output = "labels"
base_features = 4
deep_supervision = true
[planning]
rules = "paper"
memory_gb = 8
[training]
optimizer = "sgd"
learning_rate = 0.01
momentum = 0.99
weight_decay = 0.0
gradient_clip_norm = 12.0
validation_fraction = 0.1
schedule = { name = "poly", power = 0.9 }
augmentation = { preset = "light" }
[evaluation]
hd95 = "pooled"
mirroring = false
calibration_patches = 4
ties = "min"
pictures = false
"""


def _run(folder: Path, *events: Event, private: bool = False) -> ReportData:
    log = EventLog(folder / "events.jsonl")
    start = {"task": "brats-2021", "methods": ("fedavg",), "seed": 1, "device": "cpu"}
    log.append(RunStarted(run="trial", resumed=False, versions={}, **start))
    for site in SITES:
        log.append(SiteJoined(site=site, role="training", n_cases=4))
    for event in events:
        log.append(event)
    if private:
        (folder / "config.toml").write_text(CONFIG)
        write_toml(folder / "config.toml", read_toml(RunConfig, folder / "config.toml"))
    return collect(folder)


def _seen(data: ReportData) -> dict[str, str]:
    return {line.what: without_sources(line.how) for line in what_was_seen(data)}


def test_a_plain_run_showed_exact_weights_losses_and_validation(tmp_path: Path) -> None:
    dice = SiteValidated(method="fedavg", round=1, site="north", dice={"WT": 0.5})
    data = _run(tmp_path, TRAINED, dice)
    seen = _seen(data)
    assert seen["Images, labels, names of cases and files"] == "never"
    assert seen["Number of cases of a training site"] == "exact, of 3 of 3 sites"
    assert seen["Weights after a site's training"] == "1 update of single sites, exact"
    assert seen["Mean training loss"] == "exact, 1 value"
    assert seen["Mean Dice on a site's validation cases"] == "exact, 1 time; it has no noise"
    assert not_private(data).startswith(
        "Exact, without noise: training losses, validation Dice and numbers of cases."
    )


def test_a_masked_private_run_showed_sums_with_noise_and_epsilon(tmp_path: Path) -> None:
    data = _run(tmp_path, *MASKED, OPENED, private=True)
    seen = _seen(data)
    assert seen["Weights after a site's training"] == (
        "only 1 sum, each of at least 3 sites with noise for patient-level privacy; of a site "
        "random bytes"
    )
    assert seen["Mean training loss"] == "not sent"
    assert seen["What training has cost a site's patients (epsilon)"] == (
        "with every update, 3 times (table above)"
    )
    write_report(tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    assert "at most epsilon 2.50 at delta 0.001, as the sites' own ledgers say." in markdown
    assert "of its sites' masked updates, 1 in all, and 0 could not be opened." in markdown
    assert "| west | 2.500 | 0.001 | 25 % |" in markdown
    assert "| FedAvg | 1 | 3 | 12 | private | 1.500 | 0.1 s |" in markdown


@pytest.mark.parametrize("events", [(), (OPENED,)])
def test_a_private_run_whose_cost_is_not_in_the_log_is_not_called_without_privacy(
    tmp_path: Path, events: tuple[Event, ...]
) -> None:
    _run(tmp_path, *events, private=True)
    html = write_report(tmp_path).read_text()
    assert "without differential privacy of patients" not in html
    assert "the log does not say what it has cost" in html
