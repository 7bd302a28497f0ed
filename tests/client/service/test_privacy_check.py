from dataclasses import replace
from pathlib import Path

import pytest

from client.privacy.entry import WITHOUT_PRIVACY, new_entry
from client.privacy.ledger import open_ledger, record_entry
from client.service.privacy_check import check_privacy
from client.site import SiteConfig
from simulation.simulate import OPEN_POLICY


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    return SiteConfig(name="alpha", data=str(tmp_path), state=str(tmp_path), policy=OPEN_POLICY)


def limited(site: SiteConfig) -> SiteConfig:
    return replace(site, policy=replace(site.policy, max_epsilon=8.0))


def test_a_site_without_a_ledger_is_told_what_it_cannot_take_part_in(site: SiteConfig):
    assert (check_privacy(site).outcome, check_privacy(limited(site)).outcome) == ("ok", "failed")
    assert "--open --epsilon E --delta D" in check_privacy(limited(site)).mend


def test_an_open_ledger_says_its_budget(site: SiteConfig):
    open_ledger(site.privacy_ledger_file, epsilon=8.0, delta=1e-3)
    assert check_privacy(limited(site)).outcome == "ok"
    assert "budget epsilon 8 at delta 0.001" in check_privacy(site).found


def test_a_ledger_that_no_private_run_may_rely_on_is_told_with_the_reason(site: SiteConfig):
    open_ledger(site.privacy_ledger_file, epsilon=8.0, delta=1e-3)
    record_entry(site.privacy_ledger_file, new_entry(WITHOUT_PRIVACY, run="earlier"))
    found = check_privacy(site)
    assert (found.outcome, check_privacy(limited(site)).outcome) == ("warning", "failed")
    assert "run earlier trained on these patients without privacy" in found.found


def test_a_damaged_ledger_is_told(site: SiteConfig):
    open_ledger(site.privacy_ledger_file, epsilon=8.0, delta=1e-3)
    text = site.privacy_ledger_file.read_text().replace('"epsilon":8.0', '"epsilon":80.0')
    site.privacy_ledger_file.write_text(text)
    assert check_privacy(limited(site)).outcome == "failed"
