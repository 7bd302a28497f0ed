"""The file of scores: one row per case and region, and beside it what its numbers mean.

``scores.csv`` is free of comments and has exactly the columns of `COLUMNS`, so that any table
reader takes it; behind them those of `FURTHER_COLUMNS` that were asked for. HD95 has several
definitions in the field, so ``scores.csv.json`` beside it names the one that was used, with its
unit and what empty regions scored.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from common.codec import read_json, record, write_json
from common.errors import ConfigError
from common.evaluation.empty_rules import EmptyRules, RegionScore, RulesName
from common.evaluation.further_metrics import FurtherMetric, FurtherMetrics
from common.evaluation.surface import Hd95
from common.files import write_atomically

ScoreTable: TypeAlias = Mapping[str, Mapping[str, RegionScore]]
"""Score by case and region. Holds case names: leaves a site only as its policy allows."""

FurtherTable: TypeAlias = Mapping[str, Mapping[str, Mapping[FurtherMetric, float]]]
"""Further metrics by case, region and name; released as `ScoreTable` is."""

COLUMNS = ("case", "region", "dice", "hd95", "sensitivity", "specificity")
METRICS = COLUMNS[2:]
FURTHER_COLUMNS: tuple[FurtherMetric, ...] = get_args(FurtherMetric)
UNBOUNDED = ("hd95", "volume_difference", "lesionwise_hd95")  # the others are at most 1


@record
class ScoringDefinition:
    """What the numbers of a file of scores mean. May leave the site."""

    task: str
    hd95: Hd95
    unit: Literal["mm"] = "mm"
    rules: RulesName | None = None
    """What empty regions score, by name; None in files older than the names."""
    hd95_one_empty_mm: float
    """HD95 where exactly one of reference and prediction holds the region."""
    hd95_missing_case_mm: float
    """HD95 of a case without a prediction."""
    further: FurtherMetrics | None = None
    """What the further columns mean, where there are any."""


def definition_of(
    task: str, hd95: Hd95, rules: EmptyRules, further: FurtherMetrics | None = None
) -> ScoringDefinition:
    """Describe scores of a task that were made with these definitions and rules."""
    return ScoringDefinition(
        task=task,
        hd95=hd95,
        rules=rules.name,
        hd95_one_empty_mm=rules.hd95_one_empty_mm,
        hd95_missing_case_mm=rules.missing_case.hd95,
        further=further if further and further.names else None,
    )


def definition_path(path: Path) -> Path:
    """Return where the definition of the scores in `path` stands: ``scores.csv.json``."""
    return path.with_name(f"{path.name}.json")


def write_scores(
    path: Path,
    scores: ScoreTable,
    definition: ScoringDefinition,
    further: FurtherTable | None = None,
) -> None:
    """Write the scores and, beside them, their definition; each file whole or not at all.

    Numbers are written with the digits that give the same float64 back; NaN as an empty field.

    Args:
        path: the CSV file.
        scores: by case and region, in the order of the rows.
        definition: what the numbers mean; names the further metrics.
        further: their values, for every case and region of `scores`.

    Raises:
        ConfigError: when the folder cannot be written.
    """
    names = definition.further.names if definition.further and further else ()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *names])
    for case, regions in scores.items():
        for region, score in regions.items():
            values = [getattr(score, metric) for metric in METRICS]
            values += [further[case][region][name] for name in names] if further else []
            writer.writerow([case, region, *("" if math.isnan(v) else repr(v) for v in values)])
    write_json(definition_path(path), definition)
    write_atomically(path, text.getvalue().encode())


def read_scores(path: Path, *, lesion_wise: bool = False) -> ScoreTable:
    """Read a file of scores strictly.

    Args:
        path: the CSV file.
        lesion_wise: put lesion-wise Dice and HD95 in the place of the usual ones, as BraTS 2023
            and later rank them.

    Returns:
        The scores, cases and regions in the order of the file; an empty field or ``nan`` is NaN,
        which means that the value is missing.

    Raises:
        ConfigError: with one line per defect: file, line, what was expected, what was found.
    """
    table, further = read_all_scores(path)
    if not lesion_wise:
        return table
    try:
        return {
            case: {
                region: replace(
                    score,
                    dice=further[case][region]["lesionwise_dice"],
                    hd95=further[case][region]["lesionwise_hd95"],
                )
                for region, score in regions.items()
            }
            for case, regions in table.items()
        }
    except KeyError:
        raise ConfigError(
            f"{path}: expected the columns lesionwise_dice and lesionwise_hd95, found none; "
            "consilium score writes them with --lesion-wise"
        ) from None


def read_all_scores(path: Path) -> tuple[ScoreTable, FurtherTable]:
    """Read a file of scores with its further columns; errors as in `read_scores`."""
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
        lines = [(reader.line_num, fields) for fields in reader if fields]
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable CSV file, found {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected CSV text, found {error}") from None
    columns = tuple(lines[0][1]) if lines else ()
    further = [name for name in FURTHER_COLUMNS if name in columns[len(COLUMNS) :]]
    if columns != (*COLUMNS, *further):
        raise ConfigError(
            f"{path}: line 1: expected the columns {','.join(COLUMNS)} and, if any, of "
            f"{','.join(FURTHER_COLUMNS)} in this order, found {','.join(columns) or 'none'}"
        )
    return _tables(path, lines[1:], columns, further)


def read_definition(path: Path) -> ScoringDefinition | None:
    """Read what the scores in `path` mean; None when no definition lies beside the file.

    Raises:
        ConfigError: when the definition is there but malformed.
    """
    beside = definition_path(path)
    return read_json(ScoringDefinition, beside) if beside.exists() else None


def require_one_definition(
    paths: Mapping[str, Path], *, lesion_wise: bool = False
) -> ScoringDefinition | None:
    """Return the definition that the score files of all methods share; files without one pass.

    Further metrics may differ, unless the lesion-wise ones are to be compared.

    Raises:
        ConfigError: when two files define their numbers differently and cannot be compared.
    """
    named = {path: read_definition(path) for path in paths.values()}
    known = [(path, definition) for path, definition in named.items() if definition is not None]
    for path, definition in known[1:]:
        alike = definition if lesion_wise else replace(definition, further=known[0][1].further)
        if alike != known[0][1]:
            raise ConfigError(
                f"{path}: expected scores defined as in {known[0][0]} ({known[0][1]}), "
                f"found {definition}"
            )
    return known[0][1] if known else None


def _tables(
    path: Path,
    lines: list[tuple[int, list[str]]],
    columns: Sequence[str],
    further: Sequence[FurtherMetric],
) -> tuple[ScoreTable, FurtherTable]:
    table: dict[str, dict[str, RegionScore]] = {}
    others: dict[str, dict[str, dict[FurtherMetric, float]]] = {}
    defects: list[str] = []
    for number, fields in lines:
        try:
            case, region, values = _row(fields, columns, table)
        except ValueError as defect:
            defects.append(f"{path}: line {number}: {defect}")
            continue
        score = RegionScore(**{metric: values[metric] for metric in METRICS})
        table.setdefault(case, {})[region] = score
        others.setdefault(case, {})[region] = {name: values[name] for name in further}
    if defects:
        raise ConfigError("\n".join(defects))
    return table, others


def _row(
    fields: list[str], columns: Sequence[str], above: ScoreTable
) -> tuple[str, str, dict[str, float]]:
    if len(fields) != len(columns):
        raise ValueError(f"expected {len(columns)} fields, found {len(fields)}")
    case, region, *texts = fields
    if not (case and region):
        raise ValueError("expected the names of a case and a region, found an empty field")
    if region in above.get(case, {}):
        raise ValueError(f"expected each case and region once, found {case},{region} again")
    named = zip(columns[2:], texts, strict=True)
    return case, region, {metric: _number(metric, text) for metric, text in named}


def _number(metric: str, text: str) -> float:
    bound = math.inf if metric in UNBOUNDED else 1.0
    expected = f"{metric} from 0 to {bound:g}"
    try:
        value = float(text or "nan")
    except ValueError:
        raise ValueError(f"expected {expected}, found {text!r}") from None
    if not math.isnan(value) and not 0 <= value <= bound:
        raise ValueError(f"expected {expected}, found {text}")
    return value
