"""What the privacy ledger says that an answer tells without noise."""

from pathlib import Path

import pytest

from client.policy import Policy
from client.privacy.releases import told
from client.site import SiteConfig
from common.evaluation.metrics import RegionScore
from common.messages import Ranked, Tested
from common.ranks.rank_sums import no_cases, sums_of_tables

WORD = "5" * 64
POOL = no_cases(("a", "b"), ("WT",), "min")


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    policy = Policy(metrics="ranks", validation_means=False, pictures=False, fingerprint="exact")
    return SiteConfig(name="alpha", data="data", state=str(tmp_path), policy=policy)


def test_a_test_of_which_only_a_sum_is_seen_tells_no_number(site: SiteConfig) -> None:
    rest = {"data": WORD, "scores": (), "pictures": (), "note": ""}
    assert told(site, Tested(metrics="secure-sum", **rest)) == ("that held-out cases were tested",)
    known = Tested(metrics="ranks", n_cases=3, **rest)
    assert told(site, known) == ("that held-out cases were tested, and how many",)


def test_masked_sums_are_noted_as_a_part_of_a_sum(site: SiteConfig) -> None:
    table = {"c1": {"WT": RegionScore(0.5, 2.0, 1.0, 1.0)}}
    own = sums_of_tables(POOL, "alpha", {"a": table, "b": table})
    assert told(site, Ranked(data=WORD, sums=own)) == ("sums of ranks over held-out cases",)
    assert told(site, Ranked(data=WORD, sums=POOL)) == (
        "sums of ranks and metrics over held-out cases, in a sum of several sites",
    )
