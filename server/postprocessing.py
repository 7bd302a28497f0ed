"""What is done to labels after the network, found on the validation cases of all sites.

Steps are added one at a time: every candidate is tried by every site, the sums over all cases say
which helps most (`common.evaluation.postprocess_choice`), and the search ends when none does.
"""

from collections.abc import Sequence
from typing import Final

from common.codec import read_json, write_json
from common.errors import MessageError
from common.evaluation.postprocess import Chain, PostProcessing, in_words, steps_for
from common.evaluation.postprocess_choice import ValidationSums, choose, extended, merged, no_cases
from common.messages import PostprocessTask
from server.events import Note, PostprocessingChosen
from server.experiment import Experiment
from server.participation import left_in_run
from server.sites import Failure, Reply
from server.strategies import State, Strategy

MAX_STEPS: Final = 4  # each is a question to all sites; papers use one or two


def choose_postprocessing(run: Experiment, strategy: Strategy, state: State) -> Chain:
    """Return the steps that help on the validation cases of the training sites; maybe none.

    A method with one model per site gets the steps that help over all its models.
    """
    if run.config.evaluation.postprocessing == "off":
        return ()
    path = run.folder.postprocessing(strategy.name)
    if path.exists():
        return read_json(PostProcessing, path).steps
    chain: Chain = ()
    reasons: list[str] = []
    sites: tuple[str, ...] = ()
    for _ in range(MAX_STEPS):
        sums, sites = _sums(run, strategy, state, extended(chain, steps_for(run.task)))
        if not sums.n_cases:
            run.log.append(Note(text=f"{strategy.name}: no post-processing: no validation cases"))
            break
        choice = choose(sums, run.task)
        reasons.append(choice.reason)
        if choice.chain == chain:
            break
        chain = choice.chain
    words = tuple(in_words(step, run.task) for step in chain)
    run.log.append(
        PostprocessingChosen(method=strategy.name, steps=words, reasons=tuple(reasons), sites=sites)
    )
    write_json(path, PostProcessing(steps=chain))
    return chain


def _sums(
    run: Experiment, strategy: Strategy, state: State, candidates: Sequence[Chain]
) -> tuple[ValidationSums, tuple[str, ...]]:
    """Return the sums over the validation cases of all sites that tell, and who they are."""
    task = PostprocessTask(
        run=run.folder.name,
        plan_hash=run.plan.hash,
        method=strategy.name,
        round=run.config.federation.rounds,
        candidates=tuple(candidates),
    )
    asked = left_in_run(run.cohort, run.folder.events)
    tasks = {site: (task, strategy.weights_for(state, site)) for site in asked}
    total, told = no_cases(candidates, run.task), []
    for answer in run.sites.postprocess(tasks, run.config.federation.round_timeout_s):
        try:
            total = merged(total, _checked(run, answer))
        except MessageError as error:
            said = f"{answer.site} did not say which post-processing helps: {error}"
            run.log.append(Note(text=f"{strategy.name}: {said}"))
        else:
            told.append(answer.site)
    return total, tuple(sorted(told))


def _checked(run: Experiment, answer: Reply[ValidationSums] | Failure) -> ValidationSums:
    """Return a site's sums.

    Raises:
        MessageError: when there are none, or they are over more cases than the site has.
    """
    if isinstance(answer, Failure):
        raise MessageError(f"{answer.code} ({answer.reason})")
    if answer.value.n_cases > run.cohort.most_cases(answer.site):
        raise MessageError(f"n_cases: found {answer.value.n_cases}, more than the site has")
    return answer.value
