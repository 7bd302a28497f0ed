"""The file of scores: one row per case and region, and beside it what its numbers mean.

``scores.csv`` is free of comments and has exactly the columns of `COLUMNS`, so that any table
reader takes it. HD95 has several definitions in the field, so ``scores.csv.json`` beside it names
the one that was used, with its unit and what empty regions scored.
"""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from common.codec import read_json, record, write_json
from common.errors import ConfigError
from common.files import write_atomically
from common.metrics import EmptyRules, RegionScore
from common.surface import Hd95

ScoreTable: TypeAlias = Mapping[str, Mapping[str, RegionScore]]
"""Score by case and region. Holds case names: leaves a site only as its policy allows."""

COLUMNS = ("case", "region", "dice", "hd95", "sensitivity", "specificity")
METRICS = COLUMNS[2:]
UPPER_BOUNDS = {"dice": 1.0, "hd95": math.inf, "sensitivity": 1.0, "specificity": 1.0}


@record
class ScoringDefinition:
    """What the numbers of a file of scores mean. May leave the site."""

    task: str
    hd95: Hd95
    unit: Literal["mm"] = "mm"
    hd95_one_empty_mm: float
    """HD95 where exactly one of reference and prediction holds the region."""
    hd95_missing_case_mm: float
    """HD95 of a case without a prediction."""


def definition_of(task: str, hd95: Hd95, rules: EmptyRules) -> ScoringDefinition:
    """Describe scores of a task that were made with this definition and these rules."""
    return ScoringDefinition(
        task=task,
        hd95=hd95,
        hd95_one_empty_mm=rules.hd95_one_empty_mm,
        hd95_missing_case_mm=rules.missing_case.hd95,
    )


def definition_path(path: Path) -> Path:
    """Return where the definition of the scores in `path` stands: ``scores.csv.json``."""
    return path.with_name(f"{path.name}.json")


def write_scores(path: Path, scores: ScoreTable, definition: ScoringDefinition) -> None:
    """Write the scores and, beside them, their definition; each file whole or not at all.

    Numbers are written with the digits that give the same float64 back; NaN as an empty field.

    Raises:
        ConfigError: when the folder cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for case, regions in scores.items():
        for region, score in regions.items():
            values = (getattr(score, metric) for metric in METRICS)
            writer.writerow([case, region, *("" if math.isnan(v) else repr(v) for v in values)])
    write_json(definition_path(path), definition)
    write_atomically(path, text.getvalue().encode())


def read_scores(path: Path) -> ScoreTable:
    """Read a file of scores strictly.

    Returns:
        The scores, cases and regions in the order of the file; an empty field or ``nan`` is NaN,
        which means that the value is missing.

    Raises:
        ConfigError: with one line per defect: file, line, what was expected, what was found.
    """
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
        lines = [(reader.line_num, fields) for fields in reader if fields]
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable CSV file, found {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected CSV text, found {error}") from None
    found = tuple(lines[0][1]) if lines else ()
    if found != COLUMNS:
        raise ConfigError(
            f"{path}: line 1: expected the columns {','.join(COLUMNS)}, "
            f"found {','.join(found) or 'none'}"
        )
    return _table(path, lines[1:])


def read_definition(path: Path) -> ScoringDefinition | None:
    """Read what the scores in `path` mean; None when no definition lies beside the file.

    Raises:
        ConfigError: when the definition is there but malformed.
    """
    beside = definition_path(path)
    return read_json(ScoringDefinition, beside) if beside.exists() else None


def require_one_definition(paths: Mapping[str, Path]) -> ScoringDefinition | None:
    """Return the definition that the score files of all methods share; files without one pass.

    Raises:
        ConfigError: when two files define their numbers differently and cannot be compared.
    """
    named = {path: read_definition(path) for path in paths.values()}
    known = [(path, definition) for path, definition in named.items() if definition is not None]
    for path, definition in known[1:]:
        if definition != known[0][1]:
            raise ConfigError(
                f"{path}: expected scores defined as in {known[0][0]} ({known[0][1]}), "
                f"found {definition}"
            )
    return known[0][1] if known else None


def _table(path: Path, lines: list[tuple[int, list[str]]]) -> ScoreTable:
    table: dict[str, dict[str, RegionScore]] = {}
    defects: list[str] = []
    for number, fields in lines:
        try:
            case, region, score = _row(fields, table)
        except ValueError as defect:
            defects.append(f"{path}: line {number}: {defect}")
            continue
        table.setdefault(case, {})[region] = score
    if defects:
        raise ConfigError("\n".join(defects))
    return table


def _row(fields: list[str], above: ScoreTable) -> tuple[str, str, RegionScore]:
    if len(fields) != len(COLUMNS):
        raise ValueError(f"expected {len(COLUMNS)} fields, found {len(fields)}")
    case, region, *texts = fields
    if not (case and region):
        raise ValueError("expected the names of a case and a region, found an empty field")
    if region in above.get(case, {}):
        raise ValueError(f"expected each case and region once, found {case},{region} again")
    values = {metric: _number(metric, text) for metric, text in zip(METRICS, texts, strict=True)}
    return case, region, RegionScore(**values)


def _number(metric: str, text: str) -> float:
    bound = UPPER_BOUNDS[metric]
    expected = f"{metric} from 0 to {bound:g}"
    try:
        value = float(text or "nan")
    except ValueError:
        raise ValueError(f"expected {expected}, found {text!r}") from None
    if not math.isnan(value) and not 0 <= value <= bound:
        raise ValueError(f"expected {expected}, found {text}")
    return value
