"""The task of a data folder: named by the user, or read from its own dataset.json."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.codec import decode
from common.errors import ConfigError
from common.task import Task, load_task

BRATS = "brats-2021"  # a folder without dataset.json is read as this
FAULTS = (  # of any JSON
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)


def task_of(folder: Path, name: str | None) -> Task:
    """Return the named task, or what the folder says about itself.

    Args:
        folder: a data set; its dataset.json (Decathlon or nnU-Net) names channels and labels.
        name: a built-in task, a TOML path, "brats", or None to look into the folder.

    Raises:
        ConfigError: for an unknown name or a dataset.json without channels or labels.
    """
    if name is not None:
        return load_task(BRATS if name == "brats" else name)
    path = folder / "dataset.json"
    return _from_dataset_json(path) if path.exists() else load_task(BRATS)


def _from_dataset_json(path: Path) -> Task:
    try:
        plain = json.loads(path.read_text(encoding="utf-8-sig"))
        channels = plain.get("channel_names") or plain["modality"]
        labels = _labels(path, plain["labels"])
        ordered = [channels[key] for key in sorted(channels, key=int)]
    except FAULTS as error:
        raise ConfigError(
            f"{path}: expected channels and labels as Decathlon or nnU-Net write them, "
            f"found {type(error).__name__}: {error}; or name the task with --task"
        ) from None
    task = {
        "name": _slug(str(plain.get("name") or path.parent.name)),
        "version": 1,
        "channels": ordered,
        "labels": labels,
        "regions": {label: [value] for label, value in labels.items() if value > 0},
    }
    return decode(Task, task, source=str(path))


def _labels(path: Path, plain: Mapping[str, Any]) -> dict[str, int]:
    """Return value by name; Decathlon writes name by value."""
    decathlon = all(str(key).isdigit() for key in plain)
    pairs = [(str(b), int(a)) if decathlon else (str(a), int(b)) for a, b in plain.items()]
    if "ignore" in dict(pairs):
        raise ConfigError(
            f"{path}: labels: expected every voxel to be labelled, found a label 'ignore', which "
            "is not supported"
        )
    named = {("background" if value == 0 else name): value for name, value in pairs}
    if len(named) != len(pairs):
        raise ValueError("two labels of one name")
    return named


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
