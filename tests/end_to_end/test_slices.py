"""A federation that trains the plan's 2D configuration: slices in, volumes out."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from common.codec import write_toml
from common.config import Simulation


def slices_config(tiny_study, **model: object):
    wanted = tiny_study.config
    return tiny_study.config_with(
        simulation=Simulation(csv=str(tiny_study.data / "partition.csv")),
        federation=replace(
            wanted.federation, held_out=("beta",), min_sites=1, rounds=3, local_steps=8
        ),
        model=replace(wanted.model, configuration="2d", **model),
    )


@pytest.mark.parametrize(
    ("architecture", "deep_supervision"), [("unet", True), ("attention-unet", False)]
)
def test_slices_train_and_are_tested_as_volumes(
    run, events, tiny_study, tmp_path, architecture, deep_supervision
):
    config, out = tmp_path / "slices.toml", tmp_path / "run"
    made = slices_config(tiny_study, architecture=architecture, deep_supervision=deep_supervision)
    write_toml(config, made)

    code, _, stderr = run("simulate", config, "--data", tiny_study.data, "--out", out)

    assert code == 0, stderr
    plan = json.loads((out / "plan.json").read_text())
    assert len(plan["configurations"]["2d"]["patch_size"]) == 2
    losses = [event["loss"] for event in events(out, "SiteTrained")]
    assert losses[-1] < losses[0]
    scores = (out / "scores" / "fedavg" / "beta.csv").read_text().splitlines()
    assert len(scores) == 1 + 4 * 3

    case = tiny_study.sites["beta"][0]
    images = tmp_path / "images"
    images.mkdir()
    (images / case).symlink_to(tiny_study.data / case)
    code, _, stderr = run("predict", "--model", out, "--input", images, "--output", tmp_path / "p")
    assert code == 0, stderr
    predicted = nib.load(tmp_path / "p" / f"{case}.nii.gz")
    image = nib.load(tiny_study.data / case / f"{case}_t1.nii.gz")
    assert predicted.shape == image.shape
    assert set(np.unique(predicted.get_fdata())) <= {0, 1, 2, 4}


def test_a_network_of_slices_for_volumes_is_refused_before_anything_is_prepared(
    run, tiny_study, tmp_path
):
    config, out = tmp_path / "slices.toml", tmp_path / "run"
    made = slices_config(tiny_study, architecture="unet2d", deep_supervision=False)
    write_toml(config, replace(made, model=replace(made.model, configuration="3d_fullres")))

    code, _, stderr = run("simulate", config, "--data", tiny_study.data, "--out", out)

    assert code == 2
    assert "unet2d segments slices; expected the configuration 2d" in stderr
    assert not list(out.glob("sites/*/state/cache"))
