"""The one strict codec: frozen records to and from TOML (for people) and JSON (for machines).

Built on pydantic's dataclasses in strict mode: an unknown key, a wrong type, a value out of its
range and a missing key are all reported together, each with its path and, for a misspelt key,
the nearest valid name. Tuples come from arrays; nothing is converted silently.
"""

import dataclasses
import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, dataclass_transform, get_args, get_origin

import tomli_w
from pydantic import ConfigDict, Tag, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import ErrorDetails

from common.errors import ConfigError
from common.files import write_atomically

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only, strictly validated dataclass."""
    return pydantic_dataclass(frozen=True, kw_only=True, config=STRICT)(cls)  # type: ignore[return-value]


def decode(cls: type[T], data: object, *, source: str) -> T:
    """Build a record from plain data.

    Args:
        cls: a class made with `record`, or any type that pydantic can validate.
        data: nested dicts, lists, strings and numbers, as TOML or JSON give them.
        source: name of the file or message, for the error text.

    Raises:
        ConfigError: with one line per defect.
    """
    try:
        return TypeAdapter(cls).validate_json(json.dumps(data))
    except ValidationError as error:
        lines = [_explain(cls, defect) for defect in error.errors()]
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not plain data: {error}") from None


def encode(value: object) -> Any:
    """Return nested dicts, lists, strings and numbers; keys whose value is None are left out."""
    # Outside records nothing has refused NaN yet; kept as it is, the JSON writers refuse it.
    config = None if dataclasses.is_dataclass(value) else ConfigDict(ser_json_inf_nan="constants")
    return _without_none(TypeAdapter(type(value), config=config).dump_python(value, mode="json"))


def canonical_json(value: object) -> bytes:
    """Return the one JSON text of a record, without spaces; same input, same bytes.

    Fields stand in the order of their class and mappings in their own order, which has a meaning:
    the regions of a task are the network's outputs in that order.
    """
    return json.dumps(encode(value), separators=(",", ":"), allow_nan=False).encode()


def content_hash(value: object) -> str:
    """Return the SHA-256 of the canonical JSON as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def read_toml(cls: type[T], path: Path) -> T:
    """Read a TOML file into a record.

    Raises:
        ConfigError: when the file is missing, is not TOML, or does not fit the record.
    """
    return decode(cls, read_toml_table(path), source=str(path))


def read_toml_table(path: Path) -> dict[str, Any]:
    """Read a TOML file as plain data; a missing or malformed file is a `ConfigError`."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: expected a readable TOML file, found {error.strerror}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML, found {error}") from None


def toml_text(value: object) -> bytes:
    """Return a record as the content of a TOML file."""
    return tomli_w.dumps(encode(value)).encode()


def json_text(value: object) -> bytes:
    """Return a record as the content of an indented JSON file, in `canonical_json`'s order."""
    return (json.dumps(encode(value), indent=1, allow_nan=False) + "\n").encode()


def write_toml(path: Path, value: object) -> None:
    """Write a record as TOML, whole or not at all."""
    write_atomically(path, toml_text(value))


def read_json(cls: type[T], path: Path) -> T:
    """Read a JSON file into a record; errors as in `read_toml`."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: expected a readable JSON file, found {error.strerror}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: expected JSON, found {error}") from None
    return decode(cls, plain, source=str(path))


def write_json(path: Path, value: object) -> None:
    """Write a record as indented JSON, in the order of `canonical_json`, whole or not at all."""
    write_atomically(path, json_text(value))


def _without_none(plain: Any) -> Any:
    if isinstance(plain, Mapping):
        return {key: _without_none(item) for key, item in plain.items() if item is not None}
    if isinstance(plain, list):
        return [_without_none(item) for item in plain]
    return plain


def _explain(cls: type[Any], defect: ErrorDetails) -> str:
    where = ".".join(_without_tags(cls, defect["loc"]))
    prefix = f"{where}: " if where else ""
    if defect["type"] == "unexpected_keyword_argument":
        *parents, key = defect["loc"]
        known = _field_names(cls, tuple(parents))
        near = difflib.get_close_matches(str(key), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(known)}"
        return f"{prefix}unknown key; {hint}"
    if defect["type"] in {"missing", "missing_argument"}:
        return f"{prefix}missing"
    if defect["type"] == "value_error":  # our own words
        return prefix + defect["msg"].removeprefix("Value error, ")
    return f"{prefix}expected {_expectation(defect['msg'])}, found {defect['input']!r}"


def _expectation(message: str) -> str:
    """Turn pydantic's sentence into what is expected, without the type's name."""
    text = re.sub(r"^(Input should be|\w+ should have|\w+ should) ", "", message)
    text = re.sub(r" after validation, not \d+$", "", text)
    return text.replace("match pattern", "text of the pattern")


def _field_names(cls: Any, path: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the record that lies at `path` below `cls`."""
    for part in path:
        cls = _below(cls, part)
    found = _record_in(cls)
    return [field.name for field in dataclasses.fields(found)] if found is not None else []


def _without_tags(cls: Any, path: tuple[int | str, ...]) -> list[str]:
    """Return the parts of a path that stand in the file: no names of a union's members."""
    parts = []
    for part in path:
        if _tagged(cls, part) is None:
            parts.append(str(part))
        cls = _below(cls, part)
    return parts


def _below(annotation: Any, part: int | str) -> Any:
    """Return the annotation of what one part of a path leads to."""
    if (member := _tagged(annotation, part)) is not None:
        return member
    found = _record_in(annotation)
    if found is not None and isinstance(part, str):
        return {field.name: field.type for field in dataclasses.fields(found)}.get(part)
    return _item_of(annotation)


def _tagged(annotation: Any, part: int | str) -> Any:
    """Return the member of a discriminated union that a part of a path names, or None."""
    if get_origin(annotation) is Annotated:
        return _tagged(get_args(annotation)[0], part)
    members = get_args(annotation)
    tag = Tag(str(part))
    return next((one for one in members if tag in getattr(one, "__metadata__", ())), None)


def _record_in(annotation: Any) -> Any:
    """Return the record class that an annotation stands for, also inside a union, or None."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return annotation
    if get_origin(annotation) in {Annotated, Union, UnionType}:
        return next((found for arg in get_args(annotation) if (found := _record_in(arg))), None)
    return None


def _item_of(annotation: Any) -> Any:
    """Return what a tuple or mapping holds, also inside a union."""
    arguments = get_args(annotation)
    if get_origin(annotation) in {Annotated, Union, UnionType}:
        return next((item for arg in arguments if (item := _item_of(arg)) is not None), None)
    items = [argument for argument in arguments if argument is not Ellipsis]
    return items[-1] if items else None
