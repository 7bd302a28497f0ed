"""What is segmented: channels, labels, regions, and how regions become labels again.

A task is data (`common/tasks/*.toml`, or a user's own TOML), never code. Regions are label sets
and may overlap (BraTS: whole tumour contains the core); they are what is scored and, with a
sigmoid output, what the network predicts.
"""

from collections.abc import Iterator
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le, MinLen
from pydantic import model_validator

from common.axes import LabelMap, RegionMasks
from common.codec import decode, read_toml, record
from common.errors import ConfigError

MAX_REGIONS = 8  # of a task whose regions become labels by a table
LabelValue = Annotated[int, Ge(0), Le(255)]


@record
class Files:
    """How the files of one case are recognised in a BraTS-style folder."""

    channel_suffixes: dict[str, tuple[str, ...]]
    """Endings of the file stem per channel, for example {"t1": ("_t1", "-t1n")}."""
    label_suffixes: tuple[str, ...]


@record
class Floor:
    """The learning-free baseline of a task: one bright channel above a threshold."""

    channel: str
    region: str


@record
class Task:
    """A segmentation task. All of it may leave the site; none of it is about patients."""

    name: str
    version: Annotated[int, Ge(1)]
    channels: Annotated[tuple[str, ...], MinLen(1)]
    """Channel names in the order of the image array; a channel named CT is normalised as CT."""
    labels: dict[str, LabelValue]
    """Value of every label in a (mapped) label file; must name background = 0."""
    regions: Annotated[dict[str, Annotated[tuple[LabelValue, ...], MinLen(1)]], MinLen(1)]
    """Label sets that are scored, in the order of the columns and heads."""
    region_labels: dict[str, LabelValue] | None = None
    """For a region output: which label each combination of regions ("WT+TC") becomes."""
    label_mapping: dict[int, LabelValue] | None = None
    """Values in files that stand for another label (BraTS 2013: 3 is 1)."""
    files: Files | None = None
    floor: Floor | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Task":
        if faults := [
            *self._faults_of_labels(),
            *self._faults_of_region_table(),
            *self._faults_of_channels(),
        ]:
            raise ValueError("; ".join(faults))
        return self

    def _faults_of_labels(self) -> Iterator[str]:
        values = set(self.labels.values())
        if self.labels.get("background") != 0:
            yield "labels: expected background = 0"
        if len(values) != len(self.labels):
            yield "labels: expected every value once"
        for region, members in self.regions.items():
            if unknown := set(members) - (values - {0}):
                yield f"regions.{region}: labels {sorted(unknown)} are not in labels"
        for field in ("region_labels", "label_mapping"):
            if unknown := set((getattr(self, field) or {}).values()) - values:
                yield f"{field}: labels {sorted(unknown)} are not in labels"

    def _faults_of_region_table(self) -> Iterator[str]:
        if self.region_labels is None:
            return
        if len(self.regions) > MAX_REGIONS:  # the table has 2 ** n rows
            yield f"regions: expected at most {MAX_REGIONS} with region_labels"
            return
        expected = {"+".join(names) for names in combinations(tuple(self.regions))}
        if set(self.region_labels) != expected:
            yield f"region_labels: expected exactly the keys {sorted(expected)}"

    def _faults_of_channels(self) -> Iterator[str]:
        if len(set(self.channels)) != len(self.channels):
            yield "channels: expected every name once"
        if self.files and set(self.files.channel_suffixes) != set(self.channels):
            yield f"files.channel_suffixes: expected exactly {list(self.channels)}"
        if self.floor and self.floor.channel not in self.channels:
            yield f"floor.channel: {self.floor.channel!r} is not a channel"
        if self.floor and self.floor.region not in self.regions:
            yield f"floor.region: {self.floor.region!r} is not a region"

    @property
    def foreground_labels(self) -> tuple[int, ...]:
        """Label values above background, ascending."""
        return tuple(sorted(value for value in self.labels.values() if value > 0))

    @property
    def accepted_values(self) -> frozenset[int]:
        """Values that may stand in a label file."""
        return frozenset(self.labels.values()) | frozenset(self.label_mapping or {})


def regions_of(labels: LabelMap, task: Task) -> RegionMasks:
    """Return one mask per region of the task, axes (region, z, y, x)."""
    table = np.zeros((len(task.regions), 256), np.bool_)  # a look-up is far faster than isin
    for row, members in zip(table, task.regions.values(), strict=True):
        row[list(members)] = True
    return np.stack([row[labels] for row in table])


def labels_of(regions: RegionMasks, task: Task) -> LabelMap:
    """Turn region masks, axes (region, z, y, x), into labels by the task's table.

    Raises:
        ConfigError: when the task does not say how its regions become labels.
    """
    if task.region_labels is None:
        raise ConfigError(f"task {task.name}: expected region_labels for a region output")
    names = tuple(task.regions)
    table = np.zeros(2 ** len(names), np.uint8)
    for members in combinations(names):
        code = sum(1 << names.index(name) for name in members)
        table[code] = task.region_labels["+".join(members)]
    codes = np.zeros(regions.shape[1:], np.int64)
    for index in range(len(names)):
        codes |= regions[index].astype(np.int64) << index
    labels: LabelMap = table[codes]
    return labels


def load_task(name_or_path: str) -> Task:
    """Return a built-in task by name, or a user's own from a ``.toml`` path.

    Raises:
        ConfigError: for an unknown name, an unreadable file or a malformed task.
    """
    if name_or_path.endswith(".toml"):
        return read_toml(Task, Path(name_or_path))
    if name_or_path not in built_in_tasks():
        known = ", ".join(built_in_tasks())
        raise ConfigError(
            f"task {name_or_path!r}: expected a path ending in .toml or one of {known}"
        )
    with resources.as_file(resources.files("common") / "tasks" / f"{name_or_path}.toml") as path:
        return read_toml(Task, path)


def built_in_tasks() -> tuple[str, ...]:
    """Return the names of the tasks that come with the package."""
    folder = resources.files("common") / "tasks"
    names = (entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in names))


def parse_task(plain: object) -> Task:
    """Build a task that arrived as plain data in a message."""
    return decode(Task, plain, source="task")


def combinations(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return every set of regions that a voxel may lie in, from none to all."""
    chosen = product((False, True), repeat=len(names))
    return [tuple(name for name, used in zip(names, row, strict=True) if used) for row in chosen]
