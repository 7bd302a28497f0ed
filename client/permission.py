"""Whether the hospital's policy allows what was asked; every refusal names its rule.

Asked again with every message: what a hospital forbids today is not done tomorrow because it was
agreed on yesterday. Nothing here writes anything but a proposal for a person to read.
"""

from dataclasses import replace

from client.policy import Action, Policy
from client.privacy.budget import require_epsilon, require_private
from client.privacy.patients import site_patients
from client.proposal_words import describe
from client.proposals import answer_to, keep_proposal, proposal_of
from client.site import Agreement, SiteConfig, load_agreement
from client.training_time import require_time_left
from common.codec import content_hash
from common.errors import PolicyError
from common.messages import PrepareTask
from common.task import Task

MIB = 2**20


def require_action(policy: Policy, action: Action) -> None:
    """Demand that this may be asked of the site at all.

    Raises:
        PolicyError: with the rule "action".
    """
    if policy.actions is not None and action not in policy.actions:
        raise PolicyError(
            f"policy.actions: expected one of {', '.join(policy.actions) or 'none'}, "
            f"asked for {action}",
            "action",
        )


def require_size(policy: Policy, n_bytes: int, what: str) -> None:
    """Demand that a message, or its answer, is not too large.

    Raises:
        PolicyError: with the rule "size".
    """
    if policy.max_message_mb is not None and n_bytes > policy.max_message_mb * MIB:
        raise PolicyError(
            f"policy.max_message_mb: expected at most {policy.max_message_mb:g} MiB, "
            f"found {what} of {n_bytes / MIB:.1f} MiB",
            "size",
        )


def require_task(policy: Policy, task: Task) -> None:
    """Demand a task that this site takes part in.

    Raises:
        PolicyError: with the rule "task".
    """
    allowed = policy.tasks
    if allowed is not None and not {task.name, content_hash(task)} & set(allowed):
        raise PolicyError(
            f"policy.tasks: expected one of {', '.join(allowed) or 'none'}, asked for {task.name} "
            f"({content_hash(task)})",
            "task",
        )


def require_cases(policy: Policy, n_cases: int) -> None:
    """Demand enough cases to take part.

    Raises:
        PolicyError: with the rule "cases".
    """
    if n_cases < policy.min_cases:
        raise PolicyError(
            f"policy.min_cases: expected at least {policy.min_cases} cases, found {n_cases}",
            "cases",
        )


def require_terms(site: SiteConfig, terms: PrepareTask) -> None:
    """Demand a task, a plan and a configuration that this site takes part in.

    Raises:
        PolicyError: with the rule "task", "config", "plan" or "privacy".
    """
    policy, config = site.policy, content_hash(terms.config)
    require_task(policy, terms.task)
    if site.name not in terms.config.federation.held_out:
        require_epsilon(policy.max_epsilon, terms.config)
        _require_sums(policy, terms)
    if policy.configs is not None and config not in policy.configs:
        raise PolicyError(f"policy.configs: {config} is not among them", "config")
    if policy.plans is not None and terms.plan_hash not in policy.plans:
        raise PolicyError(f"policy.plans: {terms.plan_hash} is not among them", "plan")


def require_approval(site: SiteConfig, terms: PrepareTask) -> None:
    """Demand that a person approved exactly this, where the policy wants that; else propose it.

    Raises:
        PolicyError: with the rule "approval" while nobody has answered, "config" when a person
            refused.
    """
    proposal = proposal_of(terms)
    answer = answer_to(site, proposal)
    if answer == "refused":
        raise PolicyError(f"proposal {proposal.short}: a person at this site refused it", "config")
    if answer == "approved" or not _needs_a_person(site.policy):
        return
    if answer is None:
        keep_proposal(site, replace(proposal, summary=describe(site, proposal)))
    raise PolicyError(
        f"proposal {proposal.short}: waits for a person here; read it with `consilium site "
        f"proposals KIT`, then `consilium site approve KIT {proposal.short}`",
        "approval",
    )


def permitted_agreement(site: SiteConfig, run: str, plan_hash: str) -> Agreement:
    """Return what was agreed for a run, as long as the policy allows it.

    Raises:
        PolicyError: when nothing was agreed, another plan, or what the policy forbids by now.
    """
    agreement = load_agreement(site, run, plan_hash)
    require_terms(site, agreement.terms)
    require_approval(site, agreement.terms)
    require_cases(site.policy, len(agreement.cases) + len(agreement.validation_cases))
    return agreement


def require_training(site: SiteConfig, agreement: Agreement, n_steps: int) -> float:
    """Demand that the site may train so many steps today.

    Returns:
        The epochs that they are: passes over this site's training cases; with differential privacy
        how often a patient is drawn, on average.

    Raises:
        PolicyError: with the rule "privacy", "epochs" or "hours".
    """
    privacy = agreement.terms.config.privacy
    require_epsilon(site.policy.max_epsilon, agreement.terms.config)
    if privacy is not None:
        require_private(site, agreement, len(site_patients(site, agreement.cases)))
    share = agreement.configuration.batch_size / max(1, len(agreement.cases))
    n_epochs = n_steps * (privacy.sampling_rate if privacy else share)
    require_time_left(site, n_epochs)
    return n_epochs


def _require_sums(policy: Policy, terms: PrepareTask) -> None:
    if policy.updates == "secure-sum" and terms.config.federation.secure_aggregation is None:
        raise PolicyError(
            "policy.updates: expected a run with federation.secure_aggregation, in which only sums "
            "of updates are seen, found one that shows this site's",
            "privacy",
        )


def _needs_a_person(policy: Policy) -> bool:
    """Return whether a person is asked: not where the policy names plan and configuration."""
    by_rule = policy.plans is not None and policy.configs is not None
    return policy.approval == "person" and not by_rule
