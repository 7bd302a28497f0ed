"""The space that a case needs at most is known from its header."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.caching.prepare_cases import fill_cache
from client.caching.space import at_most_bytes, available_bytes, in_words, used_bytes
from client.dataset.guess import task_of
from client.dataset.layouts import describe
from client.dataset.nifti import grid_of, write_image
from common.case import Case
from common.errors import DataError
from common.planning.plan import Configuration, Normalization, Plan, PlannedFor, sealed
from common.task import Task

TASK = Task(
    name="toy",
    version=1,
    channels=("A",),
    labels={"background": 0, "one": 1, "two": 2},
    regions={"one": (1,)},
)
CONFIGURATION = Configuration(
    spacing_mm=(1.0, 1.0, 1.0),
    median_shape=(36.0, 50.0, 35.0),
    patch_size=(16, 16, 16),
    batch_size=2,
    strides=(),
    kernel_sizes=((3, 3, 3),),
    features_per_stage=(8,),
    batch_dice=False,
    deep_supervision_weights=(1.0,),
)
PLAN = sealed(
    Plan(
        schema=1,
        hash="",
        rules="paper",
        planned_for=PlannedFor(n_training_cases=20, n_foreground_classes=2, memory_gb=8.0),
        channels=("A",),
        transpose=(0, 1, 2),
        normalization=(Normalization(channel="A", scheme="z-score"),),
        configurations={"3d_fullres": CONFIGURATION},
    )
)


def header_only(path: Path, shape: tuple[int, int, int]) -> Case:
    write_image(path, np.zeros(shape, np.float32), grid_of((2.0, 1.0, 1.0), shape))
    path.write_bytes(path.read_bytes()[:352])
    return Case("p1", (path,), None)


def test_the_header_of_an_image_tells_what_it_needs_at_most(tmp_path: Path) -> None:
    case = header_only(tmp_path / "p1.nii", (10, 20, 30))
    assert at_most_bytes(case, TASK, PLAN, CONFIGURATION) == 48_960 + 16_384  # 20x20x30 float32
    labelled = replace(case, label=tmp_path / "absent.nii")
    assert at_most_bytes(labelled, TASK, PLAN, CONFIGURATION) == 48_960 + 12_240 + 146_880 + 16_384


def test_what_is_no_image_is_a_defect(tmp_path: Path) -> None:
    (tmp_path / "p1.nii").write_bytes(b"no header")
    with pytest.raises(DataError, match=r"p1\.nii: expected"):
        at_most_bytes(Case("p1", (tmp_path / "p1.nii",), None), TASK, PLAN, CONFIGURATION)


def test_a_budget_counts_what_lies_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(bytes(300))
    assert used_bytes(tmp_path) == 300
    assert used_bytes(tmp_path / "absent") == 0
    assert available_bytes(tmp_path, 1000) == 700
    assert available_bytes(tmp_path / "absent", 1000) == 1000
    assert available_bytes(tmp_path, None) > 1000


def test_sizes_are_said_in_words() -> None:
    assert in_words(13_206_953_984) == "12.3 GiB"
    assert in_words(524_288) == "0.5 MiB"


def test_noise_needs_no_more_than_was_said(tmp_path: Path) -> None:
    shape = (65, 33, 17)  # one voxel more than whole blocks
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(shape).astype(np.float32)
    write_image(tmp_path / "p1.nii", noise, grid_of((1.0, 1.0, 1.0), shape))
    case = Case("p1", (tmp_path / "p1.nii",), None)
    fill_cache([case], TASK, PLAN, CONFIGURATION, tmp_path / "cache")
    assert used_bytes(tmp_path / "cache") < at_most_bytes(case, TASK, PLAN, CONFIGURATION)


@pytest.mark.real_data
def test_real_cases_need_no_more_than_was_said_and_not_much_less(
    shared: Path, tmp_path: Path
) -> None:
    folder = shared / "data" / "Task04_Hippocampus"
    task = task_of(folder, None)
    plan = sealed(
        replace(
            PLAN,
            channels=task.channels,
            normalization=(Normalization(channel=task.channels[0], scheme="z-score"),),
        )
    )
    cases = describe(folder, task).cases[:8]
    fill_cache(cases, task, plan, CONFIGURATION, tmp_path / "cache")
    at_most = sum(at_most_bytes(case, task, plan, CONFIGURATION) for case in cases)
    assert 0.4 * at_most < used_bytes(tmp_path / "cache") < at_most
