import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.codec import canonical_json, decode, encode
from common.errors import ConfigError
from common.planning.intensity import (
    CtStatistics,
    added_ct,
    ct_channels,
    ct_statistics,
    intensity_constants,
)

voxels = st.lists(st.integers(-1024, 3071), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [(("CT",), ("CT",)), (("t1", "ct"), ("ct",)), (("t1", "PCT"), ()), ((), ())],
)
def test_a_channel_is_ct_by_its_whole_name(
    channels: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert ct_channels(channels) == expected


def test_voxels_are_counted_in_whole_hu() -> None:
    assert ct_statistics(np.array([-3.0, 1.4, 1.0])) == CtStatistics(
        n_voxels=3, total_hu=-1, total_squared_hu2=11, histogram_hu={-3: 1, 1: 2}
    )


def test_rare_extremes_share_the_end_bins_and_still_count_in_the_mean() -> None:
    statistics = ct_statistics(np.array([-3024.0, -2000.0, 30000.0]))
    assert statistics.histogram_hu == {-1024: 2, 3071: 1}
    assert statistics.total_hu == 24976


@given(st.lists(voxels, min_size=1, max_size=6))
def test_constants_of_merged_parts_equal_those_of_the_pooled_voxels(parts: list[list[int]]) -> None:
    merged = ct_statistics(np.empty(0))
    for part in parts:
        merged = added_ct(ct_statistics(np.array(part, np.float64)), merged)
    pooled = np.concatenate(parts).astype(np.float64)
    constants = intensity_constants(merged)
    assert constants.percentile_0_5 == np.percentile(pooled, 0.5)
    assert constants.percentile_99_5 == np.percentile(pooled, 99.5)
    assert constants.mean == pytest.approx(pooled.mean(), rel=1e-12, abs=0)
    assert constants.std == pytest.approx(pooled.std(), rel=1e-12, abs=0)


@given(st.lists(st.floats(-1024, 3071, width=32), min_size=1, max_size=200))
def test_percentiles_of_fractions_of_a_hu_are_half_a_hu_off_at_most(values: list[float]) -> None:
    constants = intensity_constants(ct_statistics(np.array(values)))
    assert abs(constants.percentile_0_5 - np.percentile(values, 0.5)) <= 0.5 + 1e-9
    assert abs(constants.percentile_99_5 - np.percentile(values, 99.5)) <= 0.5 + 1e-9


def test_two_scanners_give_the_pooled_percentile_and_not_the_mean_of_theirs() -> None:
    rng = np.random.default_rng(7)
    many = ct_statistics(rng.normal(100, 20, 40_000))
    few = ct_statistics(rng.normal(400, 60, 20_000))
    pooled = intensity_constants(added_ct(many, few))
    # upper 1.5 % of the brighter third: 400 + 2.17 * 60
    assert 526 < pooled.percentile_99_5 < 534
    # variance: within (2 * 400 + 3600) / 3, between 300^2 * 2/9
    assert pooled.std == pytest.approx(146.5, abs=1)
    own = [intensity_constants(site).percentile_99_5 for site in (many, few)]
    assert 282 < (2 * own[0] + own[1]) / 3 < 290  # 100 + 2.58 * 20 twice, 400 + 2.58 * 60 once


def test_no_foreground_anywhere_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected foreground voxels"):
        intensity_constants(ct_statistics(np.empty(0)))


def test_statistics_survive_the_codec() -> None:
    statistics = ct_statistics(np.array([-1000.0, 3000.0, 40.0]))
    assert decode(CtStatistics, encode(statistics), source="test") == statistics
    assert b'"-1000":1' in canonical_json(statistics)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_voxels": 2, "total_hu": 5, "total_squared_hu2": 25, "histogram_hu": {"5": 1}},
        {"n_voxels": 1, "total_hu": 5, "total_squared_hu2": 24, "histogram_hu": {"5": 1}},
        {"n_voxels": 0, "total_hu": 0, "total_squared_hu2": 0, "histogram_hu": {"5": 0}},
    ],
)
def test_counts_that_contradict_each_other_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        decode(CtStatistics, wrong, source="test")
