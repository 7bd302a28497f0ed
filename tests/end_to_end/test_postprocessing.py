"""Steps after the network, chosen on the validation cases of the sites and applied at the end."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from common.codec import read_json, read_toml, write_toml
from common.config import Simulation
from common.evaluation.postprocess import PostProcessing, in_words
from common.task import load_task


@pytest.fixture(scope="module")
def trained(tiny_study, tmp_path_factory):
    """Train long enough for tumours with false islands around them; return the run directory."""
    from common.config import RunConfig
    from server.event_log import EventLog
    from server.reporting.report import write_report
    from server.run_folder import RunFolder
    from simulation.simulate import load_study, simulate

    folder = tmp_path_factory.mktemp("postprocessing")
    wanted = tiny_study.config
    config = tiny_study.config_with(
        simulation=Simulation(csv=str(tiny_study.data / "partition.csv")),
        federation=replace(
            wanted.federation, held_out=("alpha",), min_sites=1, rounds=4, local_steps=20
        ),
        evaluation=replace(wanted.evaluation, postprocessing="chosen"),
    )
    write_toml(folder / "config.toml", config)
    run = RunFolder(folder / "run")
    study = load_study(folder / "config.toml", tiny_study.data)
    simulate(study, run, EventLog(run.events))
    write_report(run.path)
    assert read_toml(RunConfig, run.config).evaluation.postprocessing == "chosen"
    return run


def test_what_was_chosen_is_logged_with_its_reasons_and_kept_beside_the_model(trained, events):
    (chosen,) = events(trained.path, "PostprocessingChosen")
    steps = read_json(PostProcessing, trained.postprocessing("fedavg")).steps
    task = load_task("brats-2021")
    assert chosen["steps"] == [in_words(step, task) for step in steps]
    assert chosen["sites"] == ["beta"]
    assert len(chosen["reasons"]) >= 1
    assert "validation cases" in chosen["reasons"][0]


def test_steps_that_help_were_found_and_the_report_says_what_they_changed(trained, events):
    (chosen,) = events(trained.path, "PostprocessingChosen")
    assert chosen["steps"], "this network leaves false islands, so that some step helps"
    assert "validation cases, mean Dice" in chosen["reasons"][0]
    (tested,) = events(trained.path, "HeldOutScored")
    assert "post-processing changed" in tested["note"]
    for page in ("report.md", "report.html"):
        text = (trained.path / page).read_text()
        assert "Post-processing of FedAvg" in text
        assert chosen["steps"][0] in text


def test_prediction_applies_the_steps_unless_told_not_to(run, trained, tiny_study, tmp_path):
    case = tiny_study.sites["alpha"][0]
    images = tmp_path / "images"
    images.mkdir()
    (images / case).symlink_to(tiny_study.data / case)
    labels = {}
    for option in ("--postprocessing", "--no-postprocessing"):
        out = tmp_path / option.strip("-")
        code, _, stderr = run(
            "predict", "--model", trained.path, "--input", images, "--output", out, option
        )
        assert code == 0, stderr
        assert ("post-processing: " in stderr) == (option == "--postprocessing")
        labels[option] = np.asarray(nib.load(out / f"{case}.nii.gz").dataobj)
    steps = read_json(PostProcessing, trained.postprocessing("fedavg")).steps
    from common.evaluation.postprocess import post_processed

    spacing = (7.0, 7.0, 7.0)
    expected = post_processed(labels["--no-postprocessing"].T, steps, spacing).T
    np.testing.assert_array_equal(labels["--postprocessing"], expected)


def test_a_resumed_run_does_not_ask_again(run, trained, tiny_study, events):
    before = len(events(trained.path, "PostprocessingChosen"))
    config = trained.path / "config.toml"
    code, _, stderr = run(
        "simulate", config, "--data", tiny_study.data, "--out", trained.path, "--resume"
    )
    assert code == 0, stderr
    assert len(events(trained.path, "PostprocessingChosen")) == before
