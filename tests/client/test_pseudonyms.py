from pathlib import Path

import pytest

from client.policy import Policy
from client.pseudonyms import numbers_of
from client.site import SiteConfig
from common.codec import read_json

CASES = [f"Mustermann_{n:02d}" for n in range(40)]


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    policy = Policy(metrics="cases", validation_means=True, pictures=False, fingerprint="exact")
    return SiteConfig(name="alpha", data="data", state=str(tmp_path / "state"), policy=policy)


def test_every_case_has_a_number_of_its_own_from_one(site):
    numbers = numbers_of(site, "run", CASES)
    assert list(numbers) == CASES
    assert sorted(numbers.values()) == list(range(1, 41))


def test_numbers_stay_within_a_run_also_after_a_restart_and_in_another_order(site):
    first = numbers_of(site, "run", CASES)
    assert numbers_of(site, "run", CASES[::-1]) == first
    kept = site.run_folder("run") / "pseudonyms.json"
    assert read_json(dict[str, int], kept) == first


def test_numbers_say_neither_the_order_of_names_nor_those_of_another_run(site):
    # 40! orders: that two of three are the same by chance will not happen
    one, other = numbers_of(site, "one", CASES), numbers_of(site, "other", CASES)
    in_order = dict(zip(CASES, range(1, 41), strict=True))
    assert one != other
    assert in_order not in (one, other)


def test_a_case_that_comes_later_gets_a_number_that_is_left(site):
    before = numbers_of(site, "run", CASES[:20])
    after = numbers_of(site, "run", CASES)
    assert {case: after[case] for case in CASES[:20]} == before
    assert sorted(after.values()) == list(range(1, 41))
