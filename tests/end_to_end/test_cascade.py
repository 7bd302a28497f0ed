"""A cascade: a finished run of 3d_lowres, and one of 3d_fullres that sees what it predicted."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import load_file

from common.codec import read_json, write_toml
from common.config import FinishedRun, RunConfig, Simulation
from simulation.phantoms import PhantomStudy, partition_of, write_study

SMALL_GB = 0.02  # so that a patch sees too little of images of 40 voxels


@pytest.fixture(scope="module")
def data(phantom_site, tmp_path_factory) -> tuple[Path, dict[str, tuple[str, ...]]]:
    site = replace(phantom_site("alpha", 3), spacing_mm=(3.0, 3.0, 3.0))
    folder = tmp_path_factory.mktemp("cascade-data")
    study = PhantomStudy(
        seed=3,
        field_of_view_mm=(140.0, 168.0, 144.0),
        sites=(site, replace(site, name="beta", n_cases=2)),
    )
    write_study(study, folder)
    return folder, dict(partition_of(study).sites)


def config_of(tiny_study, data: Path, first: Path | None, **evaluation: object) -> RunConfig:
    wanted = tiny_study.config
    stage = "3d_lowres" if first is None else "3d_fullres"
    return tiny_study.config_with(
        simulation=Simulation(csv=str(data / "partition.csv")),
        federation=replace(
            wanted.federation, held_out=("beta",), min_sites=1, rounds=2, local_steps=6
        ),
        planning=replace(wanted.planning, memory_gb=SMALL_GB),
        model=replace(
            wanted.model,
            norm="instance",
            configuration=stage,
            first_stage=FinishedRun(run=str(first), method="fedavg") if first else None,
        ),
        evaluation=replace(wanted.evaluation, pictures=False, **evaluation),
    )


@pytest.fixture(scope="module")
def stages(tiny_study, data, tmp_path_factory) -> tuple[Path, Path]:
    """Run both stages; return their run directories."""
    from server.event_log import EventLog
    from server.run_folder import RunFolder
    from simulation.simulate import load_study, simulate

    folder, runs = tmp_path_factory.mktemp("cascade"), []
    for name, first in (("low", None), ("full", "low")):
        config = config_of(tiny_study, data[0], Path(first) if first else None)
        write_toml(folder / f"{name}.toml", config)
        run = RunFolder(folder / name)
        simulate(load_study(folder / f"{name}.toml", data[0]), run, EventLog(run.events))
        runs.append(run.path)
    return runs[0], runs[1]


def test_the_second_stage_has_an_input_channel_per_label_of_the_first(stages):
    plan = json.loads((stages[1] / "plan.json").read_text())
    assert plan["cascade"]
    low, full = (load_file(run / "models" / "fedavg.safetensors") for run in stages)
    widths = [
        {tensor.shape[1] for name, tensor in weights.items() if tensor.ndim == 5}
        for weights in (low, full)
    ]
    assert 4 in widths[0]
    assert 4 + 3 in widths[1]


def test_the_first_stage_s_labels_lie_in_every_site_s_cache(stages, data):
    for site, cases in data[1].items():
        cache = stages[1] / "sites" / site / "state" / "cache"
        assert len(list(cache.glob("*/*/previous.json"))) == len(cases)


def test_prediction_runs_both_stages_as_the_held_out_test_did(run, stages, data, tmp_path):
    folder, sites = data
    images = tmp_path / "images"
    for case in sites["beta"]:
        shutil.copytree(folder / case, images / case)
        (images / case / f"{case}_seg.nii.gz").unlink()
    code, _, stderr = run(
        "predict", "--model", stages[1], "--input", images, "--output", tmp_path / "predicted"
    )
    assert code == 0, stderr
    reference = tmp_path / "reference"
    reference.mkdir()
    for case in sites["beta"]:
        shutil.copy(folder / case / f"{case}_seg.nii.gz", reference / f"{case}.nii.gz")
    files = ["--reference", reference, "--prediction", tmp_path / "predicted"]
    code, _, stderr = run("score", *files, "-o", tmp_path / "scores.csv")
    assert code == 0, stderr
    predicted = pd.read_csv(tmp_path / "scores.csv")
    tested = pd.read_csv(stages[1] / "scores" / "fedavg" / "beta.csv")
    (numbers,) = stages[1].glob("sites/beta/state/runs/*/pseudonyms.json")
    for case, number in read_json(dict[str, int], numbers).items():
        of_case = predicted[predicted["case"] == case].set_index("region")
        sent = tested[tested["case"] == f"case-{number:04d}"].set_index("region")
        for metric in ("dice", "hd95"):
            pd.testing.assert_series_equal(of_case[metric], sent[metric])


def test_a_run_is_whole_without_the_run_of_its_first_stage(run, stages, data, tmp_path):
    low, full = stages
    hidden = low.rename(tmp_path / "elsewhere")
    try:
        command = ["simulate", full.parent / "full.toml", "--data", data[0], "--out", full]
        code, _, stderr = run(*command, "--resume")
    finally:
        hidden.rename(low)
    assert code == 0, stderr


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"memory_gb": 0.03}, "expected a run with the plan"),
        ({"first": "nowhere"}, "expected a finished run with a model of fedavg, found none"),
        ({"first": "full"}, "expected a run of 3d_lowres for one of 3d_fullres"),
    ],
)
def test_a_first_stage_that_does_not_fit_is_one_clear_line(
    run, stages, tiny_study, data, tmp_path, change, complaint
):
    first = stages[0].parent / str(change.get("first", "low"))
    config = config_of(tiny_study, data[0], first)
    planning = replace(config.planning, memory_gb=float(change.get("memory_gb", SMALL_GB)))
    write_toml(tmp_path / "again.toml", replace(config, planning=planning))
    out = tmp_path / "again"
    code, _, stderr = run("simulate", tmp_path / "again.toml", "--data", data[0], "--out", out)
    assert code == 2
    assert complaint in stderr
    assert "Traceback" not in stderr
