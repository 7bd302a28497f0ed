"""The command `rank`: files of scores, or of rank sums that institutions released."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

HEADER = "case,region,dice,hd95,sensitivity,specificity"
SCORES = {  # by institution and method: Dice and HD95 of its cases
    "north": {"a": [(0.9, 2), (0.8, 3), (0.4, 9)], "b": [(0.7, 3), (0.9, 2), (0.3, 8)]},
    "south": {"a": [(0.5, 7)], "b": [(0.1, 8)]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write one folder per method with a file per institution."""
    for institution, methods in SCORES.items():
        for method, cases in methods.items():
            rows = [f"{institution}-{n},WT,{d},{h},1,1" for n, (d, h) in enumerate(cases)]
            path = tmp_path / method / f"{institution}.csv"
            path.parent.mkdir(exist_ok=True)
            path.write_text("\n".join([HEADER, *rows]) + "\n")
    return tmp_path


def ranked(run, folder: Path, *arguments: object) -> dict:
    out = folder / "ranking.json"
    code, _, errors = run("rank", *arguments, "-o", out)
    assert (code, errors) == (0, "")
    return json.loads(out.read_text())


def released(run, folder: Path, institution: str, *options: str) -> Path:
    out = folder / f"{institution}.json"
    files = [folder / method / f"{institution}.csv" for method in "ab"]
    methods = [folder / f"{institution}-{method}" / f"{method}.csv" for method in "ab"]
    for file, method in zip(files, methods, strict=True):
        method.parent.mkdir(exist_ok=True)
        method.write_bytes(file.read_bytes())
    assert run("rank", *methods, "--release", institution, "-o", out, *options)[0] == 0
    return out


@pytest.mark.parametrize("scheme", ["brats", "fets"])
def test_released_sums_give_the_ranking_of_the_files(run, folder: Path, scheme: str) -> None:
    sums = [released(run, folder, institution) for institution in SCORES]
    federated = ranked(run, folder, "--sums", *sums, "--scheme", scheme)
    pooled = ranked(run, folder, folder / "a", folder / "b", "--scheme", scheme)
    for key in ("methods", "mean_rank", "score", "final_rank", "permutation", "n_cases", "ties"):
        assert federated[key] == pooled[key]
    # north: a first in Dice (4 against 5), b in HD95 (4 against 5); south: a in both
    mean_rank = {"brats": {"a": 1.375, "b": 1.625}, "fets": {"a": 1.25, "b": 1.75}}
    assert pooled["mean_rank"] == mean_rank[scheme]
    assert {"bootstrap", "wilcoxon", "stability"} <= pooled.keys() - federated.keys()


def test_a_released_file_holds_neither_cases_nor_metrics(run, folder: Path) -> None:
    text = released(run, folder, "north").read_text()
    assert "north-0" not in text
    assert "." not in text  # every number is an integer
    assert json.loads(text)["differences"] == [{"a": "a", "b": "b", "counts": {"4": 2}}]


def test_monte_carlo_tests_and_intervals_state_their_seed(run, folder: Path) -> None:
    drawn = ["--test", "monte-carlo", "--draws", "99", "--bootstrap", "20", "--seed", "3"]
    one = ranked(run, folder, folder / "a", folder / "b", *drawn)
    assert one == ranked(run, folder, folder / "a", folder / "b", *drawn)
    assert one["monte_carlo"] == {"n_draws": 99, "seed": 3}
    assert (one["bootstrap"]["n_samples"], one["bootstrap"]["seed"]) == (20, 3)
    without = ranked(run, folder, folder / "a", folder / "b", "--bootstrap", "0")
    assert "bootstrap" not in without
    assert "monte_carlo" not in without


def test_the_scheme_of_task_1_takes_a_file_of_convergence_scores(run, folder: Path) -> None:
    scores = folder / "convergence.json"
    scores.write_text('{"a": 0.5, "b": 0.75}')
    files = [folder / "a", folder / "b", "--scheme", "fets-task1", "--convergence", scores]
    found = ranked(run, folder, *files)
    # two metrics: (2 x 1.375 + 3 x 2) / 5 and (2 x 1.625 + 3 x 1) / 5, ties get the mean rank
    assert found["mean_rank"] == {"a": 1.75, "b": 1.25}
    assert (found["ties"], found["scheme"]) == ("average", "fets-task1")


class _Page(HTMLParser):
    """Collects a page's text and everything that it loads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.addresses = "", list[str]()
        self.feed(html)

    def handle_starttag(self, _: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_says_what_is_known(run, folder: Path) -> None:
    report = folder / "page.html"
    ranked(run, folder, folder / "a", folder / "b", "--report", report)
    page = _Page(report.read_text())
    assert all(address.startswith("#") for address in page.addresses)
    assert "http" not in report.read_text()
    for fact in ("4 cases at 2 institutions", "a won among 2 methods", "1000 bootstrap samples"):
        assert fact in page.text
    assert report.read_text().count("<svg") == 2


def test_the_page_of_sums_says_what_is_not_known(run, folder: Path) -> None:
    report = folder / "page.html"
    sums = [released(run, folder, institution) for institution in SCORES]
    ranked(run, folder, "--sums", *sums, "--report", report)
    page = _Page(report.read_text())
    assert "only sums of ranks were released" in page.text
    assert "bootstrap samples" not in page.text


def complaint(run, folder: Path, *arguments: object) -> str:
    code, _, errors = run("rank", *arguments, "-o", folder / "x.json")
    assert code == 2
    assert len(errors.splitlines()) == 1
    assert not (folder / "x.json").exists()
    return errors


def test_mistakes_are_one_clear_line(run, folder: Path) -> None:
    north, south = (released(run, folder, name) for name in ("north", "south"))
    again = complaint(run, folder, "--sums", north, north)
    assert f"{north}: north: expected once, found in {north} too" in again
    assert "--bootstrap: needs the metrics of cases" in complaint(
        run, folder, "--sums", north, south, "--bootstrap", "10"
    )
    assert "ties: expected 'average', found 'min'" in complaint(
        run, folder, "--sums", north, "--ties", "average"
    )
    assert "expected the score file of one institution" in complaint(
        run, folder, folder / "a", "--release", "north"
    )
    assert "scheme 'fets-task1': expected a convergence score per method" in complaint(
        run, folder, folder / "a", folder / "b", "--scheme", "fets-task1"
    )
    average = released(run, folder, "south", "--ties", "average")
    assert "ties: expected min, found average" in complaint(run, folder, "--sums", north, average)
    damaged = json.loads(north.read_text())
    damaged["institutions"]["north"]["half_ranks"]["a"][0] = 1
    north.write_text(json.dumps(damaged))
    assert "half_ranks: expected 6 to 12 for 3 cases" in complaint(run, folder, "--sums", north)


def test_the_scheme_of_kits_ranks_the_mean_composite_dice(run, folder: Path) -> None:
    files = [folder / "a", folder / "b", "--scheme", "kits", "--tie-breaker", "WT"]
    found = ranked(run, folder, *files)
    assert found["composite_dice"] == pytest.approx({"a": 2.6 / 4, "b": 2.0 / 4})
    assert found["final_rank"] == {"a": 1, "b": 2}
    assert (found["scheme"], found["n_cases"]) == ("kits", 4)


@pytest.mark.parametrize(
    "options",
    [["--scheme", "kits"], ["--tie-breaker", "WT"], ["--scheme", "kits", "--tie-breaker", "ET"]],
)
def test_a_tie_breaker_belongs_to_kits_and_is_a_region(run, folder: Path, options) -> None:
    text = complaint(run, folder, folder / "a", folder / "b", *options)
    assert "tie-breaker" in text or "expected a region ET" in text


def test_lesion_wise_scores_are_ranked_in_place_of_the_usual_ones(run, tmp_path: Path) -> None:
    columns = f"{HEADER},lesionwise_dice,lesionwise_hd95"
    for method, lesion_wise in (("a", "0.2,100"), ("b", "0.8,10")):
        usual = {"a": "0.9,2,1,1", "b": "0.7,3,1,1"}[method]
        (tmp_path / f"{method}.csv").write_text(f"{columns}\none,WT,{usual},{lesion_wise}\n")
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    assert ranked(run, tmp_path, *files)["final_rank"] == {"a": 1, "b": 2}
    assert ranked(run, tmp_path, *files, "--lesion-wise")["final_rank"] == {"a": 2, "b": 1}


def test_lesion_wise_ranking_needs_those_columns(run, folder: Path) -> None:
    text = complaint(run, folder, folder / "a", folder / "b", "--lesion-wise")
    assert "expected the columns lesionwise_dice and lesionwise_hd95" in text
