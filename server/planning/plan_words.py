"""`consilium plan --explain`: every decision of a plan, then its networks drawn."""

from collections.abc import Iterable
from textwrap import fill

from common.planning.configurations import stages
from common.planning.edited_plan import advice
from common.planning.fingerprint import Fingerprint
from common.planning.plan import Plan
from common.planning.planner import demand_of
from common.planning.rules import rule_set
from common.planning.summary import PlanSummary
from server.planning.network_drawing import drawing
from server.planning.plan_decisions import (
    Decision,
    cascade_decision,
    data_decisions,
    stage_decisions,
)

WIDTH = 100


def explain_plan(plan: Plan, summary: PlanSummary, fingerprint: Fingerprint | None) -> str:
    """Return why a plan is as it is.

    Args:
        plan: as the planner made it, not edited.
        summary: what its geometry rests on.
        fingerprint: what the summary was made from; None where the summary was given.
    """
    planned = stages(
        summary,
        plan.transpose,
        demand_of(summary, plan.planned_for.memory_gb),
        rule_set(plan.rules),
    )
    parts = [
        _heading(plan),
        _section("All configurations", data_decisions(plan, summary, fingerprint)),
    ]
    for name in plan.configurations:
        parts.append(_section(name, stage_decisions(plan, name, planned)))
        parts.append(drawing(plan, name))
    parts.append(_section("Cascade", [cascade_decision(plan, summary, planned)]))
    return "\n\n".join([*parts, *_remarks(plan)])


def explain_edited(plan: Plan) -> str:
    """Return what an edited plan trains; its decisions were a person's."""
    drawn = [f"{name}\n{drawing(plan, name)}" for name in plan.configurations]
    return "\n\n".join([_heading(plan), *drawn, *_remarks(plan)])


def _heading(plan: Plan) -> str:
    basis = plan.planned_for
    by = "edited by hand, once made" if plan.edited else "made"
    return fill(
        f"Plan {plan.hash[:16]}, {by} by the rules {plan.rules!r} for {basis.n_training_cases} "
        f"cases, the channels {', '.join(plan.channels)}, "
        f"{basis.n_foreground_classes} classes and {basis.memory_gb:g} GB.",
        WIDTH,
    )


def _remarks(plan: Plan) -> list[str]:
    lines = [f"Limited by the run: {limit}." for limit in plan.limits]
    lines += [f"Advice: {line}." for line in advice(plan)]
    return ["\n".join(fill(line, WIDTH, subsequent_indent="  ") for line in lines)] if lines else []


def _section(title: str, decisions: Iterable[Decision]) -> str:
    return "\n".join([title, *(line for one in decisions for line in _lines(one))])


def _lines(decision: Decision) -> tuple[str, ...]:
    return (
        _indented(f"{decision.what}: {decision.chosen}", 2),
        _indented(f"rule: {decision.rule}", 6),
        _indented(f"here: {decision.numbers}", 6),
    )


def _indented(text: str, columns: int) -> str:
    return fill(text, WIDTH, initial_indent=" " * columns, subsequent_indent=" " * (columns + 2))
