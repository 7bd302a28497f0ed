"""From files to a plan: fingerprints of the sites, a summary, or a plan that a person changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.codec import read_json
from common.errors import ConfigError
from common.planning.edited_plan import read_plan
from common.planning.fingerprint import Fingerprint, merge_all
from common.planning.plan import Plan, Rules
from common.planning.planner import plan as plan_fingerprint
from common.planning.planner import plan_summary
from common.planning.summary import PlanSummary, summary_of
from server.planning.plan_words import explain_edited, explain_plan


@dataclass(frozen=True)
class Planned:
    """A plan and what it was made from."""

    plan: Plan
    summary: PlanSummary | None = None
    """None for a plan that was changed by hand."""
    fingerprint: Fingerprint | None = None
    """None where the summary was given."""

    def explained(self) -> str:
        """Return in words why the plan is as it is."""
        if self.summary is None:
            return explain_edited(self.plan)
        return explain_plan(self.plan, self.summary, self.fingerprint)


def planned_from(
    fingerprints: Sequence[Path],
    summary: Path | None,
    edited: Path | None,
    *,
    memory_gb: float,
    rules: Rules,
) -> Planned:
    """Return the plan that follows from the one kind of source that is given.

    Args:
        fingerprints: one file per site.
        summary: a `summary.json`.
        edited: a `plan.json` that was changed by hand.
        memory_gb: accelerator memory of the smallest site; without effect on an edited plan.
        rules: which published planner; without effect on an edited plan.

    Raises:
        ConfigError: for none or several kinds of source, and for what cannot be planned.
    """
    if bool(fingerprints) + (summary is not None) + (edited is not None) != 1:
        raise ConfigError(
            "plan: expected fingerprints, --summary or --edited, and one of them only"
        )
    if edited is not None:
        return Planned(read_plan(edited))
    if summary is not None:
        given = read_json(PlanSummary, summary)
        return Planned(plan_summary(given, memory_gb=memory_gb, rules=rules), given)
    merged = merge_all({str(path): read_json(Fingerprint, path) for path in fingerprints})
    made = plan_fingerprint(merged, memory_gb=memory_gb, rules=rules)
    return Planned(made, summary_of(merged, rules), merged)
