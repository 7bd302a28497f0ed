from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.codec import canonical_json, decode, encode
from common.errors import ConfigError, DataError
from common.planning.fingerprint import Fingerprint, empty, fingerprint_of, merge, merge_all
from common.planning.histogram import percentile
from common.task import Task

MRI = Task(
    name="hippocampus",
    version=1,
    channels=("MRI",),
    labels={"background": 0, "anterior": 1, "posterior": 2},
    regions={"anterior": (1,), "posterior": (2,)},
)
CT = replace(MRI, name="liver", channels=("CT",))

lengths = st.integers(1, 600)
spacings = st.sampled_from([0.5, 0.78125, 0.9766, 1.0, 1.25, 3.0, 5.0])
cases = st.builds(
    lambda shape, spacing, kept, hu: fingerprint_of(
        (shape[0] + kept, *shape[1:]), shape, spacing, {"CT": np.array(hu, np.float32)}, CT
    ),
    st.tuples(lengths, lengths, lengths),
    st.tuples(spacings, spacings, spacings),
    st.integers(0, 300),
    st.lists(st.integers(-1024, 3071), max_size=20),
)


def one_case(task: Task = MRI) -> Fingerprint:
    return fingerprint_of((40, 60, 40), (36, 50, 35), (3.0, 0.78125, 1.0), None, task)


def folded(fingerprints: list[Fingerprint]) -> Fingerprint:
    return merge_all({"none": empty(CT), **{str(i): item for i, item in enumerate(fingerprints)}})


def test_one_case_is_counted_once_on_every_axis() -> None:
    case = one_case()
    assert case.n_cases == 1
    assert case.shapes_voxels == ({36: 1}, {50: 1}, {35: 1})
    assert case.spacings_ticks == ({30000: 1}, {7812: 1}, {10000: 1})
    assert case.extents_ticks == ({1080000: 1}, {390600: 1}, {350000: 1})
    assert case.labels == (0, 1, 2)


def test_the_noise_of_a_header_does_not_split_a_spacing_between_two_ticks() -> None:
    found = {
        spacing: fingerprint_of((9, 9, 9), (9, 9, 9), (spacing, 1.0, 1.0), None, MRI)
        for spacing in (0.78125, 0.78125 - 1e-9, 0.78125 + 1e-9)
    }
    assert {tuple(case.spacings_ticks[0]) for case in found.values()} == {(7812,)}


def test_no_intensity_of_a_channel_other_than_ct_is_kept() -> None:
    case = fingerprint_of((9, 9, 9), (9, 9, 9), (1.0, 1.0, 1.0), {"MRI": np.ones(5)}, MRI)
    assert case.ct == {}


@pytest.mark.parametrize(("kept", "cropped"), [(300, 0), (299, 1), (400, 0), (1, 1)])
def test_a_case_is_cropped_when_less_than_three_quarters_remain(kept: int, cropped: int) -> None:
    case = fingerprint_of((400, 7, 3), (kept, 7, 3), (1.0, 1.0, 1.0), None, MRI)
    assert case.n_cropped == cropped


def test_a_spacing_below_the_grid_is_refused() -> None:
    with pytest.raises(DataError, match=r"expected at least 0\.0001 mm"):
        fingerprint_of((9, 9, 9), (9, 9, 9), (4e-6, 1.0, 1.0), None, MRI)


def test_the_empty_fingerprint_is_the_identity() -> None:
    assert merge(one_case(), empty(MRI)) == one_case() == merge(empty(MRI), one_case())


@given(cases, cases, cases)
def test_merge_is_commutative_and_associative(
    a: Fingerprint, b: Fingerprint, c: Fingerprint
) -> None:
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert canonical_json(merge(a, b)) == canonical_json(merge(b, a))


@given(st.data(), st.lists(cases, max_size=8))
def test_merged_equals_pooled_for_any_partition_and_any_order(
    data: st.DataObject, whole: list[Fingerprint]
) -> None:
    n_sites = data.draw(st.integers(1, 5))
    owners = data.draw(
        st.lists(st.integers(0, n_sites - 1), min_size=len(whole), max_size=len(whole))
    )
    shuffled = data.draw(st.permutations(list(zip(whole, owners, strict=True))))
    parts = [folded([case for case, owner in shuffled if owner == n]) for n in range(n_sites)]
    merged = folded(data.draw(st.permutations(parts)))
    assert canonical_json(merged) == canonical_json(folded(whole))


@given(st.lists(st.tuples(lengths, spacings), min_size=1, max_size=9), spacings)
def test_median_extent_over_target_is_the_median_resampled_length(
    axes: list[tuple[int, float]], target: float
) -> None:
    merged = folded(
        [fingerprint_of((n, 9, 9), (n, 9, 9), (mm, 1.0, 1.0), None, CT) for n, mm in axes]
    )
    median = percentile(merged.extents_ticks[0], 50) / (target * 10_000)
    gridded = [n * round(mm * 10_000) / (target * 10_000) for n, mm in axes]
    assert median == pytest.approx(np.median(gridded), rel=1e-14)
    # the grid moves a length by at most half a tick of its spacing
    assert median == pytest.approx(np.median([n * mm / target for n, mm in axes]), rel=1e-4)


def test_fingerprint_survives_the_codec_with_whole_numbers_as_keys() -> None:
    case = fingerprint_of((9, 9, 9), (8, 9, 9), (1.0, 1.0, 2.0), {"CT": np.array([-7.0])}, CT)
    assert decode(Fingerprint, encode(case), source="test") == case


def test_a_file_with_its_counts_in_another_order_is_the_same_fingerprint() -> None:
    case = merge(one_case(), fingerprint_of((9, 9, 9), (9, 9, 9), (1.0, 1.0, 1.0), None, MRI))
    plain = encode(case)
    shapes = [dict(reversed(list(axis.items()))) for axis in plain["shapes_voxels"]]
    assert [list(axis) for axis in shapes] == [["36", "9"], ["50", "9"], ["35", "9"]]
    shuffled = decode(Fingerprint, plain | {"shapes_voxels": shapes}, source="test")
    assert canonical_json(shuffled) == canonical_json(case)


def test_sites_with_different_channels_are_refused_with_who_has_what() -> None:
    sites = {"north": one_case(), "south": one_case(replace(MRI, channels=("T1",)))}
    with pytest.raises(ConfigError) as caught:
        merge_all(sites)
    assert "north: task hippocampus version 1, channels MRI, labels 0, 1, 2" in str(caught.value)
    assert "south: task hippocampus version 1, channels T1, labels 0, 1, 2" in str(caught.value)


@pytest.mark.parametrize(
    "other",
    [replace(MRI, version=2), replace(MRI, name="heart"), replace(MRI, channels=("MRI", "T2"))],
)
def test_two_tasks_do_not_merge(other: Task) -> None:
    with pytest.raises(ConfigError, match="fingerprints differ"):
        merge(empty(MRI), empty(other))


def test_no_fingerprint_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected at least one"):
        merge_all({})


def test_order_of_sites_changes_nothing() -> None:
    sites = {"a": one_case(), "b": merge(one_case(), one_case()), "c": empty(MRI)}
    texts = {canonical_json(merge_all(dict(order))) for order in permutations(sites.items())}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_cropped", 2),
        ("n_cases", 2),
        ("schema", 2),
        ("shapes_voxels", [{"0": 1}, {"50": 1}, {"35": 1}]),
        ("ct", {"CT": {"n_voxels": 0, "total_hu": 0, "total_squared_hu2": 0, "histogram_hu": {}}}),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError):
        decode(Fingerprint, encode(one_case()) | {field: value}, source="test")
