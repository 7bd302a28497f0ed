"""A data folder says what its task is, or the user does."""

import json
from pathlib import Path

import pytest

from client.dataset.guess import task_of
from client.dataset.layouts import find_cases
from common.errors import ConfigError

DECATHLON = {
    "name": "Hippocampus Left & Right",
    "modality": {"0": "MRI"},
    "labels": {"0": "Background", "1": "Anterior", "2": "Posterior"},
}
NNUNET = {
    "channel_names": {"0": "T1", "1": "FLAIR"},
    "labels": {"background": 0, "oedema": 2, "core": 1},
}


def folder(tmp_path: Path, plain: object) -> Path:
    home = tmp_path / "Task04_My Data"
    home.mkdir()
    (home / "dataset.json").write_text(json.dumps(plain))
    return home


def test_a_decathlon_folder_names_channels_and_labels_itself(tmp_path: Path) -> None:
    task = task_of(folder(tmp_path, DECATHLON), None)
    assert task.name == "hippocampus-left-right"
    assert task.channels == ("MRI",)
    assert task.labels == {"background": 0, "Anterior": 1, "Posterior": 2}
    assert list(task.regions.items()) == [("Anterior", (1,)), ("Posterior", (2,))]
    assert (task.region_labels, task.floor) == (None, None)


def test_an_nnunet_folder_names_channels_and_labels_itself(tmp_path: Path) -> None:
    task = task_of(folder(tmp_path, NNUNET), None)
    assert task.name == "task04-my-data"  # the folder's, as the file has none
    assert task.channels == ("T1", "FLAIR")
    assert task.labels == {"background": 0, "oedema": 2, "core": 1}
    assert task.regions == {"oedema": (2,), "core": (1,)}


def test_channels_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = {"10": "k", "2": "c", "0": "a", "1": "b"}
    assert task_of(folder(tmp_path, {**NNUNET, "channel_names": names}), None).channels == (
        "a",
        "b",
        "c",
        "k",
    )


def test_a_folder_without_a_description_is_read_as_brats(tmp_path: Path) -> None:
    assert task_of(tmp_path, None).name == "brats-2021"


def test_a_task_that_is_named_wins_over_the_folder(tmp_path: Path) -> None:
    home = folder(tmp_path, DECATHLON)
    assert task_of(home, "brats").name == "brats-2021"
    assert task_of(home, "brats-2023").name == "brats-2023"


def test_a_users_own_task_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'name = "own"\nversion = 1\nchannels = ["A"]\n'
        "[labels]\nbackground = 0\na = 1\n[regions]\na = [1]\n"
    )
    assert task_of(tmp_path, str(path)).name == "own"


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="task 'lung': expected"):
        task_of(tmp_path, "lung")


@pytest.mark.parametrize(
    "plain",
    [
        {},
        [],
        5,
        {"modality": {"0": "MRI"}},
        {"labels": {"0": "background", "1": "a"}},
        {**DECATHLON, "modality": ["MRI"]},
        {**DECATHLON, "modality": {"first": "MRI"}},
        {**DECATHLON, "labels": ["background", "a"]},
        {**NNUNET, "labels": {"background": 0, "whole": [1, 2]}},
        {**NNUNET, "labels": {"background": 0, "whole": "one"}},
        {**NNUNET, "labels": {"background": 0, "whole": 1.5}},
        {**NNUNET, "labels": {"background": 0, "a": [1, 2], "b": [2]}, "regions_class_order": [1]},
    ],
)
def test_a_description_that_says_too_little_is_the_users_mistake(
    tmp_path: Path, plain: object
) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.json: expected channels and labels .*--task"):
        task_of(folder(tmp_path, plain), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_names": {"0": 7}}, "channels.0: expected a valid string, found 7"),
        ({"labels": {"background": 0}}, "regions: expected"),
        ({"labels": {"a": 1, "b": 2}}, "labels: expected background = 0"),
        ({"labels": {"background": 0, "a": 300}}, "labels.a: expected less than or equal to 255"),
    ],
)
def test_a_description_that_is_no_task_is_the_users_mistake(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        task_of(folder(tmp_path, {**NNUNET, **change}), None)
    assert "dataset.json: " in str(caught.value)
    assert message in str(caught.value)


def test_a_file_that_is_no_json_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ConfigError, match="expected channels and labels"):
        task_of(tmp_path, None)


def test_two_labels_of_one_name_are_refused(tmp_path: Path) -> None:
    labels = {"0": "background", "1": "tumour", "2": "tumour"}
    with pytest.raises(ConfigError, match="ValueError: two labels of one name"):
        task_of(folder(tmp_path, {**DECATHLON, "labels": labels}), None)


def test_a_label_to_ignore_is_refused_with_the_file(tmp_path: Path) -> None:
    labels = {"background": 0, "core": 1, "ignore": 2}
    home = folder(tmp_path, {**NNUNET, "labels": labels})
    with pytest.raises(ConfigError) as refusal:
        task_of(home, None)
    assert str(refusal.value) == (
        f"{home / 'dataset.json'}: labels: expected every voxel to be labelled, found a label "
        "'ignore', which is not supported"
    )


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"modality": {"0": "M"}, "labels": {"background": 0, "a": 1e999}}']
)
def test_json_that_no_program_writes_is_the_users_mistake(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ConfigError, match=r"dataset\.json: expected channels and labels"):
        task_of(tmp_path, None)


def test_the_mark_that_windows_puts_before_a_text_is_no_mistake(tmp_path: Path) -> None:
    home = folder(tmp_path, NNUNET)
    plain = (home / "dataset.json").read_text()
    (home / "dataset.json").write_text(plain, encoding="utf-8-sig")
    task = task_of(home, None)
    assert task.channels == ("T1", "FLAIR")
    assert find_cases(home, task).defects[0].expected.startswith("at least one case")


def test_regions_of_an_nnunet_folder_become_labels_as_nnunet_paints_them(tmp_path: Path) -> None:
    # as nnunetv2 writes its BraTS 2021 data set
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
    plain = {**NNUNET, "labels": labels, "regions_class_order": [1, 2, 3]}
    task = task_of(folder(tmp_path, plain), None)
    assert task.regions == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert task.foreground_labels == (1, 2, 3)
    assert task.region_labels == {
        "": 0,
        "whole": 1,
        "core": 2,
        "whole+core": 2,
        "enhancing": 3,
        "whole+enhancing": 3,
        "core+enhancing": 3,
        "whole+core+enhancing": 3,
    }
