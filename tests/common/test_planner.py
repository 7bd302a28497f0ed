"""Planning by the paper's rules; published rows are from arXiv 1904.08128v2, supplement F."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.codec import canonical_json, content_hash, decode, encode
from common.errors import ConfigError
from common.fingerprint import Fingerprint, empty, fingerprint_of, merge, merge_all
from common.plan import Configuration, Plan
from common.planner import PlanSummary, plan, plan_summary
from common.task import Task


def task_of(*channels: str) -> Task:
    return Task(
        name="any",
        version=1,
        channels=channels,
        labels={"background": 0, "a": 1, "b": 2},
        regions={"a": (1,), "b": (2,)},
    )


MRI = task_of("MRI")
HIPPOCAMPUS = PlanSummary(
    name="D4 Hippocampus",
    channels=("MRI",),
    n_training_cases=260,
    n_foreground_classes=2,
    target_spacing_mm=(1.0, 1.0, 1.0),
    median_shape_at_target=(36, 50, 35),
)
BRAIN_TUMOUR = PlanSummary(
    name="D1 Brain Tumour",
    channels=("T1", "T1c", "T2", "FLAIR"),
    n_training_cases=484,
    n_foreground_classes=3,
    target_spacing_mm=(1.0, 1.0, 1.0),
    median_shape_at_target=(138, 169, 138),
)


def repeated(case: Fingerprint, times: int, task: Task = MRI) -> Fingerprint:
    return merge_all({"none": empty(task), **{str(number): case for number in range(times)}})


def full_resolution(made: Plan) -> Configuration:
    return made.configurations["3d_fullres"]


def test_hippocampus_is_the_published_plan() -> None:
    made = full_resolution(plan_summary(HIPPOCAMPUS))
    assert (made.patch_size, made.batch_size) == ((40, 56, 40), 9)
    assert made.strides == ((2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert made.kernel_sizes == ((3, 3, 3),) * 4
    assert made.features_per_stage == (32, 64, 128, 256)
    assert not made.batch_dice


def test_brain_tumour_is_the_published_plan() -> None:
    made = full_resolution(plan_summary(BRAIN_TUMOUR))
    assert (made.patch_size, made.batch_size) == ((128, 128, 128), 2)
    assert made.strides == ((2, 2, 2),) * 5
    assert made.features_per_stage == (32, 64, 128, 256, 320, 320)


def test_a_summary_and_a_fingerprint_of_the_same_data_give_the_same_geometry() -> None:
    case = fingerprint_of((36, 50, 35), (36, 50, 35), (1.0, 1.0, 1.0), None, MRI)
    made = plan(repeated(case, 260))
    assert made.configurations == plan_summary(HIPPOCAMPUS).configurations
    assert made.transpose == (0, 1, 2)


def test_the_five_percent_cap_counts_the_cases_of_the_whole_federation() -> None:
    case = fingerprint_of((36, 50, 35), (36, 50, 35), (1.0, 1.0, 1.0), None, MRI)
    # 5 % of n * 63000 voxels in patches of 89600: 9.1, 6.6 and 0.7 of them
    batches = {n: full_resolution(plan(repeated(case, n))).batch_size for n in (260, 188, 20)}
    assert batches == {260: 9, 188: 7, 20: 2}


def test_the_slowest_axis_comes_first_and_the_others_keep_their_order() -> None:
    case = fingerprint_of((320, 319, 20), (320, 319, 20), (0.62, 0.62, 3.6), None, MRI)
    made = plan(repeated(case, 32))
    assert made.transpose == (2, 0, 1)
    assert full_resolution(made).spacing_mm == (3.6, 0.62, 0.62)
    assert full_resolution(made).median_shape == (20.0, 320.0, 319.0)
    assert full_resolution(made).patch_size == (20, 320, 256)  # prostate


def test_memory_scales_the_patch() -> None:
    half = full_resolution(plan_summary(BRAIN_TUMOUR, memory_gb=4.0)).patch_size
    double = full_resolution(plan_summary(BRAIN_TUMOUR, memory_gb=16.0)).patch_size
    assert np.prod(half) < 128**3 < np.prod(double)


def test_every_limit_of_a_run_is_said_in_words() -> None:
    made = plan_summary(HIPPOCAMPUS, base_features=16, max_batch_size=2)
    assert full_resolution(made).batch_size == 2
    assert full_resolution(made).features_per_stage == (16, 32, 64, 128)
    assert made.limits == (
        "batch_size 2 instead of 9 (max_batch_size)",
        "16 features in the first stage instead of 32 (base_features)",
    )


def test_a_limit_that_does_not_bind_is_not_mentioned() -> None:
    made = plan_summary(HIPPOCAMPUS, max_batch_size=9)
    assert made.limits == ()
    assert made == plan_summary(HIPPOCAMPUS)


def test_fewer_features_keep_the_published_patch() -> None:
    assert full_resolution(plan_summary(BRAIN_TUMOUR, base_features=8)).patch_size == (128,) * 3


@pytest.mark.parametrize(
    ("n_cropped", "scheme"), [(0, "z-score"), (2, "z-score"), (3, "masked-z-score")]
)
def test_the_z_score_is_masked_when_most_cases_lost_a_quarter(n_cropped: int, scheme: str) -> None:
    whole = fingerprint_of((40, 40, 40), (40, 40, 40), (1.0, 1.0, 1.0), None, MRI)
    cropped = fingerprint_of((40, 40, 40), (20, 40, 40), (1.0, 1.0, 1.0), None, MRI)
    sites = {"whole": repeated(whole, 4 - n_cropped), "cropped": repeated(cropped, n_cropped)}
    assert plan(merge_all(sites)).normalization[0].scheme == scheme


def test_ct_is_clipped_and_scaled_by_the_federations_constants() -> None:
    task = task_of("CT", "MRI")
    hu = {"CT": np.arange(-100.0, 101.0)}
    case = fingerprint_of((40, 40, 40), (10, 40, 40), (1.0, 1.0, 1.0), hu, task)
    ct, mri = plan(repeated(case, 3, task)).normalization
    assert (ct.scheme, ct.mean) == ("ct", 0.0)
    assert ct.std == pytest.approx((100 * 101 / 3) ** 0.5, rel=1e-12)
    # 603 voxels, three of each HU; 0.5 % is rank 3.01, in the second HU
    assert (ct.clip_low, ct.clip_high) == (-99.0, 99.0)
    assert (mri.scheme, mri.mean) == ("masked-z-score", None)


def test_ct_without_any_foreground_is_refused() -> None:
    case = fingerprint_of((9, 9, 9), (9, 9, 9), (1.0, 1.0, 1.0), None, task_of("CT"))
    with pytest.raises(ConfigError, match="expected foreground voxels"):
        plan(case)


def test_a_summary_of_ct_has_no_constants() -> None:
    summary = decode(PlanSummary, encode(HIPPOCAMPUS) | {"channels": ["CT"]}, source="test")
    (ct,) = plan_summary(summary).normalization
    assert (ct.scheme, ct.mean) == ("ct", None)


@pytest.mark.parametrize(
    "limits",
    [
        {"memory_gb": 0.0},
        {"memory_gb": float("nan")},
        {"memory_gb": 1e-9},
        {"base_features": 0},
        {"max_batch_size": 0},
        {"rules": "v3"},
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(limits))):
        plan_summary(HIPPOCAMPUS, **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((1024, 1024, 1024), (1.0, 1.0, 1.0)),
        ((5, 5, 5), (1.0, 1.0, 1.0)),
        ((1, 1, 1), (1.0, 1.0, 1.0)),
        ((30, 600, 600), (20.0, 1.0, 1.0)),
        ((600, 600, 30), (1.0, 1.0, 20.0)),
        ((1, 3000, 3000), (5.0, 0.1, 0.1)),
        ((2, 4000, 4000), (100.0, 0.1, 0.1)),
    ],
)
def test_extreme_data_still_get_a_plan(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    case = fingerprint_of(shape, shape, spacing, None, MRI)
    assert_consistent(full_resolution(plan(case)))


def assert_consistent(made: Configuration) -> None:
    halvings = np.array([(1, 1, 1), *made.strides]).prod(axis=0)
    assert not (np.array(made.patch_size) % halvings).any()
    assert len(made.kernel_sizes) == len(made.features_per_stage) == len(made.strides) + 1
    assert made.batch_size >= 2


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(1, 1200)] * 3),
    st.tuples(*[st.floats(0.1, 20)] * 3),
    st.sampled_from([1.0, 8.0, 40.0]),
)
def test_any_shape_and_spacing_get_a_divisible_patch(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], memory_gb: float
) -> None:
    case = fingerprint_of(shape, shape, spacing, None, MRI)
    assert_consistent(full_resolution(plan(case, memory_gb=memory_gb)))


def test_the_hash_is_the_same_for_any_order_of_sites() -> None:
    shapes = [(36, 50, 35), (30, 48, 31), (41, 55, 39), (128, 90, 60)]
    sites = [fingerprint_of(shape, shape, (1.0, 0.9, 1.1), None, MRI) for shape in shapes]
    plans = set()
    for a, b, c, d in permutations(sites):
        plans.add(canonical_json(plan(merge(merge(a, b), merge(c, d)))))
        plans.add(canonical_json(plan(merge(a, merge(b, merge(c, d))))))
    assert len(plans) == 1


def test_a_plan_read_again_from_its_file_has_the_same_hash() -> None:
    made = plan_summary(BRAIN_TUMOUR)
    again = decode(Plan, encode(made), source="plan.json")
    assert again == made
    assert content_hash(again) == content_hash(made)


def test_a_different_decision_has_a_different_hash() -> None:
    assert plan_summary(HIPPOCAMPUS).hash != plan_summary(HIPPOCAMPUS, max_batch_size=2).hash
