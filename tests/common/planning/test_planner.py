"""Planning by the paper's rules; published rows are from arXiv 1904.08128v2, supplement F."""

import time
from functools import reduce
from itertools import permutations
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.axes import Shape, SpacingMm
from common.codec import canonical_json, content_hash, decode, encode
from common.errors import ConfigError
from common.planning.fingerprint import Fingerprint, empty, fingerprint_of, merge, merge_all
from common.planning.plan import Configuration, Configuration2d, Plan, Rules, configuration_of
from common.planning.planner import PlanSummary, plan, plan_summary
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
    return configuration_of(made, "3d_fullres")


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
        "2d: batch_size 2 instead of 366 (max_batch_size)",
        "batch_size 2 instead of 9 (max_batch_size)",
        "16 features in the first stage instead of 32 (base_features)",
    )


def test_a_limit_that_does_not_bind_is_not_mentioned() -> None:
    made = plan_summary(HIPPOCAMPUS, max_batch_size=366)
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


EXTREMES: dict[str, tuple[Shape, SpacingMm]] = {
    "1024 voxels": ((1024, 1024, 1024), (1.0, 1.0, 1.0)),
    "five voxels": ((5, 5, 5), (1.0, 1.0, 1.0)),
    "one voxel": ((1, 1, 1), (1.0, 1.0, 1.0)),
    "one slice": ((1, 512, 480), (999.0, 1.0, 1.0)),
    "spacing ratio 20": ((30, 600, 600), (20.0, 1.0, 1.0)),
    "spacing ratio 20, many slices": ((1024, 1024, 1024), (20.0, 1.0, 1.0)),
    "spacing ratio 20, last axis": ((600, 600, 30), (1.0, 1.0, 20.0)),
    "fine first axis": ((146, 617, 720), (0.13, 6.9, 1.95)),
    "large slice": ((1, 3000, 3000), (5.0, 0.1, 0.1)),
    "two large slices": ((2, 4000, 4000), (100.0, 0.1, 0.1)),
}


@pytest.mark.parametrize("rules", get_args(Rules))
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_data_of_one_case_still_get_a_plan_within_a_second(name: str, rules: Rules) -> None:
    shape, spacing = EXTREMES[name]
    case = fingerprint_of(shape, shape, spacing, None, MRI)
    began = time.process_time()
    made = plan(case, rules=rules)
    assert time.process_time() - began < 1.0
    assert_consistent(made)


def assert_consistent(made: Plan) -> None:
    for name, found in made.configurations.items():
        halvings = np.array([[1] * len(found.patch_size), *found.strides]).prod(axis=0)
        assert not (np.array(found.patch_size) % halvings).any()
        assert len(found.kernel_sizes) == len(found.features_per_stage) == len(found.strides) + 1
        assert found.batch_size >= (1 if name == "2d" else 2)
    assert made.cascade == ("3d_lowres" in made.configurations)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(1, 1200)] * 3),
    st.tuples(*[st.floats(0.1, 20)] * 3),
    st.sampled_from([1.0, 8.0, 40.0]),
    st.sampled_from(get_args(Rules)),
)
def test_any_shape_and_spacing_get_a_divisible_patch(
    shape: Shape, spacing: SpacingMm, memory_gb: float, rules: Rules
) -> None:
    case = fingerprint_of(shape, shape, spacing, None, MRI)
    assert_consistent(plan(case, memory_gb=memory_gb, rules=rules))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("target_spacing_mm", [1e5, 1.0, 1.0]),
        ("target_spacing_mm", [1e300, 1e-300, 1.0]),
        ("median_shape_at_target", [1e6, 10.0, 10.0]),
    ],
)
def test_what_no_scanner_makes_is_refused_in_words(field: str, values: list[float]) -> None:
    summary = decode(PlanSummary, encode(HIPPOCAMPUS) | {field: values}, source="test")
    with pytest.raises(ConfigError, match=f"{field}: expected"):
        plan_summary(summary)


def test_slices_of_hippocampus_are_the_published_plan() -> None:
    made = plan_summary(HIPPOCAMPUS).configurations["2d"]
    assert isinstance(made, Configuration2d)
    assert made.spacing_mm == (1.0, 1.0)
    assert made.median_shape == (50.0, 35.0)
    assert (made.patch_size, made.batch_size) == ((56, 40), 366)
    assert made.strides == ((2, 2),) * 3
    assert made.kernel_sizes == ((3, 3),) * 4
    assert made.features_per_stage == (32, 64, 128, 256)
    assert made.batch_dice


def test_slices_have_up_to_512_features_and_volumes_320() -> None:
    made = plan_summary(BRAIN_TUMOUR).configurations
    assert made["2d"].features_per_stage == (32, 64, 128, 256, 512, 512)
    assert made["3d_fullres"].features_per_stage == (32, 64, 128, 256, 320, 320)


def test_a_single_thin_case_still_has_a_batch_of_one_slice() -> None:
    case = fingerprint_of((1, 64, 64), (1, 64, 64), (5.0, 1.0, 1.0), None, MRI)
    assert plan(case).configurations["2d"].batch_size == 1  # 5 % of one slice are none


def test_slices_too_large_for_two_are_shrunk() -> None:
    case = fingerprint_of((100, 4000, 4000), (100, 4000, 4000), (1.0, 0.1, 0.1), None, MRI)
    made = plan(case).configurations["2d"]
    assert made.batch_size == 2
    assert max(made.patch_size) < 4000


def test_a_cascade_comes_with_batch_dice_at_full_resolution_only() -> None:
    case = fingerprint_of((525, 512, 512), (525, 512, 512), (0.78, 0.78, 0.78), None, MRI)
    made = plan(case)
    assert tuple(made.configurations) == ("2d", "3d_fullres", "3d_lowres")
    assert made.cascade
    assert configuration_of(made, "3d_fullres").batch_dice
    assert not configuration_of(made, "3d_lowres").batch_dice


def test_small_volumes_get_no_cascade() -> None:
    made = plan_summary(HIPPOCAMPUS)
    assert tuple(made.configurations) == ("2d", "3d_fullres")
    assert not made.cascade


def test_flat_patches_are_augmented_within_their_planes() -> None:
    case = fingerprint_of((20, 320, 319), (20, 320, 319), (3.6, 0.62, 0.62), None, MRI)
    assert full_resolution(plan(case)).anisotropic_augmentation  # 20x320x256
    assert not full_resolution(plan_summary(HIPPOCAMPUS)).anisotropic_augmentation


def test_the_coarsest_axis_is_never_resampled_in_slices() -> None:
    case = fingerprint_of((320, 319, 20), (320, 319, 20), (0.62, 0.62, 3.6), None, MRI)
    assert plan(repeated(case, 32)).configurations["2d"].spacing_mm == (0.62, 0.62)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.tuples(*[st.integers(1, 600)] * 3),
            st.tuples(*[st.sampled_from([0.5, 0.78125, 1.0, 3.0, 5.0])] * 3),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=8,
    ),
    st.permutations(range(4)),
    st.sampled_from(["paper", "v2"]),
)
def test_no_partition_into_sites_and_no_order_of_merging_changes_a_byte(
    cases: list[tuple[Shape, SpacingMm, int]], order: list[int], rules: Rules
) -> None:
    def fingerprints(site: int | None) -> Fingerprint:
        chosen = [one for one in cases if site is None or one[2] == site]
        found = [fingerprint_of(shape, shape, spacing, None, MRI) for shape, spacing, _ in chosen]
        return reduce(merge, found, empty(MRI))

    pooled = plan(fingerprints(None), rules=rules)
    merged = plan(merge_all({str(site): fingerprints(site) for site in order}), rules=rules)
    assert canonical_json(merged) == canonical_json(pooled)


V2_HIPPOCAMPUS: dict[Rules, tuple[float, int, int]] = {  # memory in GB, batch of 2d and of 3D
    "v2": (8.0, 366, 9),
    "v2-resenc-m": (8.0, 1618, 58),
    "v2-resenc-l": (24.0, 4554, 178),
    "v2-resenc-xl": (40.0, 6711, 183),
}


@pytest.mark.parametrize("rules", V2_HIPPOCAMPUS)
def test_hippocampus_by_the_second_versions_rules(rules: Rules) -> None:
    """Expected: nnunetv2 2.8.1 on the fingerprint of the 188 cases, numTraining 260."""
    memory_gb, slices, volumes = V2_HIPPOCAMPUS[rules]
    made = plan_summary(HIPPOCAMPUS, rules=rules, memory_gb=memory_gb).configurations
    assert (made["2d"].patch_size, made["2d"].batch_size) == ((56, 40), slices)
    assert (made["3d_fullres"].patch_size, made["3d_fullres"].batch_size) == ((40, 56, 40), volumes)


def test_one_slice_has_no_volumes_by_the_second_versions_rules() -> None:
    case = fingerprint_of((1, 512, 512), (1, 512, 512), (999.0, 1.0, 1.0), None, MRI)
    made = plan(case, rules="v2")
    assert tuple(made.configurations) == ("2d",)
    with pytest.raises(ConfigError, match="expected the configuration 3d_fullres, found 2d"):
        configuration_of(made, "3d_fullres")


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
