"""Tasks are data: what ships is consistent, regions and labels are two views of one thing."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.codec import canonical_json
from common.errors import ConfigError
from common.task import Task, built_in_tasks, labels_of, load_task, parse_task, regions_of

ALL_TASKS = ("brats-2013", "brats-2021", "brats-2023", "hippocampus", "kits-2019")
OWN = """
name = "own"
version = 1
channels = ["t1", "flair"]

[labels]
background = 0
lesion = 1
core = 2

[regions]
lesion = [1, 2]
core = [2]
"""
COMPLETE = (
    OWN
    + """
[region_labels]
"" = 0
lesion = 1
core = 0
"lesion+core" = 2

[files]
label_suffixes = ["_seg"]

[files.channel_suffixes]
t1 = ["_t1"]
flair = ["_flair"]

[floor]
channel = "flair"
region = "lesion"
"""
)


def own(tmp_path: Path, text: str) -> Task:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return load_task(str(path))


def own_with(tmp_path: Path, old: str, new: str) -> Task:
    """Load the complete task with one thing changed."""
    assert COMPLETE.count(old) == 1
    return own(tmp_path, COMPLETE.replace(old, new))


def test_these_tasks_are_built_in() -> None:
    assert built_in_tasks() == ALL_TASKS


@pytest.mark.parametrize("name", ALL_TASKS)
def test_a_built_in_task_has_the_name_of_its_file(name: str) -> None:
    assert load_task(name).name == name


@pytest.mark.parametrize(
    ("name", "labels", "accepted", "regions"),
    [
        ("brats-2013", (1, 2, 4), {0, 1, 2, 3, 4}, {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}),
        ("brats-2021", (1, 2, 4), {0, 1, 2, 4}, {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}),
        ("brats-2023", (1, 2, 3), {0, 1, 2, 3}, {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}),
        ("hippocampus", (1, 2), {0, 1, 2}, {"anterior": (1,), "posterior": (2,)}),
    ],
)
def test_a_built_in_task_has_the_published_labels(
    name: str, labels: tuple[int, ...], accepted: set[int], regions: dict[str, tuple[int, ...]]
) -> None:
    task = load_task(name)
    assert task.foreground_labels == labels
    assert task.accepted_values == accepted
    assert list(task.regions.items()) == list(regions.items())


def test_the_third_label_of_brats_2013_is_read_as_the_first() -> None:
    assert load_task("brats-2013").label_mapping == {3: 1}


@pytest.mark.parametrize("name", ["brats-2013", "brats-2021"])
@pytest.mark.parametrize(
    ("whole", "core", "enhancing", "label"),
    [
        (0, 0, 0, 0),
        (1, 0, 0, 2),  # oedema
        (0, 1, 0, 1),
        (1, 1, 0, 1),  # necrosis, non-enhancing core
        (0, 0, 1, 0),  # enhancing tumour alone is a false alarm
        (1, 0, 1, 4),
        (0, 1, 1, 4),
        (1, 1, 1, 4),
    ],
)
def test_every_combination_of_brats_regions_has_its_label(
    name: str, whole: int, core: int, enhancing: int, label: int
) -> None:
    masks = np.array([whole, core, enhancing], np.bool_).reshape(3, 1, 1, 1)
    assert labels_of(masks, load_task(name)).tolist() == [[[label]]]


def test_enhancing_tumour_of_brats_2023_becomes_three() -> None:
    masks = np.ones((3, 1, 1, 1), np.bool_)
    assert labels_of(masks, load_task("brats-2023")).tolist() == [[[3]]]


def test_labels_become_overlapping_regions() -> None:
    labels = np.array([[[0, 1, 2, 4]]], np.uint8)
    whole, core, enhancing = regions_of(labels, load_task("brats-2021"))
    assert whole.tolist() == [[[False, True, True, True]]]
    assert core.tolist() == [[[False, True, False, True]]]
    assert enhancing.tolist() == [[[False, False, False, True]]]


def test_a_label_that_no_region_names_is_in_none() -> None:
    assert not regions_of(np.full((1, 1, 1), 255, np.uint8), load_task("brats-2021")).any()


def label_maps(*values: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.uint8, (2, 3, 4), elements=st.sampled_from(values))


@given(label_maps(0, 1, 2, 4))
def test_labels_survive_the_way_through_regions(labels: np.ndarray) -> None:
    task = load_task("brats-2021")
    again = labels_of(regions_of(labels, task), task)
    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, labels)


@given(label_maps(0, 1, 2, 3))
def test_labels_of_2023_survive_the_way_through_regions(labels: np.ndarray) -> None:
    task = load_task("brats-2023")
    np.testing.assert_array_equal(labels_of(regions_of(labels, task), task), labels)


def test_regions_of_a_task_without_a_table_cannot_become_labels() -> None:
    with pytest.raises(ConfigError, match="hippocampus: expected region_labels"):
        labels_of(np.zeros((2, 1, 1, 1), np.bool_), load_task("hippocampus"))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"task 'brats': expected .* one of brats-2013, brats"):
        load_task("brats")


def test_a_users_own_task_is_read_from_its_file(tmp_path: Path) -> None:
    task = own(tmp_path, OWN)
    assert (task.name, task.channels, task.foreground_labels) == ("own", ("t1", "flair"), (1, 2))
    assert own(tmp_path, COMPLETE).region_labels == {
        "": 0,
        "lesion": 1,
        "core": 0,
        "lesion+core": 2,
    }


def test_a_missing_task_file_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a readable TOML file"):
        load_task(str(tmp_path / "own.toml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version = 1", "version = 0", "version: expected greater than or equal to 1, found 0"),
        ("channels =", "chanels =", "chanels: unknown key; did you mean 'channels'?"),
        ('["t1", "flair"]', "[]", "channels: expected at least 1 item, found []"),
        ("background = 0", "background = 3", "labels: expected background = 0"),
        ("background = 0", "air = 0", "labels: expected background = 0"),
        ("core = 2\n\n[regions]", "core = 256\n\n[regions]", "labels.core: expected less than"),
        ("lesion = [1, 2]", "lesion = [1, 9]", r"regions.lesion: labels [9] are not in labels"),
        ("lesion = [1, 2]", "lesion = [0, 1]", r"regions.lesion: labels [0] are not in labels"),
        ('"lesion+core" = 2', "", "region_labels: expected exactly the keys ['', 'core', 'les"),
        ('"lesion+core"', '"core+lesion"', "region_labels: expected exactly the keys"),
        ('flair = ["_flair"]', "", "files.channel_suffixes: expected exactly ['t1', 'flair']"),
        ('channel = "flair"', 'channel = "t2"', "floor.channel: 't2' is not a channel"),
        ('region = "lesion"', 'region = "WT"', "floor.region: 'WT' is not a region"),
    ],
)
def test_a_mistake_in_a_users_task_is_named(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        own_with(tmp_path, old, new)
    assert message in str(caught.value)
    assert "own.toml" in str(caught.value)


def test_a_combination_of_regions_cannot_become_an_unknown_label(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"region_labels: labels \[7\] are not in labels"):
        own_with(tmp_path, '"lesion+core" = 2', '"lesion+core" = 7')


def test_a_value_cannot_stand_for_an_unknown_label(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"label_mapping: labels \[7\] are not in labels"):
        own(tmp_path, COMPLETE + "\n[label_mapping]\n3 = 7\n")


def test_a_region_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"regions\.core: expected at least 1 item, found \[\]"):
        own_with(tmp_path, "core = [2]", "core = []")


def test_two_labels_of_one_value_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="labels: expected every value once"):
        own_with(tmp_path, "background = 0", "background = 0\nother = 1")


@pytest.mark.parametrize("name", ALL_TASKS)
def test_a_task_arrives_in_a_message_as_it_was_sent(name: str) -> None:
    task = load_task(name)
    again = parse_task(json.loads(canonical_json(task)))
    assert again == task
    assert list(again.regions) == list(task.regions)


def test_many_labels_without_a_table_of_regions_are_read_at_once() -> None:
    labels = {"background": 0, **{f"organ-{n}": n for n in range(1, 105)}}
    regions = {name: (value,) for name, value in labels.items() if value}
    task = Task(name="body", version=1, channels=("CT",), labels=labels, regions=regions)
    assert len(task.regions) == 104


def test_a_table_of_too_many_regions_is_refused() -> None:
    labels = {"background": 0, **{f"organ-{n}": n for n in range(1, 10)}}
    regions = {name: (value,) for name, value in labels.items() if value}
    with pytest.raises(ValueError, match="regions: expected at most 8 with region_labels"):
        Task(
            name="body",
            version=1,
            channels=("CT",),
            labels=labels,
            regions=regions,
            region_labels={"": 0},
        )
