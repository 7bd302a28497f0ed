"""Expected numbers are by hand: quantiles of evenly spaced values lie on straight lines."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from client.preparation.quantiles import clipped_to_percentiles, landmarks_of, matched_to_landmarks

CHANNELS = arrays(
    np.float32, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 300).map(float)
)


def test_the_extremes_of_the_tissue_are_clipped_and_zero_stays_zero() -> None:
    channel = np.array([[[0, 0, 0, 10, 20, 30, 40, 50]]], np.float32)  # percentile p is 10 + 0.4 p
    clipped = clipped_to_percentiles(channel, (5, 90))
    assert clipped.ravel().tolist() == [0, 0, 0, 12, 20, 30, 40, 46]


def test_landmarks_run_from_the_first_to_the_last_percent() -> None:
    channel = np.array([[[0, *range(100, 201)]]], np.float32)  # percentile p is 100 + p
    assert landmarks_of(channel, 3).tolist() == pytest.approx([101, 150, 199])


def test_landmarks_are_mapped_exactly_and_straight_lines_run_between_and_beyond() -> None:
    channel = np.array([[[0, *range(100, 201)]]], np.float32)
    matched = matched_to_landmarks(channel, (10, 59, 255)).ravel()
    # 101 -> 10, 150 -> 59, 199 -> 255: slopes 1 and 4
    assert matched[[0, 2, 51, 100]].tolist() == [0, 10, 59, 255]
    assert matched[[1, 26, 61, 101]].tolist() == [9, 34, 99, 259]


def test_what_cannot_be_mapped_is_left_alone() -> None:
    empty, constant = np.zeros((1, 2, 2), np.float32), np.full((1, 2, 2), 7, np.float32)
    assert matched_to_landmarks(empty, (1, 2)) is empty
    assert matched_to_landmarks(constant, (1, 2)) is constant
    assert clipped_to_percentiles(empty, (1, 99)) is empty


@given(CHANNELS, st.lists(st.integers(1, 999), min_size=2, max_size=6, unique=True).map(sorted))
def test_matching_keeps_the_order_of_grey_values(
    channel: np.ndarray, landmarks: list[float]
) -> None:
    matched = matched_to_landmarks(channel, landmarks)
    inside = channel != 0
    order = np.argsort(channel[inside], kind="stable")
    assert (np.diff(matched[inside][order]) >= -1e-3).all()
    assert (matched[~inside] == 0).all()


@given(CHANNELS)
def test_clipping_twice_at_the_whole_range_changes_nothing(channel: np.ndarray) -> None:
    assert clipped_to_percentiles(channel, (0, 100)).tolist() == channel.tolist()
