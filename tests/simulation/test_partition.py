"""Partitions of one data set into sites: from a file, by sizes, by a Dirichlet draw."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from simulation.partition import (
    Partition,
    by_dirichlet,
    by_folds,
    by_sizes,
    check_cases,
    from_csv,
    write_csv,
)

CASES = tuple(f"case_{i:02d}" for i in range(1, 13))
names = st.lists(
    st.text("abcXYZ019_-", min_size=1, max_size=8), min_size=3, max_size=40, unique=True
)
seeds = st.integers(0, 2**32 - 1)


def csv_file(folder: Path, content: bytes) -> Path:
    path = folder / "partition.csv"
    path.write_bytes(content)
    return path


def members(partition: Partition) -> list[str]:
    return sorted(case for cases in partition.sites.values() for case in cases)


def test_a_csv_file_gives_sites_by_their_ids_in_natural_order(tmp_path: Path) -> None:
    path = csv_file(tmp_path, b"Partition_ID,Subject_ID\n10,c\n2,b\n10,a\n")
    assert dict(from_csv(path).sites) == {"2": ("b",), "10": ("a", "c")}
    assert list(from_csv(path).sites) == ["2", "10"]


def test_carriage_returns_a_byte_order_mark_and_blank_lines_are_fine(tmp_path: Path) -> None:
    path = csv_file(tmp_path, b"\xef\xbb\xbfPartition_ID,Subject_ID\r\n1,a\r\n2, b\r\n\r\n")
    assert dict(from_csv(path).sites) == {"1": ("a",), "2": ("b",)}


def test_the_columns_may_come_in_either_order(tmp_path: Path) -> None:
    path = csv_file(tmp_path, b"Subject_ID,Partition_ID\na,north\n")
    assert dict(from_csv(path).sites) == {"north": ("a",)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the columns Partition_ID,Subject_ID, found none"),
        (b"site,case\n1,a\n", "expected the columns Partition_ID,Subject_ID, found site,case"),
        (b"Partition_ID,Subject_ID,Age\n1,a,4\n", "found Partition_ID,Subject_ID,Age"),
        (b"Partition_ID,Subject_ID\n1,a\n2,a\n", "case 'a': found twice, at '1' and '2'"),
        (b"Partition_ID,Subject_ID\n1,a\n1,a\n", "case 'a': found twice, at '1' and '1'"),
        (b"Partition_ID,Subject_ID\n1,\n", "line 2: expected 2 values, found '1,'"),
        (b"Partition_ID,Subject_ID\n1,a,b\n", "line 2: expected 2 values, found '1,a,b'"),
        (b"Partition_ID,Subject_ID\n", "expected at least one site, found none"),
        (b"Partition_ID,Subject_ID\n../x,a\n", "site '../x': expected letters, digits"),
        (b"\xff\xfe\x00", "expected a readable CSV file"),
    ],
)
def test_a_csv_file_that_is_no_partition_is_refused_by_name(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        from_csv(csv_file(tmp_path, content))
    assert message in str(caught.value)
    assert "partition.csv" in str(caught.value)


def test_all_defects_of_a_csv_file_are_listed_at_once(tmp_path: Path) -> None:
    content = b"Partition_ID,Subject_ID\n1,a\n1,a\n2,b\n1,b\n"
    with pytest.raises(ConfigError, match=r"case 'a': (.|\n)*case 'b': "):
        from_csv(csv_file(tmp_path, content))


def test_a_missing_csv_file_is_the_user_s_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.csv: expected a readable CSV file"):
        from_csv(tmp_path / "nowhere.csv")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    partition = Partition(sites={"site-1": ("b", "a"), "site-2": ("c",)})
    write_csv(partition, tmp_path / "partition.csv")
    text = (tmp_path / "partition.csv").read_text()
    assert text == "Partition_ID,Subject_ID\nsite-1,a\nsite-1,b\nsite-2,c\n"
    assert from_csv(tmp_path / "partition.csv") == partition


def test_sizes_name_their_sites() -> None:
    partition = by_sizes(CASES, {"north": 7, "south": 5}, seed=3)
    assert {site: len(cases) for site, cases in partition.sites.items()} == {
        "north": 7,
        "south": 5,
    }


def test_plain_sizes_number_their_sites() -> None:
    partition = by_sizes(CASES, [1, 2, 9], seed=3)
    assert list(partition.sites) == ["site-1", "site-2", "site-3"]
    assert [len(cases) for cases in partition.sites.values()] == [1, 2, 9]


def test_another_seed_deals_other_cases() -> None:
    assert by_sizes(CASES, [6, 6], seed=1) != by_sizes(CASES, [6, 6], seed=2)


def test_the_same_seed_deals_the_same_cases_on_every_machine() -> None:
    partition = by_sizes(CASES, [2, 10], seed=1)
    assert partition.sites["site-1"] == ("case_07", "case_11")  # as first drawn; must never change


@given(cases=names, seed=seeds, data=st.data())
def test_by_sizes_keeps_sizes_and_puts_every_case_at_one_site(
    cases: list[str], seed: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(1, len(cases) - 2))
    second = data.draw(st.integers(1, len(cases) - first - 1))
    sizes = {"b": first, "a": second, "c": len(cases) - first - second}
    partition = by_sizes(cases, sizes, seed)
    assert {site: len(part) for site, part in partition.sites.items()} == sizes
    assert members(partition) == sorted(cases)
    assert by_sizes(sorted(cases), dict(sorted(sizes.items())), seed) == partition


@given(cases=names, seed=seeds, alpha=st.floats(1e-3, 1e3), n_sites=st.integers(1, 3))
def test_by_dirichlet_puts_every_case_at_one_site_and_leaves_none_empty(
    cases: list[str], seed: int, alpha: float, n_sites: int
) -> None:
    partition = by_dirichlet(cases, n_sites, alpha, seed)
    assert len(partition.sites) == n_sites
    assert all(partition.sites.values())
    assert members(partition) == sorted(cases)
    assert by_dirichlet(sorted(cases), n_sites, alpha, seed) == partition


def test_a_large_alpha_gives_even_sites() -> None:
    partition = by_dirichlet(CASES, 3, alpha=1e6, seed=5)
    assert [len(cases) for cases in partition.sites.values()] == [4, 4, 4]


def test_a_small_alpha_gives_one_site_nearly_everything() -> None:
    partition = by_dirichlet(CASES, 3, alpha=1e-3, seed=5)
    assert sorted(len(cases) for cases in partition.sites.values()) == [1, 1, 10]


def test_strata_are_dealt_out_one_by_one() -> None:
    strata = {case: "large" if case < "case_07" else "small" for case in CASES}
    partition = by_dirichlet(CASES, 2, alpha=1e6, seed=5, strata=strata)
    for cases in partition.sites.values():
        assert sum(strata[case] == "large" for case in cases) == 3
        assert sum(strata[case] == "small" for case in cases) == 3


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([6, 7], "expected a sum of 1 to 12, the number of cases, found 13"),
        ([12, 0], "expected at least 1 case per site, found site-2 = 0"),
        ({"a": 13, "b": -1}, "expected at least 1 case per site, found b = -1"),
        ([], "expected a sum of 1 to 12"),
        ({"a/b": 12}, "site 'a/b': expected letters, digits"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes: list[int] | dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        by_sizes(CASES, sizes, seed=1)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_alpha_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match="alpha: expected above 0 and at most 1e6"):
        by_dirichlet(CASES, 3, alpha, seed=1)


@pytest.mark.parametrize("n_sites", [0, 13])
def test_more_sites_than_cases_or_none_at_all_are_refused(n_sites: int) -> None:
    with pytest.raises(ConfigError, match="n_sites: expected 1 to 12"):
        by_dirichlet(CASES, n_sites, 1.0, seed=1)


def test_a_case_without_stratum_is_named() -> None:
    with pytest.raises(ConfigError, match="found none for b, c"):
        by_dirichlet(["a", "b", "c"], 2, 1.0, seed=1, strata={"a": "large"})


def test_a_case_that_is_given_twice_is_named() -> None:
    with pytest.raises(ConfigError, match="case 'a': found twice"):
        by_sizes(["a", "a"], [1, 1], seed=1)


def test_an_empty_site_is_refused() -> None:
    with pytest.raises(ConfigError, match="site 'x': expected at least one case"):
        Partition(sites={"x": (), "y": ("a",)})


def test_all_cases_that_the_data_set_lacks_are_listed_at_once() -> None:
    partition = Partition(sites={"1": ("a", "b"), "2": ("c", "d")})
    check_cases(partition, ["d", "c", "b", "a", "more"])
    with pytest.raises(ConfigError, match="found 2 that it lacks: b, d"):
        check_cases(partition, ["a", "c"])


def test_folds_are_those_of_nnunet() -> None:
    # sklearn.model_selection.KFold(5, shuffle=True, random_state=12345) on these names
    names = [f"c{i:02}" for i in range(12)]
    found = [by_folds(names[::-1], 5, fold).sites["held-out"] for fold in range(5)]
    assert found == [
        ("c00", "c03", "c08"),
        ("c07", "c10", "c11"),
        ("c06", "c09"),
        ("c01", "c04"),
        ("c02", "c05"),
    ]


@given(names, st.integers(2, 6), st.data())
def test_a_fold_and_the_pool_are_all_cases_once(cases, n: int, data) -> None:
    n = min(n, len(cases))
    partition = by_folds(cases, n, data.draw(st.integers(0, n - 1)))
    assert list(partition.sites) == ["held-out", "pooled"]
    assert members(partition) == sorted(cases)


@pytest.mark.parametrize(
    ("n", "held_out", "complaint"),
    [(1, 0, "n: expected 2 to 12"), (13, 0, "found 13"), (5, 5, "held_out: expected 0 to 4")],
)
def test_folds_that_cannot_be_are_refused(n: int, held_out: int, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        by_folds(CASES, n, held_out)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("file", "n_sites"), [("partitioning_1.csv", 23), ("partitioning_2.csv", 33)]
)
def test_the_challenge_s_own_partitions_are_read(shared: Path, file: str, n_sites: int) -> None:
    partition = from_csv(shared / "data" / "fets" / file)
    assert list(partition.sites) == [str(i) for i in range(1, n_sites + 1)]
    assert len(members(partition)) == 1251
    assert members(partition)[0] == "FeTS2022_00000"


def test_cases_beyond_the_sizes_are_left_over() -> None:
    dealt = by_sizes(["a", "b", "c", "d"], {"one": 1, "two": 2}, 1)
    used = [case for cases in dealt.sites.values() for case in cases]
    assert [len(cases) for cases in dealt.sites.values()] == [1, 2]
    assert len(set(used)) == 3
