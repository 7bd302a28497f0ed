"""The check of a site's privacy ledger: whether private training could begin."""

from client.privacy.ledger import require_account
from client.service.findings import Finding, failed, ok, warning
from client.site import SiteConfig
from common.errors import PolicyError
from common.kit import SITE_FILE

NAME = "privacy"


def check_privacy(site: SiteConfig) -> Finding:
    """Check the ledger where there is one, or must be one.

    What is spent is not computed here: that takes libraries which `site start` would keep in memory
    for months.
    """
    path, limit = site.privacy_ledger_file, site.policy.max_epsilon
    opening = f"open it: consilium privacy {path} --open --epsilon E --delta D"
    if not path.exists():
        if limit is None:
            found = "no privacy ledger; this site takes part in runs without [privacy] only"
            return ok(NAME, found)
        found = f"policy.max_epsilon is {limit:g}, and there is no privacy ledger"
        return failed(NAME, found, f"{opening}, or take max_epsilon out of {SITE_FILE}")
    try:
        budget = require_account(path).budget
    except PolicyError as error:
        found = f"private training would be refused: {error}"
        mend = "read the reason above; runs without [privacy] are not concerned"
        return warning(NAME, found, mend) if limit is None else failed(NAME, found, mend)
    if budget is None:
        return failed(NAME, f"{path}: no budget", opening)
    found = (
        f"budget epsilon {budget.epsilon:g} at delta {budget.delta:g} for all runs on these data"
    )
    return ok(NAME, f"{found}; consilium privacy {path} says what is spent")
