"""What a check of a site found, in words for the person who has to mend it."""

from collections.abc import Iterable
from typing import Literal

from common.codec import record

Outcome = Literal["ok", "warning", "failed", "not checked"]
WIDTH = max(len(outcome) for outcome in ("ok", "warning", "failed", "not checked"))


@record
class Finding:
    """One check's answer; it stays at the site, for it may name files."""

    name: str
    outcome: Outcome
    found: str
    mend: str = ""
    """One sentence that says what to do; empty when nothing is to be done."""

    def __str__(self) -> str:
        """Return the lines that a person reads."""
        first, *more = self.found.splitlines() or [""]
        lines = [f"{self.outcome:<{WIDTH}}  {self.name}: {first}"]
        lines += [f"{'':<{WIDTH}}  {line}" for line in more]
        lines += [f"{'':<{WIDTH}}  -> {self.mend}"] if self.mend else []
        return "\n".join(lines)


def ok(name: str, found: str) -> Finding:
    """Nothing is to be done."""
    return Finding(name=name, outcome="ok", found=found)


def warning(name: str, found: str, mend: str) -> Finding:
    """The site can run, but somebody should know."""
    return Finding(name=name, outcome="warning", found=found, mend=mend)


def failed(name: str, found: str, mend: str) -> Finding:
    """The site cannot run, or would be refused."""
    return Finding(name=name, outcome="failed", found=found, mend=mend)


def not_checked(name: str, why: str) -> Finding:
    """Something else has to be mended first."""
    return Finding(name=name, outcome="not checked", found=why)


def any_failed(findings: Iterable[Finding]) -> bool:
    """Return whether something must be mended before the site can run."""
    return any(finding.outcome == "failed" for finding in findings)
