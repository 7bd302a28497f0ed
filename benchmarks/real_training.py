"""Whether networks learn from real images: two cases by heart, and a patient against the floor.

Usage: python benchmarks/real_training.py [overfit] [brats] [--hippocampus FOLDER] [--brats FOLDER]

overfit: two Hippocampus cases are trained on until they are known by heart; Dice of the same two.
brats: BraTS 2013's first three patients train region outputs on FLAIR and T1c, the fourth is held
out; whole-tumour Dice beside that of the best threshold on FLAIR, which is chosen on that very
patient. Both run `consilium simulate`, `predict` and `score` as a researcher would. The folders are
by default those below the one in CONSILIUM_SHARED.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from client.dataset.nifti import read_channels, read_labels, write_image

COMMON = """
[federation]
seed = 1
methods = ["fedavg"]
rounds = {rounds}
local_steps = {steps}
held_out = {held_out}
min_sites = 1

[model]
configuration = "3d_fullres"
norm = "instance"
batch_norm = "shared"
output = "{output}"
base_features = 16
deep_supervision = true

[planning]
rules = "paper"
memory_gb = {memory_gb}
max_batch_size = 2

[training]
optimizer = "adamw"
learning_rate = 0.003
momentum = 0.9
weight_decay = 0.0
schedule = {{ name = "poly", power = 0.9 }}
gradient_clip_norm = 12.0
validation_fraction = 0
optimizer_state = "kept"

[training.augmentation]
preset = "{preset}"

[evaluation]
hd95 = "pooled"
mirroring = false
calibration_patches = 1
ties = "min"
pictures = false

[simulation]
csv = "partition.csv"
"""
TWO_CHANNELS = """
name = "brats-2013-two-channels"
version = 1
channels = ["t1ce", "flair"]
[labels]
background = 0
necrosis = 1
oedema = 2
enhancing = 4
[label_mapping]
3 = 1
[regions]
WT = [1, 2, 4]
TC = [1, 4]
ET = [4]
[region_labels]
"" = 0
WT = 2
TC = 1
"WT+TC" = 1
ET = 0
"WT+ET" = 4
"TC+ET" = 4
"WT+TC+ET" = 4
[files]
label_suffixes = ["_seg"]
[files.channel_suffixes]
t1ce = ["_t1ce"]
flair = ["_flair"]
[floor]
channel = "flair"
region = "WT"
"""


def consilium(*arguments: object) -> float:
    """Run a command; return the seconds it took."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "consilium", *map(str, arguments)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def overfit(hippocampus: Path, home: Path) -> None:
    names = sorted(path.name for path in (hippocampus / "labelsTr").glob("*.nii.gz"))[:2]
    cases = [name.removesuffix(".nii.gz") for name in names]
    settings = COMMON.format(
        rounds=1, steps=300, held_out=[], output="labels", memory_gb=8, preset="none"
    )
    (home / "config.toml").write_text('task = "hippocampus"\n' + settings)
    rows = ["Partition_ID,Subject_ID", *(f"both,{case}" for case in cases)]
    (home / "partition.csv").write_text("\n".join(rows) + "\n")
    seconds = consilium(
        "simulate", home / "config.toml", "--data", hippocampus, "--out", home / "run"
    )
    for part in ("images", "labels"):
        (home / "two" / f"{part}Tr").mkdir(parents=True)
        for name in names:
            link = home / "two" / f"{part}Tr" / name
            link.symlink_to((hippocampus / f"{part}Tr" / name).resolve())
    (home / "two" / "dataset.json").write_bytes((hippocampus / "dataset.json").read_bytes())
    predicted, scores = home / "predicted", home / "scores.csv"
    consilium("predict", "--model", home / "run", "--input", home / "two", "--output", predicted)
    consilium(
        *("score", "--reference", home / "two" / "labelsTr", "--prediction", predicted),
        *("-o", scores, "--task", "hippocampus"),
    )
    dice = pd.read_csv(scores).groupby("region", sort=False)["dice"].mean()
    words = ", ".join(f"{region} {value:.4f}" for region, value in dice.items())
    print(f"overfit two cases: Dice {words}; 300 steps, {seconds:.0f} s", flush=True)


def brats(folder: Path, home: Path) -> None:
    patients = sorted(path for path in folder.iterdir() if path.is_dir())
    for patient in patients:
        stripped(patient, home / "data" / patient.name)
    settings = COMMON.format(
        rounds=1,
        steps=400,
        held_out='["held-out"]',
        output="regions",
        memory_gb=0.5,
        preset="light",
    )
    (home / "two.toml").write_text(TWO_CHANNELS)
    (home / "config.toml").write_text('task = "two.toml"\n' + settings)
    sites = ["pooled"] * (len(patients) - 1) + ["held-out"]
    rows = [f"{site},{patient.name}" for site, patient in zip(sites, patients, strict=True)]
    (home / "partition.csv").write_text("\n".join(["Partition_ID,Subject_ID", *rows]) + "\n")
    run = home / "run"
    seconds = consilium("simulate", home / "config.toml", "--data", home / "data", "--out", run)
    dice = pd.read_csv(run / "scores" / "fedavg" / "held-out.csv").set_index("region")["dice"]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    (floor,) = (event for event in events if event["event"] == "FloorMeasured")
    words = ", ".join(f"{region} {value:.3f}" for region, value in dice.items())
    print(
        f"BraTS 2013, fourth patient: Dice {words}; FLAIR floor on WT {floor['mean_dice']:.3f}; "
        f"400 steps, {seconds:.0f} s",
        flush=True,
    )


def stripped(patient: Path, target: Path) -> None:
    """Write a patient as a BraTS folder, zero outside the head."""
    target.mkdir(parents=True)
    brain, _ = read_labels(patient / "brainmask.nii.gz", None)
    for name, suffix in (("Flair", "flair"), ("T1c", "t1ce")):
        image, grid = read_channels(patient / f"{name}_subtrMeanDivStd.nii.gz")
        write_image(target / f"{target.name}_{suffix}.nii.gz", image[0] * (brain > 0), grid)
    labels = target / f"{target.name}_seg.nii.gz"
    labels.write_bytes((patient / "OTMultiClass.nii.gz").read_bytes())


def main() -> None:
    shared = Path(os.environ.get("CONSILIUM_SHARED", ".")) / "data"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", help="overfit, brats; both if absent")
    parser.add_argument("--hippocampus", type=Path, default=shared / "Task04_Hippocampus")
    parser.add_argument("--brats", type=Path, default=shared / "brats2013")
    given = parser.parse_args()
    for name, act, folder in (
        ("overfit", overfit, given.hippocampus),
        ("brats", brats, given.brats),
    ):
        if not given.which or name in given.which:
            with tempfile.TemporaryDirectory() as home:
                act(folder, Path(home))


if __name__ == "__main__":
    main()
