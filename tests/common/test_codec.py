"""The codec refuses what does not fit, says all of it, and writes one text per record."""

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, MinLen
from hypothesis import given
from hypothesis import strategies as st
from pydantic import StringConstraints, ValidationError, model_validator

from common.codec import (
    canonical_json,
    content_hash,
    decode,
    encode,
    read_json,
    read_toml,
    record,
    write_json,
    write_toml,
)
from common.errors import ConfigError


@record
class Scanner:
    field_t: Annotated[float, Ge(0)]
    maker: str


@record
class Hospital:
    name: str
    scanners: tuple[Scanner, ...] = ()
    main: Scanner | None = None
    wards: Annotated[tuple[Scanner, ...], MinLen(1)] | None = None


@record
class Study:
    title: str
    hospitals: dict[str, Hospital]
    regions: dict[str, tuple[int, ...]]
    note: str | None = None


@record
class Spare:
    scanners: Annotated[tuple[Scanner, ...], MinLen(1)]


@dataclass(frozen=True)
class Measurement:
    """A plain dataclass, as `common.evaluation.metrics.RegionScore` is, inside a record."""

    value: float


@record
class Reading:
    reading: Measurement


PLAIN = {
    "title": "t",
    "hospitals": {"h": {"name": "H", "scanners": [{"field_t": 3, "maker": "m"}]}},
    "regions": {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]},
}
STUDY = Study(
    title="t",
    hospitals={"h": Hospital(name="H", scanners=(Scanner(field_t=3.0, maker="m"),))},
    regions={"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)},
)


def faults(cls: type[object], plain: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        decode(cls, plain, source="run.toml")
    return str(caught.value).splitlines()


def test_plain_data_becomes_a_record_with_tuples() -> None:
    assert decode(Study, PLAIN, source="run.toml") == STUDY


def test_a_misspelt_key_is_named_with_the_nearest_valid_one() -> None:
    plain = {"name": "H", "scaners": []}
    assert faults(Hospital, plain) == [
        "run.toml: scaners: unknown key; did you mean 'scanners'?",
    ]


def test_a_strange_key_is_answered_with_all_valid_ones() -> None:
    assert faults(Hospital, {"name": "H", "xyz": 1}) == [
        "run.toml: xyz: unknown key; expected one of name, scanners, main, wards",
    ]


def test_every_defect_is_in_one_error() -> None:
    plain = {"field_t": -1.5, "makr": "m", "age": 3}
    assert sorted(faults(Scanner, plain)) == [
        "run.toml: age: unknown key; expected one of field_t, maker",
        "run.toml: field_t: expected greater than or equal to 0, found -1.5",
        "run.toml: maker: missing",
        "run.toml: makr: unknown key; did you mean 'maker'?",
    ]


@pytest.mark.parametrize(
    ("plain", "line"),
    [
        (
            {"name": "H", "scanners": [{"field_t": 3, "maker": "m"}, {"field_t": 3, "maker": 7}]},
            "run.toml: scanners.1.maker: expected a valid string, found 7",
        ),
        (
            {"name": "H", "main": {"field_t": 3, "maker": "m", "makers": "n"}},
            "run.toml: main.makers: unknown key; did you mean 'maker'?",
        ),
        (
            {"name": "H", "scanners": [{"field_t": 3, "maker": "m", "makers": "n"}]},
            "run.toml: scanners.0.makers: unknown key; did you mean 'maker'?",
        ),
    ],
)
def test_a_nested_defect_has_its_whole_path(plain: object, line: str) -> None:
    assert faults(Hospital, plain) == [line]


def test_a_defect_inside_a_table_of_records_has_its_whole_path() -> None:
    hospital = {"name": "H", "main": {"field_t": 3, "maker": "m"}, "scaners": []}
    assert faults(Study, {**PLAIN, "hospitals": {"h": hospital}}) == [
        "run.toml: hospitals.h.scaners: unknown key; did you mean 'scanners'?",
    ]


def test_a_misspelt_key_below_a_list_with_a_constraint_is_named_with_the_nearest() -> None:
    plain = {"scanners": [{"field_t": 3, "maker": "m", "makers": "n"}]}
    assert "run.toml: scanners.0.makers: unknown key; did you mean 'maker'?" in faults(Spare, plain)


@pytest.mark.parametrize("wrong", [True, "3", None, [3]])
def test_nothing_is_converted_to_a_number(wrong: object) -> None:
    assert faults(Scanner, {"field_t": wrong, "maker": "m"}) == [
        f"run.toml: field_t: expected a valid number, found {wrong!r}"
    ]


@record
class Bounded:
    wards: Annotated[tuple[str, ...], MinLen(1)] = ("a",)
    rooms: Annotated[dict[str, int], MinLen(2)] | None = None
    code: Annotated[str, StringConstraints(pattern="^[a-z]+$", min_length=1)] = "a"
    side: Literal["left", "right"] = "left"

    @model_validator(mode="after")
    def _consistent(self) -> "Bounded":
        if self.wards == (self.code,) * 2:
            raise ValueError("wards: expected two names")
        return self


@pytest.mark.parametrize(
    ("plain", "line"),
    [
        ({"wards": []}, "wards: expected at least 1 item, found []"),
        ({"rooms": {}}, "rooms: expected at least 2 items, found {}"),
        ({"rooms": {"a": 1}}, "rooms: expected at least 2 items, found {'a': 1}"),
        ({"code": "B7"}, "code: expected text of the pattern '^[a-z]+$', found 'B7'"),
        ({"code": ""}, "code: expected at least 1 character, found ''"),
        ({"side": "top"}, "side: expected 'left' or 'right', found 'top'"),
        ({"wards": "a"}, "wards: expected a valid array, found 'a'"),
        ({"wards": ["x", "x"], "code": "x"}, "wards: expected two names"),
    ],
)
def test_every_message_says_what_is_expected_and_what_was_found(
    plain: dict[str, object], line: str
) -> None:
    assert faults(Bounded, plain) == [f"run.toml: {line}"]


def test_a_float_is_no_whole_number() -> None:
    plain = {**PLAIN, "regions": {"WT": [1.5]}}
    assert faults(Study, plain) == [
        "run.toml: regions.WT.0: expected a valid integer, found 1.5",
    ]


def test_a_list_is_no_table() -> None:
    assert faults(Scanner, [1]) == ["run.toml: expected an object, found [1]"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="field_t: expected a finite number"):
        decode(Scanner, {"field_t": value, "maker": "m"}, source="run.toml")
    with pytest.raises(ValidationError, match="finite number"):
        Scanner(field_t=value, maker="m")
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(Reading(reading=Measurement(value)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_outside_records_too(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"field_t": value})


def test_a_date_is_not_plain_data() -> None:
    assert faults(Scanner, {"field_t": dt.date(2020, 1, 1), "maker": "m"}) == [
        "run.toml: not plain data: Object of type date is not JSON serializable",
    ]


def test_a_record_cannot_be_changed() -> None:
    scanner = Scanner(field_t=3.0, maker="m")
    with pytest.raises(AttributeError):
        scanner.maker = "n"  # type: ignore[misc]


def test_the_canonical_text_is_this_and_no_other() -> None:
    assert canonical_json(STUDY) == (
        b'{"title":"t","hospitals":{"h":{"name":"H","scanners":[{"field_t":3.0,"maker":"m"}]}},'
        b'"regions":{"WT":[1,2,4],"TC":[1,4],"ET":[4]}}'
    )


def test_the_hash_is_the_sha_256_of_the_canonical_text() -> None:
    assert canonical_json(Scanner(field_t=1.5, maker="m")) == b'{"field_t":1.5,"maker":"m"}'
    # printf '{"field_t":1.5,"maker":"m"}' | sha256sum
    assert content_hash(Scanner(field_t=1.5, maker="m")) == (
        "e349ff4748fda4d463da56d04dce03eb0d096edff3ed2fb7c33d8d83ce3e35a1"
    )


def test_letters_outside_ascii_are_escaped() -> None:
    assert canonical_json(Scanner(field_t=1.0, maker="é")) == b'{"field_t":1.0,"maker":"\\u00e9"}'


def test_what_is_none_is_left_out_at_every_depth() -> None:
    assert encode(Hospital(name="H", main=None)) == {"name": "H", "scanners": []}
    assert "note" not in encode(STUDY)
    assert encode(STUDY)["hospitals"]["h"].keys() == {"name", "scanners"}


REGION_ORDERS = st.permutations(["WT", "TC", "ET", "a", "zz"])


@given(REGION_ORDERS)
def test_json_keeps_the_order_of_a_mapping(names: list[str]) -> None:
    study = Study(title="t", hospitals={}, regions=dict.fromkeys(names, (1,)))
    again = decode(Study, json.loads(canonical_json(study)), source="memory")
    assert list(again.regions) == names
    assert again == study


@pytest.mark.parametrize("names", [["WT", "TC", "ET"], ["ET", "WT", "TC"], ["TC", "ET", "WT"]])
def test_files_keep_the_order_of_a_mapping(tmp_path: Path, names: list[str]) -> None:
    study = Study(title="t", hospitals={}, regions=dict.fromkeys(names, (1,)))
    write_toml(tmp_path / "s.toml", study)
    write_json(tmp_path / "s.json", study)
    assert list(read_toml(Study, tmp_path / "s.toml").regions) == names
    assert list(read_json(Study, tmp_path / "s.json").regions) == names


@given(st.text(max_size=20), st.floats(0, 1e300))
def test_what_is_encoded_decodes_to_the_same(maker: str, field_t: float) -> None:
    scanner = Scanner(field_t=field_t, maker=maker)
    assert decode(Scanner, encode(scanner), source="memory") == scanner
    assert decode(Scanner, json.loads(canonical_json(scanner)), source="memory") == scanner


def test_a_written_file_reads_as_the_same_record(tmp_path: Path) -> None:
    write_toml(tmp_path / "s.toml", STUDY)
    write_json(tmp_path / "s.json", STUDY)
    assert read_toml(Study, tmp_path / "s.toml") == STUDY
    assert read_json(Study, tmp_path / "s.json") == STUDY


def test_a_missing_file_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"s.toml: expected a readable TOML file, found No such"):
        read_toml(Study, tmp_path / "s.toml")
    with pytest.raises(ConfigError, match=r"s.json: expected a readable JSON file, found No such"):
        read_json(Study, tmp_path / "s.json")


@pytest.mark.parametrize("content", [b"title = ", b"\xff\xfe"])
def test_a_file_of_another_kind_is_the_users_mistake(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="s: expected TOML, found"):
        read_toml(Study, path)
    with pytest.raises(ConfigError, match="s: expected JSON, found"):
        read_json(Study, path)


def test_a_defect_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('field_t = 3\nmaker = "m"\ncolour = "red"\n')
    with pytest.raises(ConfigError, match=r"s\.toml: colour: unknown key; expected one of field_t"):
        read_toml(Scanner, path)
