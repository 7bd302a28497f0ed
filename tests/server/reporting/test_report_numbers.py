"""Every number of a small real run's report is found again in the run directory's own files.

The report says of each number where it comes from; here each is computed again from the raw
files, without any code of the report, and what is left of the page holds no number at all.
"""

import csv
import json
import math
import re
import statistics
import struct
import tomllib
from dataclasses import replace
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from html.parser import HTMLParser
from pathlib import Path

import pytest

from common.config import Simulation
from common.privacy.settings import PatientPrivacy
from common.secure_aggregation import SecureAggregation
from common.task import load_task
from server.event_log import EventLog
from server.reporting.report import pages_of, write_report
from server.run_folder import RunFolder
from simulation.simulate import Study, simulate

SOURCE = re.compile(
    r"(?P<file>[^:]+): (?:(?P<how>[a-z0-9 ]+) of )?(?P<key>\S+)(?: where (?P<where>.+))?"
)
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?")
SCALES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "%": 0.01, "min": 60, "h": 3600}
PROGRAM = {  # what the text says of the published rules and recipes; literals, not our constants
    "common.planning.rules, paper": {"3", "10", "512", "2", "5 %"},
    "common.augmentation, light": {"0.5", "0", "0.1", "0.75", "1.25", "0.15", "0.7", "1.5", "0.3"},
    "client.training.optimise, SECOND_BETA": {"0.999"},
    "common.evaluation.empty_rules, BRATS_RULES": {"373.13", "374"},
}
DEFINITIONS = (  # what may hold a digit without being a result
    "HD95 ",
    "HD95,",
    "HD95)",
    "HD95*",
    "hd95",
    "373.13 mm",
    "373.1287 mm",
    "374 mm",
    "95th percentile",
    "95 %",
    "Q1",
    "Q3",
    "L2",
    "(1 - t)",
    "mu / 2",
    "2 |P",
    "Dice 0 and ",
    "Dice 1 and ",
    "Dice 0, ",
    "Dice 1 with ",
    "Dice is 1 and HD95 is 0 mm",
    "Dice is 0 and HD95 is",
    "HD95 0",
    "corrected over the pairs, 0.05",
    "corrected, 0.05",
)


SETTINGS = {
    "plain": {
        "sizes": {"alpha": 2, "beta": 2, "gamma": 2},
        "federation": {"methods": ("fedavg", "local-only")},
        "norm": "batch",
        "privacy": None,
    },
    "private": {
        "sizes": {"alpha": 2, "beta": 2, "delta": 2, "gamma": 1},
        "federation": {"secure_aggregation": SecureAggregation(min_sites=3), "min_sites": 3},
        "norm": "instance",
        "privacy": PatientPrivacy(
            delta=0.1, clip_norm=0.5, sampling_rate=0.5, noise_multiplier=1.0
        ),
    },
}


@pytest.fixture(scope="module", params=sorted(SETTINGS))
def run_dir(request, tiny_study, tmp_path_factory) -> Path:
    wanted, config = SETTINGS[request.param], tiny_study.config
    common = {"rounds": 2, "local_steps": 1, "held_out": ("gamma",), "min_sites": 2}
    changed = replace(
        config,
        federation=replace(config.federation, **{**common, **wanted["federation"]}),
        model=replace(config.model, norm=wanted["norm"]),
        training=replace(config.training, compile="off"),
        simulation=Simulation(sizes=wanted["sizes"]),
        privacy=wanted["privacy"],
    )
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "trial")
    study = Study(changed, load_task(changed.task), tiny_study.data)
    simulate(study, folder, EventLog(folder.events))
    write_report(folder.path)
    return folder.path


def numbers_of(run_dir: Path) -> list[tuple[str, str]]:
    with (run_dir / "report-numbers.csv").open(newline="") as file:
        return [(row["number"], row["source"]) for row in csv.DictReader(file)]


def test_every_number_is_what_its_source_says(run_dir: Path) -> None:
    numbers = numbers_of(run_dir)
    assert len(numbers) > 150
    wrong = [
        (text, source, values)
        for text, source in numbers
        if not agree(text, values := values_at(run_dir, source))
    ]
    assert wrong == []


def test_without_its_sourced_numbers_the_report_holds_no_number(run_dir: Path) -> None:
    page = pages_of(run_dir).markdown
    left = re.sub("\ue000[^\ue000]*\ue002", "", page)
    left = left[: left.index("## References")].replace("\\", "")
    config = (run_dir / "config.toml").read_text().replace("\\", "")
    left = left.replace("\n".join(f"    {line}" for line in config.splitlines()), "")
    left = re.sub(r"\[\d+(, \d+)*\]", "", left)  # citations
    left = re.sub(r"\]\([^)]*\)", "", left)  # names of plots
    for words in (
        "3d_fullres",
        "brats-2021",
        "t1ce",
        "t1",
        "t2",
        *sorted(DEFINITIONS, key=len)[::-1],
    ):
        left = left.replace(words, "")
    assert [line for line in left.splitlines() if re.search(r"\d", line)] == []


def test_the_page_shows_no_number_that_the_text_beside_it_does_not(run_dir: Path) -> None:
    page = _Text((run_dir / "report.html").read_text())
    markdown = set(NUMBER.findall((run_dir / "report.md").read_text()))
    axes_and_levels = {"373", "0.05", "0.01", "0.001"}  # that captions explain
    assert set(NUMBER.findall(" ".join(page.shown))) - markdown <= axes_and_levels


def values_at(run: Path, source: str) -> list[object]:
    """Return what stands at a source, computed anew from the files."""
    if source.startswith("program: "):
        return [PROGRAM[source.removeprefix("program: ")]]
    file, _, rest = source.partition(": ")
    if rest in SPECIAL or rest.startswith(("seconds up to ", "share of ")):
        return special(run, rest)
    if file.endswith(".safetensors"):
        return of_model(run / file, rest)
    match = SOURCE.fullmatch(source)
    where = dict(pair.split("=", 1) for pair in (match["where"] or "").split(", ") if pair)
    return of_file(run, file, match["how"] or "", match["key"], where)


def of_file(run: Path, file: str, how: str, key: str, where: dict[str, str]) -> list[object]:
    if how == "slowest":
        rounds = of_events(run, "RoundFinished.round", where, every=False)
        by_round = [of_events(run, key, {**where, "round": str(n)}, every=False) for n in rounds]
        return [math.fsum(map(max, by_round))]
    if file.endswith(".jsonl"):
        return reduced(how, of_events(run, key, where, every=how.startswith("every ")))
    if file.endswith(".csv"):
        return of_scores(run / file, how, key, where["region"])
    text = (run / file).read_text()
    plain = tomllib.loads(text) if file.endswith(".toml") else json.loads(text)
    if how.startswith("stage "):
        return of_stage(plain, how, key)
    return reduced(how, of_plain(plain, key, where))


def of_events(run: Path, key: str, where: dict[str, str], *, every: bool) -> list[object]:
    if key == "time":
        times = (datetime.fromisoformat(event["time"]) for event in events(run))
        return [time.strftime("%Y-%m-%d %H:%M:%S") for time in times]
    kinds, _, field = key.partition(".")
    found: dict[object, object] = {}
    for number, event in enumerate(events(run)):
        fits = all(str(event.get(name)) == value for name, value in where.items())
        if event["event"] in kinds.split("|") and fits:
            names = ("event", "method", "round", "site", "region", "kind")
            same = number if every else tuple(event.get(name) for name in names)
            if event["event"] in ("RunStarted", "Note"):
                same = number
            found[same] = dig(event, field)
    return [value for value in found.values() if value is not None]


def events(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def dig(value: object, path: str) -> object:
    for name in path.split("."):
        if isinstance(value, list):
            value = value[int(name)]
        else:
            value = None if value is None else value.get(name)
    return value


def of_plain(plain: object, key: str, where: dict[str, str]) -> list[object]:
    head, _, rest = key.partition(".")
    if where or (head == "wilcoxon"):
        rows = [row for row in plain[head] if all(str(row[n]) == v for n, v in where.items())]
        return [dig(row, rest) for row in rows]
    value = dig(plain, key)
    return list(value.values()) if isinstance(value, dict) else [value]


def reduced(how: str, values: list) -> list[object]:
    how = how.removeprefix("every ")
    if how == "count" and len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if how == "significant":
        return [sum(value <= 0.05 for value in values), len(values)]
    rules = {"sum": math.fsum, "count": len, "max": max, "min": min}
    if how == "max rounded up":
        exact = Decimal(repr(max(values)))
        return [{str(exact.quantize(Decimal(f), ROUND_CEILING)) for f in ("0.01", "0.001")}]
    if how == "one":
        return [set(values)]
    if how == "shortest":
        return [min(map(len, values))]
    if how in rules:
        return [rules[how](values)]
    return values[-1:]


def of_scores(path: Path, how: str, column: str, region: str) -> list[object]:
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["region"] == region]
    values = sorted(float(row[column]) for row in rows)
    empty = [row for row in rows if abs(float(row["hd95"]) - 373.12866) < 1e-3]
    counts = {
        "missed": sum(float(row["specificity"]) == 1 for row in empty),
        "false alarms": sum(float(row["specificity"]) < 1 for row in empty),
        "exact matches": sum(float(r["dice"]) == 1 and float(r["hd95"]) == 0 for r in rows),
    }
    if how in counts:
        return [counts[how]]
    if how == "mean":
        return [statistics.fmean(values)]
    if how == "sd":
        return [statistics.stdev(values) if len(values) > 1 else math.nan]
    place = {"q1": 0.25, "median": 0.5, "q3": 0.75}[how] * (len(values) - 1)
    low = values[math.floor(place)]
    return [low + (place - math.floor(place)) * (values[math.ceil(place)] - low)]


def of_model(path: Path, what: str) -> list[object]:
    raw = path.read_bytes()
    head = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    shapes = [one["shape"] for name, one in head.items() if "running" not in name]
    return [len(shapes) if what.startswith("tensors") else sum(map(math.prod, shapes))]


def of_stage(plan: dict, how: str, key: str) -> list[object]:
    *path, level = key.split(".")
    one, level = dig(plan, ".".join(path)), int(level)
    steps = [[1, 1, 1], *one["strides"]]
    apart = [math.prod(step[axis] for step in steps[: level + 1]) for axis in range(3)]
    if how == "stage number":
        return [level + 1]
    if how == "stage stride":
        return [steps[level]]
    if how == "stage size":
        return [[n // a for n, a in zip(one["patch_size"], apart, strict=True)]]
    if how == "stage spacing":
        return [[mm * a for mm, a in zip(one["spacing_mm"], apart, strict=True)]]
    field = [1, 1, 1]  # a unit, seen backwards: two convolutions per stage, the first one strided
    for stage in range(level, -1, -1):
        for axis in range(3):
            kernel, stride = one["kernel_sizes"][stage][axis], steps[stage][axis]
            field[axis] = (field[axis] + kernel - 2) * stride + kernel
    return [field]


SPECIAL = ("time of the first start", "words about permutation")
PHASES = {
    "Joining and fingerprints": ("SiteJoined",),
    "Planning, and preparation of the cases": ("PlanMade",),
    "Comparison with sites' own models": ("SitePersonalised",),
    "Test on held-out sites": (
        "HeldOutScored",
        "PictureReleased",
        "RanksReleased",
        "FloorMeasured",
    ),
    "Ranking and end": ("RunFinished",),
}
NAMES = {"fedavg": "FedAvg", "fedprox": "FedProx", "local-only": "Local only"}


def special(run: Path, what: str) -> list[object]:
    lines = [event for event in events(run) if event["event"] != "Note"]
    times = [datetime.fromisoformat(event["time"]) for event in lines]
    if what == "time of the first start":
        return [times[0].strftime("%Y-%m-%d %H:%M")]
    if what == "words about permutation":
        ranking = json.loads((run / "ranking.json").read_text())
        n_cases = sum(ranking["n_cases"].values())
        return [f"with {n_cases} cases it cannot fall below {0.5**n_cases:.3g}."]
    if what.startswith("share of "):
        total, part = re.fullmatch(r"share of (.+) without (.+)", what).groups()
        where = part.partition(" where ")[2]
        all_of = values_at(run, f"events.jsonl: sum of {total} where {where}")[0]
        return [max(0.0, 1 - values_at(run, f"events.jsonl: {part}")[0] / all_of)]
    wanted, total = what.removeprefix("seconds up to "), 0.0
    for event, before, after in zip(lines[1:], times, times[1:], strict=False):
        if event["event"] == "RunStarted":
            continue
        known = [name for name, kinds in PHASES.items() if event["event"] in kinds]
        name = known[0] if known else f"Rounds of {NAMES[event['method']]}"
        total += (after - before).total_seconds() if wanted in (name, "all") else 0.0
    return [total]


def agree(text: str, values: list[object]) -> bool:
    """Return whether a number as printed is the value: the same text, or rounded to its digits."""
    flat = [v for value in values for v in (value if isinstance(value, list) else [value])]
    if any(isinstance(value, set) for value in flat):
        return text in flat[0]
    if any(isinstance(value, str) for value in flat):
        return all(str(value) in text or text in str(value) for value in flat)
    if all(isinstance(value, float) and math.isnan(value) for value in flat):
        return text == "\N{EN DASH}"
    if text.startswith("p\N{NO-BREAK SPACE}<"):
        return flat[0] < 0.001
    printed = re.findall(rf"({NUMBER.pattern})(?: ?(KiB|MiB|GiB|min|h)\b| ?(%))?", text)
    if len(flat) == 1 and re.search(r"\d (min|h) ", text):
        shown = [sum(_value(number) * SCALES.get(unit, 1) for number, unit, _ in printed)]
        return abs(shown[0] - flat[0]) <= (60 if " h " in text else 0.5)
    if len(flat) == 2 * len(printed) == 2 and flat[0] == flat[1]:
        flat = flat[:1]  # an interval of one place
    return len(printed) == len(flat) and all(
        abs(_value(number) * (scale := SCALES.get(unit or percent, 1)) - value)
        <= _half_a_digit(number) * scale * (1 + 1e-9)
        for (number, unit, percent), value in zip(printed, flat, strict=True)
    )


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _half_a_digit(number: str) -> float:
    digits, _, exponent = number.partition("e")
    return 0.5 * 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


class _Text(HTMLParser):
    """Collects the text of a page outside styles and drawings."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.shown: list[str] = []
        self._hidden = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - its name
        self._hidden += tag in {"style", "svg"}

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in {"style", "svg"}

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.shown.append(data)
