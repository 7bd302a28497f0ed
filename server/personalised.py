"""Whether a site's own model beats the shared one: each site trains it further and compares.

Every training site does so from the final shared weights, on its own cases (`client.personalise`).
The models stay there; what arrives are two mean Dice over the site's validation cases.
"""

from common.errors import MessageError
from common.messages import Personalised, PersonaliseTask
from server.event_log import read_events
from server.events import Note, SitePersonalised
from server.experiment import Experiment
from server.participation import left_in_run
from server.sites import Failure, Reply
from server.strategies import State, Strategy
from server.validation import check_dice


def compare_personalised(run: Experiment, strategy: Strategy, state: State) -> None:
    """Ask the training sites that have not compared yet; a site that does not tell is a note.

    Nothing is asked unless the configuration has `evaluation.personalised_steps`, nor of a method
    without a shared model.
    """
    n_steps = run.config.evaluation.personalised_steps
    models = strategy.models(state)
    if n_steps is None or "" not in models:
        return
    task = PersonaliseTask(
        run=run.folder.name,
        plan_hash=run.plan.hash,
        method=strategy.name,
        round=run.config.federation.rounds,
        n_steps=n_steps,
    )
    asked = sorted(set(left_in_run(run.cohort, run.folder.events)) - _told(run, strategy.name))
    tasks = dict.fromkeys(asked, (task, models[""]))
    for answer in run.sites.personalise(tasks, run.config.federation.round_timeout_s):
        try:
            run.log.append(_checked(run, task, answer))
        except MessageError as error:
            said = f"{answer.site} did not compare its own model: {error}"
            run.log.append(Note(text=f"{strategy.name}: {said}"))


def _told(run: Experiment, method: str) -> set[str]:
    """Return the sites that answered before this run was resumed."""
    events = (event for _, event in read_events(run.folder.events))
    return {e.site for e in events if isinstance(e, SitePersonalised) and e.method == method}


def _checked(
    run: Experiment, task: PersonaliseTask, answer: Reply[Personalised] | Failure
) -> SitePersonalised:
    """Return what a site found.

    Raises:
        MessageError: when it found nothing, or what no Dice can be.
    """
    if isinstance(answer, Failure):
        raise MessageError(f"{answer.code} ({answer.reason})")
    shared, own = answer.value.shared, answer.value.own
    if shared is None or own is None:
        raise MessageError("it has no validation cases, or does not tell")
    for dice in (shared, own):
        check_dice(dice, run.task.regions)
    return SitePersonalised(
        method=task.method, site=answer.site, n_steps=task.n_steps, shared=shared, own=own
    )
