"""Do the v2 rules give the plans of nnunetv2? Both planners on the same data sets, side by side.

Usage, each line with an interpreter that has the package named behind it:

    python benchmarks/planner_v2.py expected.json --collect --hippocampus FOLDER   # nnunetv2
    python benchmarks/planner_v2.py expected.json                                  # ours

Collecting needs nothing of ours. It writes every data set as nnunetv2's own `dataset.json` and
`dataset_fingerprint.json`, runs its planners, and keeps what they plan beside what they were given.
The synthetic data sets are drawn from one seed. FOLDER is the Decathlon's hippocampus task, whose
fingerprint nnunetv2 extracts itself, with the seconds printed (2 processes). The networks that it
builds only to count their feature maps get no storage (torch's "meta" device): the same counts.

The peer goes into an environment of its own, in one resolution so that torch stays the same:
`pip install torch==2.13.0 nnunetv2==2.8.1`.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator

if TYPE_CHECKING:
    from common.planning.plan import Plan

Entry = dict[str, Any]
"""One expected value: id, planner, memory_gb, source, input and plans, all plain."""

PLANNERS = {  # the peer's class: our rules, and the memory in GB at which both plan
    "ExperimentPlanner": ("v2", (8.0, 24.0)),
    "nnUNetPlannerResEncM": ("v2-resenc-m", (8.0,)),
    "nnUNetPlannerResEncL": ("v2-resenc-l", (24.0, 16.0)),
    "nnUNetPlannerResEncXL": ("v2-resenc-xl", (40.0,)),
}
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")
SAME_NAME = ("patch_size", "batch_size", "kernel_sizes", "features_per_stage", "batch_dice")


@dataclass(frozen=True)
class Drawn:
    """A synthetic data set, to be drawn case by case. Axes are (z, y, x)."""

    channels: tuple[str, ...]
    n_foreground_classes: int
    n_cases: int
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    slices_mm: tuple[float, ...] = ()
    """Choices for the coarsest axis; the field of view stays, so thinner slices are more."""
    spacing_spread: float = 0.0
    """Of the other two axes together, uniform, as a fraction; the number of voxels stays."""
    size_spread: float = 0.0
    """Of every axis by itself, uniform, as a fraction."""
    grid_mm: float = 1e-4
    """Spacings are multiples of it; ours keeps multiples of 1e-4 mm."""


MRI, CT = ("MRI",), ("CT",)
SYNTHETIC = {
    "brain, isotropic": Drawn(
        ("T1", "T1c", "T2", "FLAIR"), 3, 101, (1, 1, 1), (138, 169, 138), size_spread=0.1
    ),
    "heart": Drawn(MRI, 1, 20, (1.37, 1.25, 1.25), (115, 320, 232), size_spread=0.15),
    "prostate": Drawn(("T2", "ADC"), 2, 32, (3.6, 0.6, 0.6), (20, 320, 320), (3, 3.6, 4), 0.1, 0.1),
    "liver": Drawn(CT, 2, 61, (1, 0.77, 0.77), (480, 512, 512), (0.7, 1, 1, 1.5, 5), 0.2),
    "lung": Drawn(CT, 1, 63, (1.25, 0.79, 0.79), (252, 512, 512), (1, 1.25, 2.5), 0.2, 0.05),
    "pancreas": Drawn(CT, 2, 100, (2.5, 0.8, 0.8), (96, 512, 512), (0.7, 2.5, 2.5, 5), 0.15),
    "colon": Drawn(CT, 1, 100, (5, 0.78, 0.78), (90, 512, 512), (1.25, 3, 5, 5, 7.5), 0.15),
    "kidney, clamped": Drawn(CT, 2, 100, (3, 0.78, 0.78), (107, 512, 512), (0.5, 3, 3, 5), 0.1),
    "cine, low percentile": Drawn(MRI, 3, 50, (10, 1.5, 1.5), (10, 240, 210), (5, 6.5, 10), 0.2),
    "very anisotropic": Drawn(MRI, 1, 40, (6, 0.5, 0.5), (24, 448, 448), (), 0.0, 0.2),
    "spacing ratio 20": Drawn(MRI, 1, 24, (10, 0.5, 0.5), (12, 512, 480), (), 0.0, 0.1),
    "three spacings": Drawn(MRI, 2, 30, (2.4, 1.1, 0.5), (90, 180, 380), (), 0.0, 0.1),
    "coarsest in the middle": Drawn(MRI, 2, 33, (0.9, 4, 0.9), (256, 40, 256), (3, 4, 5), 0.1, 0.1),
    "coarsest last": Drawn(MRI, 2, 33, (0.5, 0.6, 3), (400, 320, 30), (), 0.1, 0.1),
    "tiny": Drawn(MRI, 2, 60, (1, 1, 1), (12, 40, 40), size_spread=0.2),
    "tiny, anisotropic": Drawn(MRI, 1, 25, (4, 1, 1), (7, 30, 26), size_spread=0.2),
    "small, 11 voxels": Drawn(MRI, 1, 40, (1, 1, 1), (11, 23, 11)),
    "one slice": Drawn(("nonCT",), 1, 40, (999, 1, 1), (1, 512, 480), size_spread=0.2),
    "one case": Drawn(CT, 1, 1, (2, 0.9, 0.9), (120, 400, 420)),
    "two cases": Drawn(MRI, 1, 2, (2, 0.9, 0.9), (77, 203, 181), (1.5, 2.5), 0.1, 0.1),
    "huge": Drawn(MRI, 1, 12, (0.5, 0.5, 0.5), (1024, 1024, 1024)),
    "microscopy": Drawn(("EM",), 1, 3, (0.04, 0.004, 0.004), (125, 1250, 1250)),
    "many classes": Drawn(CT, 104, 80, (1.5, 1.5, 1.5), (240, 230, 250), size_spread=0.3),
    "five voxels": Drawn(MRI, 1, 10, (1, 1, 1), (5, 5, 5)),
    "halves of a voxel": Drawn(MRI, 1, 41, (2, 1, 1), (61, 181, 171), (1, 2, 4), 0.0, 0.1),
    "spacings off our grid": Drawn(
        CT, 2, 60, (2.5, 0.78, 0.78), (107, 512, 512), (1.25, 2.5, 5), 0.15, grid_mm=1 / 1024
    ),
}


def drawn(data_set: Drawn, generator: Generator) -> Entry:
    """Return what a planner is given, one spacing and one shape per case."""
    coarsest = int(np.argmax(data_set.spacing_mm))
    others = np.arange(3) != coarsest
    spacings, shapes = [], []
    for _ in range(data_set.n_cases):
        spacing = np.array(data_set.spacing_mm, float)
        size = data_set.shape * (1 + data_set.size_spread * generator.uniform(-1, 1, 3))
        spacing[others] *= 1 + data_set.spacing_spread * generator.uniform(-1, 1)
        if data_set.slices_mm:
            spacing[coarsest] = generator.choice(data_set.slices_mm)
            size[coarsest] *= data_set.spacing_mm[coarsest] / spacing[coarsest]
        steps = np.round(spacing / data_set.grid_mm)
        spacings.append([round(float(mm), 10) for mm in steps * data_set.grid_mm])
        shapes.append([max(1, round(float(voxels))) for voxels in size])
    return {
        "channels": list(data_set.channels),
        "labels": data_set.n_foreground_classes,
        "n_training_cases": data_set.n_cases,
        "spacings": spacings,
        "shapes_after_crop": shapes,
    }


def collect(target: Path, hippocampus: Path | None) -> None:
    """Write what nnunetv2 plans for every data set."""
    entries = []
    with tempfile.TemporaryDirectory() as folder:
        for room in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{room}"] = str(Path(folder) / room)
        for name, given in _inputs(hippocampus):
            entries += list(_planned_by_peer(name, given))
            target.write_text(json.dumps(entries), "utf-8")  # others may read the first ones
            print(f"{name}: planned", flush=True)


def _inputs(hippocampus: Path | None) -> Iterator[tuple[str, Entry]]:
    if hippocampus is not None:
        given = _extracted(hippocampus)
        yield "hippocampus", given
        yield "hippocampus, 260", {**given, "n_training_cases": 260}  # the whole published set
    for index, (name, data_set) in enumerate(SYNTHETIC.items()):
        yield name, drawn(data_set, np.random.default_rng([2026, index]))


def _extracted(folder: Path) -> Entry:
    """Return the fingerprint that nnunetv2 extracts from a Decathlon folder, and time it."""
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor

    images = sorted((folder / "imagesTr").glob("[!.]*.nii.gz"))
    given = {"channels": ["MRI"], "labels": 2, "n_training_cases": len(images)}
    _write_data_set(given, {str(image): str(folder / "labelsTr" / image.name) for image in images})
    extractor = fingerprint_extractor.DatasetFingerprintExtractor(1, num_processes=2)
    began = time.perf_counter()
    found = extractor.run()
    print(f"nnunetv2 fingerprint of {len(images)} cases: {time.perf_counter() - began:.2f} s")
    spacings = [[float(mm) for mm in case] for case in found["spacings"]]
    shapes = [[int(voxels) for voxels in case] for case in found["shapes_after_crop"]]
    return given | {"spacings": spacings, "shapes_after_crop": shapes}


def _write_data_set(given: Entry, labels_of: dict[str, str]) -> Path:
    """Write `dataset.json` of data set 1 and return the folder where its fingerprint belongs."""
    raw, kept = (
        Path(os.environ[f"nnUNet_{name}"]) / "Dataset001_X" for name in ("raw", "preprocessed")
    )
    for folder in (raw, kept):  # afresh: an older plan's configurations would stay in a new plan
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    described = {
        "channel_names": dict(enumerate(given["channels"])),
        "labels": {"background": 0}
        | {f"{value}": value for value in range(1, given["labels"] + 1)},
        "numTraining": given["n_training_cases"],
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",  # named, so that no file has to exist
        "dataset": {name: {"images": [name], "label": of} for name, of in labels_of.items()},
    }
    (raw / "dataset.json").write_text(json.dumps(described), "utf-8")
    return kept


def _planned_by_peer(name: str, given: Entry) -> Iterator[Entry]:
    source = f"nnunetv2 {importlib.metadata.version('nnunetv2')}"
    for planner, (_, sizes_gb) in PLANNERS.items():
        for memory_gb in sizes_gb:
            yield {
                "id": name,
                "planner": planner,
                "memory_gb": memory_gb,
                "source": source,
                "input": given,
                "plans": _plans(planner, memory_gb, given),
            }


def _plans(planner: str, memory_gb: float, given: Entry) -> Entry:
    """Return what the peer plans, by the peer's names."""
    import torch
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
        residual_encoder_unet_planners as planners,  # it also imports the default planner
    )

    kept = _write_data_set(given, {"none.nii.gz": "none.nii.gz"})
    fingerprint = {key: given[key] for key in ("spacings", "shapes_after_crop")} | {
        "foreground_intensity_properties_per_channel": {},
        "median_relative_size_after_cropping": 1.0,
    }
    (kept / "dataset_fingerprint.json").write_text(json.dumps(fingerprint), "utf-8")
    with contextlib.redirect_stdout(io.StringIO()), torch.device("meta"):
        plans = getattr(planners, planner)(1, memory_gb).plan_experiment()
    plain = {"transpose_forward": plans["transpose_forward"]}
    for name in CONFIGURATIONS:
        if name in plans["configurations"]:
            planned = plans["configurations"][name]
            plain[name] = planned | planned["architecture"]["arch_kwargs"]
    return plain


def compare(entries: Iterable[Entry]) -> bool:
    """Print one row per plan, with both values where they differ; return whether all are equal."""
    counts, slowest_s = {"equal": 0, "none": 0, "DIFFERENT": 0}, 0.0
    for entry in entries:
        began = time.perf_counter()
        plan = _ours(entry)
        slowest_s = max(slowest_s, time.perf_counter() - began)
        faults = {name: list(_differences(plan, entry, name)) for name in CONFIGURATIONS}
        row = f"{entry['id']:24} {entry['planner']:22} {entry['memory_gb']:3.0f} GB"
        for name, lines in faults.items():
            agreed = "equal" if name in entry["plans"] else "none"  # in neither plan
            verdict = "DIFFERENT" if lines else agreed
            counts[verdict] += 1
            row += f"  {name} {verdict:9}"
        print(row)
        for name, lines in faults.items():
            print("".join(f"    {name} {line}\n" for line in lines), end="")
    print(f"configurations: {counts}; our slowest data set {slowest_s:.3f} s, its merge included")
    return counts["DIFFERENT"] == 0


def _ours(entry: Entry) -> "Plan":
    """Return our plan of the same cases, merged as those of sites are."""
    from common.planning.fingerprint import fingerprint_of, merge
    from common.planning.planner import plan_summary, summary_of
    from common.task import Task

    given = entry["input"]
    labels = {"background": 0} | {f"{value}": value for value in range(1, given["labels"] + 1)}
    channels = tuple(given["channels"])
    task = Task(name="drawn", version=1, channels=channels, labels=labels, regions={"first": (1,)})
    cases = zip(map(tuple, given["shapes_after_crop"]), given["spacings"], strict=True)
    merged = reduce(merge, (fingerprint_of(size, size, mm, None, task) for size, mm in cases))
    rules = PLANNERS[entry["planner"]][0]
    # The summary, not the fingerprint: CT without a foreground has no constants, and needs none.
    summary = replace(summary_of(merged, rules), n_training_cases=given["n_training_cases"])
    return plan_summary(summary, memory_gb=entry["memory_gb"], rules=rules)


def _differences(plan: "Plan", entry: Entry, name: str) -> Iterator[str]:
    """Yield each value of a configuration that differs, in words."""
    expected, found = entry["plans"].get(name), plan.configurations.get(name)
    if expected is None or found is None:
        if expected is not found:
            yield f"ours {found}, theirs {expected}"
        return
    pairs = {
        "transpose": (plan.transpose, entry["plans"]["transpose_forward"]),
        "spacing_mm": (found.spacing_mm, expected["spacing"]),
        "median_shape": (found.median_shape, expected["median_image_size_in_voxels"]),
        "strides": (found.strides, expected["strides"][1:]),  # the first stage never halves
    } | {field: (getattr(found, field), expected[field]) for field in SAME_NAME}
    ticks = np.array(entry["input"]["spacings"]) * 1e4
    # Off our grid, up to half a step of it, and that grows with the steps of the low resolution.
    near = (1e-9, 0) if np.allclose(ticks, np.round(ticks), 0, 1e-6) else (1e-4, 5e-5)
    for field, (mine, theirs) in pairs.items():
        exact = field != "spacing_mm" or len(mine) != len(theirs)
        if not (np.array_equal(mine, theirs) if exact else np.allclose(mine, theirs, *near)):
            yield f"{field}: ours {mine}, theirs {theirs}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("expected", type=Path)
    parser.add_argument("--collect", action="store_true")
    parser.add_argument("--hippocampus", type=Path)
    options = parser.parse_args()
    if options.collect:
        collect(options.expected, options.hippocampus)
        return 0
    return int(not compare(json.loads(options.expected.read_text("utf-8"))))


if __name__ == "__main__":
    raise SystemExit(main())
