"""Finding cases in folders; the files are empty because no layout opens an image."""

import json
from pathlib import Path

import pytest

from client.dataset.layouts import describe, find_cases
from common.codec import encode
from common.errors import ConfigError, DataError
from common.task import load_task, parse_task

BRATS = load_task("brats-2021")
HIPPOCAMPUS = load_task("hippocampus")
NAMES_2021 = ("_t1", "_t1ce", "_t2", "_flair", "_seg")
NAMES_2023 = ("-t1n", "-t1c", "-t2w", "-t2f", "-seg")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def make_brats(folder: Path, case: str, suffixes: tuple[str, ...] = NAMES_2021) -> None:
    touch(*(folder / case / f"{case}{suffix}.nii.gz" for suffix in suffixes))


def make_decathlon(folder: Path, *cases: str) -> None:
    for case in cases:
        touch(folder / "imagesTr" / f"{case}.nii.gz", folder / "labelsTr" / f"{case}.nii.gz")


def make_nnunet(folder: Path, *cases: str, channels: int = 4) -> None:
    for case in cases:
        touch(folder / "labelsTr" / f"{case}.nii.gz")
        touch(*(folder / "imagesTr" / f"{case}_{n:04d}.nii.gz" for n in range(channels)))


def defects(folder: Path, task=BRATS, only=None, **options: bool) -> list[str]:
    """Return the lines of the error without the folder, so that they can be literals."""
    with pytest.raises(DataError) as caught:
        describe(folder, task, only, **options)
    return [str(defect).replace(f"{folder}", "DATA") for defect in caught.value.defects]


@pytest.mark.parametrize("names", [NAMES_2021, NAMES_2023])
def test_brats_folders_give_the_channels_in_the_order_of_the_task(tmp_path, names):
    make_brats(tmp_path, "b", names)
    make_brats(tmp_path, "a", names)
    found = describe(tmp_path, BRATS)
    assert found.layout == "brats"
    assert [case.name for case in found.cases] == ["a", "b"]
    assert [path.name for path in found.cases[0].images] == [
        f"a{suffix}.nii.gz" for suffix in names[:4]
    ]
    assert found.cases[0].label == tmp_path / "a" / f"a{names[4]}.nii.gz"


def test_a_case_for_prediction_needs_no_label(tmp_path):
    make_brats(tmp_path, "a", NAMES_2021[:4])
    assert describe(tmp_path, BRATS, labels_required=False).cases[0].label is None
    assert defects(tmp_path) == ["a: DATA/a: expected one label file, found no such file"]


def test_decathlon_folders_hold_one_file_per_case(tmp_path):
    make_decathlon(tmp_path, "h_002", "h_001")
    found = describe(tmp_path, HIPPOCAMPUS)
    assert found.layout == "decathlon"
    assert [case.name for case in found.cases] == ["h_001", "h_002"]
    assert found.cases[0].images == (tmp_path / "imagesTr" / "h_001.nii.gz",)
    assert found.cases[0].label == tmp_path / "labelsTr" / "h_001.nii.gz"


def test_a_decathlon_file_holds_all_channels_of_the_task(tmp_path):
    make_decathlon(tmp_path, "BRATS_001")
    assert describe(tmp_path, BRATS).cases[0].images == (tmp_path / "imagesTr/BRATS_001.nii.gz",)


def test_decathlon_names_may_end_in_four_digits(tmp_path):
    make_decathlon(tmp_path, "case_0000", "case_0001")
    found = describe(tmp_path, HIPPOCAMPUS)
    assert found.layout == "decathlon"
    assert [case.name for case in found.cases] == ["case_0000", "case_0001"]


@pytest.mark.parametrize(("task", "channels"), [(HIPPOCAMPUS, 1), (BRATS, 4)])
def test_nnunet_folders_hold_one_numbered_file_per_channel(tmp_path, task, channels):
    make_nnunet(tmp_path, "c_2", "c_1", channels=channels)
    found = describe(tmp_path, task)
    assert found.layout == "nnunet"
    assert [case.name for case in found.cases] == ["c_1", "c_2"]
    assert found.cases[0].images == tuple(
        tmp_path / "imagesTr" / f"c_1_000{n}.nii.gz" for n in range(channels)
    )
    assert found.cases[0].label == tmp_path / "labelsTr" / "c_1.nii.gz"


def test_a_plain_folder_of_images_can_be_predicted(tmp_path):
    touch(tmp_path / "b.nii.gz", tmp_path / "a.nii")
    found = describe(tmp_path, HIPPOCAMPUS, labels_required=False)
    assert [(case.name, case.images, case.label) for case in found.cases] == [
        ("a", (tmp_path / "a.nii",), None),
        ("b", (tmp_path / "b.nii.gz",), None),
    ]


def test_a_plain_folder_of_numbered_images_can_be_predicted(tmp_path):
    touch(*(tmp_path / f"a_000{n}.nii.gz" for n in range(4)))
    found = describe(tmp_path, BRATS, labels_required=False)
    assert found.layout == "nnunet"
    assert [case.name for case in found.cases] == ["a"]


def test_numbers_of_cases_are_not_taken_for_channels(tmp_path):
    touch(*(tmp_path / f"phantom_{n:04d}.nii.gz" for n in (1, 2, 17)))
    found = describe(tmp_path, HIPPOCAMPUS, labels_required=False)
    assert found.layout == "decathlon"
    assert [case.name for case in found.cases] == ["phantom_0001", "phantom_0002", "phantom_0017"]


def test_a_channel_that_the_task_lacks_is_named_where_a_label_tells_the_case(tmp_path):
    make_nnunet(tmp_path, "a", channels=2)
    assert defects(tmp_path, HIPPOCAMPUS) == [
        "a: DATA/imagesTr/a_0001.nii.gz: expected only channels of the task, found a_0001.nii.gz"
    ]


def test_folders_per_case_need_a_task_that_names_their_files(tmp_path):
    make_brats(tmp_path, "a")
    make_brats(tmp_path, "b")
    assert defects(tmp_path, HIPPOCAMPUS) == [
        (
            "data set: DATA: expected dataset.json and imagesTr, because task hippocampus has no "
            "table 'files' that says which file of a case's folder is which channel (name another "
            "task with --task, or write that table into a task of your own), "
            "found 2 folders with images"
        )
    ]


def test_a_stray_image_beside_case_folders_does_not_hide_them(tmp_path):
    make_brats(tmp_path, "a")
    touch(tmp_path / "atlas.nii.gz")
    assert [case.name for case in describe(tmp_path, BRATS).cases] == ["a"]


def test_hidden_files_of_macos_are_ignored(tmp_path):
    make_brats(tmp_path, "a")
    touch(tmp_path / "a" / "._a_t1.nii.gz", tmp_path / "__MACOSX" / "a" / "x.nii.gz")
    make_decathlon(tmp_path / "d", "h")
    touch(tmp_path / "d" / "imagesTr" / "._h.nii.gz")
    assert len(describe(tmp_path, BRATS, only=["a"]).cases) == 1
    assert len(describe(tmp_path / "d", HIPPOCAMPUS).cases) == 1


def test_a_missing_folder_is_one_defect(tmp_path):
    assert defects(tmp_path / "gone") == [
        "data set: DATA: expected a folder of cases, found no such folder"
    ]


def test_a_file_instead_of_a_folder_is_one_defect(tmp_path):
    touch(tmp_path / "x.zip")
    assert defects(tmp_path / "x.zip") == [
        "data set: DATA: expected a folder of cases, found a file"
    ]


@pytest.mark.parametrize("task", [BRATS, HIPPOCAMPUS])
def test_an_empty_folder_and_an_empty_site_are_one_defect(tmp_path, task):
    line = (
        "data set: DATA: expected at least one case "
        "(imagesTr, NIfTI images, or a folder per case), found none"
    )
    assert defects(tmp_path, task) == [line]
    make_decathlon(tmp_path, "h_001")
    assert defects(tmp_path, task, only=()) == [line]


def test_every_missing_file_of_every_case_is_listed_at_once(tmp_path):
    make_brats(tmp_path, "a", ("_t1", "_t2", "_flair"))
    make_brats(tmp_path, "b")
    make_brats(tmp_path, "c", ("_t1", "_t1ce", "_t2", "_seg"))
    (tmp_path / "d").mkdir()
    assert defects(tmp_path) == [
        (
            "a: DATA/a: expected one image for channel t1ce (*_t1ce.nii.gz or *-t1c.nii.gz), "
            "found no such file"
        ),
        "a: DATA/a: expected one label file, found no such file",
        (
            "c: DATA/c: expected one image for channel flair (*_flair.nii.gz or *-t2f.nii.gz), "
            "found no such file"
        ),
        (
            "d: DATA/d: expected one image for channel t1 (*_t1.nii.gz or *-t1n.nii.gz); "
            "one image for channel t1ce (*_t1ce.nii.gz or *-t1c.nii.gz); "
            "one image for channel t2 (*_t2.nii.gz or *-t2w.nii.gz); "
            "one image for channel flair (*_flair.nii.gz or *-t2f.nii.gz), found none"
        ),
    ]


def test_two_files_for_one_channel_are_a_defect(tmp_path):
    make_brats(tmp_path, "a")
    touch(tmp_path / "a" / "a-t1n.nii.gz", tmp_path / "a" / "a_seg.nii")
    assert defects(tmp_path) == [
        (
            "a: DATA/a: expected one image for channel t1 (*_t1.nii.gz or *-t1n.nii.gz), "
            "found a-t1n.nii.gz and a_t1.nii.gz"
        ),
        "a: DATA/a: expected one label file, found a_seg.nii and a_seg.nii.gz",
    ]


def test_images_without_label_and_labels_without_image_are_defects(tmp_path):
    make_decathlon(tmp_path, "h_001", "h_002", "h_003")
    (tmp_path / "labelsTr" / "h_001.nii.gz").unlink()
    (tmp_path / "imagesTr" / "h_003.nii.gz").unlink()
    assert defects(tmp_path, HIPPOCAMPUS) == [
        "h_001: DATA/labelsTr: expected one label file, found no such file",
        "h_003: DATA/imagesTr: expected one image h_003.nii.gz, found no such file",
    ]


def test_missing_and_surplus_channel_numbers_are_defects(tmp_path):
    make_nnunet(tmp_path, "a", "b")
    (tmp_path / "imagesTr" / "a_0001.nii.gz").unlink()
    touch(tmp_path / "imagesTr" / "b_0004.nii.gz")
    assert defects(tmp_path) == [
        "a: DATA/imagesTr: expected one image a_0001.nii.gz (channel t1ce), found no such file",
        "b: DATA/imagesTr/b_0004.nii.gz: expected only channels of the task, found b_0004.nii.gz",
    ]


def test_only_the_wanted_cases_are_described_and_checked(tmp_path):
    make_decathlon(tmp_path, "h_001", "h_002")
    touch(tmp_path / "imagesTr" / "unlabelled.nii.gz")
    found = describe(tmp_path, HIPPOCAMPUS, only={"h_002"})
    assert [case.name for case in found.cases] == ["h_002"]


def test_wanted_cases_that_do_not_exist_are_listed(tmp_path):
    make_decathlon(tmp_path, "h_001")
    assert defects(tmp_path, HIPPOCAMPUS, only=["h_001", "h_9", "h_8"]) == [
        "h_8: DATA: expected a case of this name, found none",
        "h_9: DATA: expected a case of this name, found none",
    ]


def test_a_data_set_with_other_channels_than_the_task_is_a_defect(tmp_path):
    make_nnunet(tmp_path, "a")
    names = {"0": "T1", "1": "FLAIR"}
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": names}))
    assert defects(tmp_path) == [
        (
            "data set: DATA/dataset.json: expected the channels t1, t1ce, t2, flair "
            "of task brats-2021, found t1, flair"
        )
    ]


def test_the_channel_order_of_the_decathlon_is_not_taken_for_that_of_brats(tmp_path):
    make_decathlon(tmp_path, "BRATS_001")
    modality = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": modality}))
    assert defects(tmp_path) == [
        (
            "data set: DATA/dataset.json: expected the channels t1, t1ce, t2, flair "
            "of task brats-2021, found flair, t1w, t1gd, t2w"
        )
    ]


def test_a_data_set_with_other_labels_than_the_task_is_a_defect(tmp_path):
    make_decathlon(tmp_path, "h_001")
    labels = {"0": "background", "1": "anterior", "2": "posterior", "3": "whole"}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert defects(tmp_path, HIPPOCAMPUS) == [
        (
            "data set: DATA/dataset.json: expected the labels 0, 1, 2 of task hippocampus, "
            "found 3 as well"
        )
    ]


def test_labels_that_are_declared_per_region_are_compared_by_value(tmp_path):
    make_nnunet(tmp_path, "a")
    labels = {"background": 0, "whole tumour": [1, 2, 4], "core": [1, 4], "enhancing": 4}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert len(describe(tmp_path, BRATS).cases) == 1


def test_a_label_that_is_to_be_ignored_is_refused_in_words(tmp_path):
    make_nnunet(tmp_path, "a", channels=1)
    labels = {"background": 0, "anterior": 1, "posterior": 2, "ignore": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert defects(tmp_path, HIPPOCAMPUS) == [
        (
            "data set: DATA/dataset.json: expected cases that are labelled everywhere; "
            "a label 'ignore' is not supported, found 'ignore' = 3"
        )
    ]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"modality": ["MRI"]}', '{"modality": {"a": 1}}', '{"labels": [0]}']
)
def test_a_broken_dataset_json_is_a_defect_beside_the_others(tmp_path, text):
    make_decathlon(tmp_path, "h_001")
    touch(tmp_path / "imagesTr" / "h_002.nii.gz")
    (tmp_path / "dataset.json").write_text(text)
    first, second = defects(tmp_path, HIPPOCAMPUS)
    assert first.startswith("data set: DATA/dataset.json: expected readable JSON with named")
    assert second == "h_002: DATA/labelsTr: expected one label file, found no such file"


def test_complete_cases_are_found_beside_incomplete_ones(tmp_path):
    make_brats(tmp_path, "a", ("_t1",))
    make_brats(tmp_path, "b")
    findings = find_cases(tmp_path, BRATS)
    assert [case.name for case in findings.cases] == ["b"]
    assert {defect.case for defect in findings.defects} == {"a"}


def test_a_task_that_names_the_files_of_some_channels_only_is_a_mistake():
    plain = encode(BRATS)
    plain["files"]["channel_suffixes"] = {"t1": ["_t1"]}
    expected = r"files\.channel_suffixes: expected exactly \['t1', 't1ce', 't2', 'flair'\]"
    with pytest.raises(ConfigError, match=expected):
        parse_task(plain)


@pytest.mark.real_data
def test_the_real_hippocampus_folder_has_188_cases(shared):
    found = describe(shared / "data" / "Task04_Hippocampus", HIPPOCAMPUS)
    assert found.layout == "decathlon"
    assert len(found.cases) == 188
    assert found.cases[0].name == "hippocampus_001"
