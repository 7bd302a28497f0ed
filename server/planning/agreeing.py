"""One plan that all sites agree on: by the rules from the merged fingerprint, or edited by hand."""

import time
from dataclasses import replace
from pathlib import Path

from common.codec import read_json, write_json
from common.config import RunConfig
from common.errors import ConfigError, FederationError
from common.messages import PrepareTask
from common.network import build_network
from common.planning.edited_plan import read_plan
from common.planning.fingerprint import Fingerprint
from common.planning.plan import Plan, configuration_of, sealed
from common.planning.planner import plan_run
from common.task import Task
from server.event_log import EventLog
from server.events import Note, PlanMade
from server.mailbox import Clock
from server.planning.approvals import answers_of_people
from server.planning.cohort import Cohort, require_one_task
from server.planning.first_stage import finished_stage, give_first_stage
from server.remarks import remarks
from server.run_folder import RunFolder
from server.sites import Sites, all_of
from server.weighting import require_countable


def agree(
    sites: Sites,
    cohort: Cohort,
    config: RunConfig,
    task: Task,
    folder: RunFolder,
    log: EventLog,
    clock: Clock = time,
) -> Plan:
    """Plan from the training sites' merged fingerprint and have every site plan the same.

    Held-out sites do not influence the plan: they take no part in training. A site whose policy
    wants a person's approval is asked again until somebody there has answered.

    Raises:
        ConfigError: when sites describe different tasks (it says who has what).
        FederationError: when a site refuses; a difference of plans is never passed over.
    """
    config = _for_the_smallest_site(config, cohort, log)
    require_one_task(cohort, task)
    fingerprint = cohort.fingerprint
    plan = _planned(fingerprint, config)
    planned = configuration_of(plan, config.model.configuration)
    build_network(task, planned, config.model)  # what cannot be fails before a site prepares data
    require_countable(config, plan, [cohort.most_cases(site) for site in cohort.training])
    if folder.plan.exists() and (old := read_json(Plan, folder.plan)).hash != plan.hash:
        raise FederationError(
            f"{folder.plan}: expected the plan of this run, {old.hash}, planned {plan.hash}"
        )
    write_json(folder.plan, plan)
    stage = finished_stage(config, plan, folder)
    terms = PrepareTask(
        run=folder.name,
        task=task,
        config=_without_paths(config, task),
        fingerprint=fingerprint,
        plan_hash=plan.hash,
        edited_plan=plan if plan.edited else None,
        first_stage=stage.told if stage else None,
    )
    timeout_s = config.federation.join_timeout_s
    answers = answers_of_people(sites, terms, cohort.everyone, log, timeout_s, clock)
    replies = all_of(answers, "agree on the plan")
    own = {reply.site: reply.value.plan_hash for reply in replies}
    if others := {site: planned for site, planned in own.items() if planned != plan.hash}:
        lines = [f"{site} refuses to train: its plan is {other}" for site, other in others.items()]
        raise FederationError("\n".join([f"the coordinator's plan is {plan.hash}", *lines]))
    if stage:
        give_first_stage(sites, cohort.everyone, stage, folder.name, plan)
    log.append(PlanMade(plan_hash=plan.hash, n_cases=fingerprint.n_cases, limits=plan.limits))
    for text in remarks(config):
        log.append(Note(text=text))
    return plan


def _for_the_smallest_site(config: RunConfig, cohort: Cohort, log: EventLog) -> RunConfig:
    """Return the configuration with the memory that every training site has."""
    wanted, smallest = config.planning.memory_gb, cohort.memory_gb
    if smallest is None or smallest >= wanted:
        return config
    log.append(
        Note(text=f"planned for {smallest:g} GB, the smallest site's, instead of {wanted:g} GB")
    )
    return replace(config, planning=replace(config.planning, memory_gb=smallest))


def _planned(fingerprint: Fingerprint, config: RunConfig) -> Plan:
    """Return the plan of the rules, or the one that a person made of it.

    Raises:
        ConfigError: when an edited plan cannot be trained or is for other channels.
    """
    by_rules = plan_run(fingerprint, config)
    if config.planning.edited_plan is None:
        return by_rules
    path = Path(config.planning.edited_plan)
    given = read_plan(path)
    if given.hash == by_rules.hash:
        return by_rules
    if given.channels != by_rules.channels:
        raise ConfigError(
            f"{path}: expected a plan for the channels {', '.join(by_rules.channels)}, "
            f"found {', '.join(given.channels)}"
        )
    return sealed(replace(given, edited=True))  # also a plan that rules made for other data


def _without_paths(config: RunConfig, task: Task) -> RunConfig:
    """Return what sites are told of a configuration: nothing of this machine."""
    planning = replace(config.planning, edited_plan=None)
    model = config.model.with_runs(lambda field, _: field)
    return replace(config, task=task.name, simulation=None, planning=planning, model=model)
