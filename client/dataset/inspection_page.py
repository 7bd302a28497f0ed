"""An inspection as one HTML page for the hospital: pictures, facts, defects and warnings.

The page shows patients and names cases: it says that it stays where it is. Everything is inline;
the same data give the same bytes.
"""

import base64
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client.dataset.checks import CaseFacts, Suspicion
from client.dataset.inspection import Inspection
from client.page_templates import page_templates
from client.scoring.appearance import colours_of
from common.errors import Defect
from common.files import write_atomically
from common.task import Task


@dataclass(frozen=True)
class CaseSection:
    """All that the page says about one case."""

    name: str
    facts: CaseFacts | None
    defects: tuple[Defect, ...]
    warnings: tuple[Suspicion, ...]
    pictures: dict[str, str]
    """Data addresses by channel that could be read."""

    @property
    def state(self) -> str:
        """The worst that was found: defect, warning or sound."""
        return "defect" if self.defects else "warning" if self.warnings else "sound"


def write_page(
    path: Path,
    found: Inspection,
    pictures: Mapping[str, Mapping[str, bytes]],
    task: Task,
    folder: Path,
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: the HTML file; an older one is replaced.
        found: what `client.dataset.inspection.inspect_folder` returned.
        pictures: WebP images by case and channel.
        task: names channels and labels.
        folder: the data set, as the user named it.

    Raises:
        DiskError: when it cannot be written.
    """
    environment = page_templates()
    environment.filters["times"] = lambda sizes: " \u00d7 ".join(f"{size:g}" for size in sizes)
    labels = {value: name for name, value in task.labels.items()}
    text = environment.get_template("inspection.html.j2").render(
        folder=folder,
        found=found,
        sections=case_sections(found, pictures),
        task=task,
        labels=labels,
        colours=colours_of(task),
    )
    write_atomically(path, text.encode())


def case_sections(
    found: Inspection, pictures: Mapping[str, Mapping[str, bytes]]
) -> tuple[CaseSection, ...]:
    """Return one section per name that occurs, the one with the most defects first."""
    facts = {case.name: case for case in found.cases}
    defects: dict[str, list[Defect]] = defaultdict(list)
    warnings: dict[str, list[Suspicion]] = defaultdict(list)
    for defect in found.defects:
        defects[defect.case].append(defect)
    for warning in found.warnings:
        warnings[warning.case].append(warning)
    sections = [
        CaseSection(
            name=name,
            facts=facts.get(name),
            defects=tuple(defects.get(name, ())),
            warnings=tuple(warnings.get(name, ())),
            pictures={key: _address(one) for key, one in pictures.get(name, {}).items()},
        )
        for name in sorted({*facts, *pictures, *defects, *warnings})
    ]
    return tuple(sorted(sections, key=lambda one: (-len(one.defects), -len(one.warnings))))


def _address(picture: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(picture).decode()
