"""What held-out sites let out only as the sum over all of them: asked for, checked, kept, told."""

from collections.abc import Mapping
from dataclasses import replace

from common.codec import read_json, record, write_json
from common.errors import MessageError
from common.messages import Ranked, RankTask
from common.ranks.held_out_sums import HeldOutSums, from_vector, n_words, results_of
from common.ranks.rank_sums import RankSums
from common.secure_sum import Key, Roster, Words
from server.events import SumsReleased
from server.experiment import Experiment
from server.secure.whole_sum import WholeSum, seen_only_as_sum
from server.sites import Answers, Reply
from server.validation import check_masked

TOGETHER = "+"  # between names that stand for one institution; no site's name holds it


@record
class ReleasedTogether:
    """A sum as it lies in the run's folder; the sites are not asked for it again."""

    data: dict[str, Key]
    """Each site's word for the images and references that are in the sum."""
    sums: HeldOutSums


def released_together(
    run: Experiment, task: RankTask, pool: RankSums, words: Mapping[str, Key]
) -> HeldOutSums:
    """Return the sums over the cases of all held-out sites that mask theirs.

    Args:
        run: the experiment.
        task: which models are ranked.
        pool: the zero of its methods, regions and ties.
        words: by masking site, in name order: for the data that it tested.

    Raises:
        FederationError: when a site refuses, when all attempts failed, or when the sums do not
            add up.
    """
    path = run.folder.released_together
    kept = read_json(ReleasedTogether, path) if path.exists() else None
    if kept is not None and kept.data == words:
        return kept.sums
    sums = _asked(run, task, pool, words)
    run.log.append(
        SumsReleased(sites=tuple(words), n_cases=sums.ranks.n_cases, results=results_of(sums))
    )
    write_json(path, ReleasedTogether(data=dict(words), sums=sums))
    return sums


def _asked(
    run: Experiment, task: RankTask, pool: RankSums, words: Mapping[str, Key]
) -> HeldOutSums:
    names = tuple(words)

    def ask(roster: Roster) -> Answers[Ranked]:
        return run.sites.rank(replace(task, roster=roster), names)

    def check(answer: Reply[Ranked]) -> None:
        check_masked(answer.value, pool, words[answer.site])

    def read(total: Words) -> HeldOutSums:
        sums = from_vector(total, pool, TOGETHER.join(names))
        _check_count(run, names, sums.ranks.n_cases)
        return sums

    wanted = WholeSum(
        purpose="metrics",
        what="the metrics",
        names=names,
        n_words=n_words(pool),
        ask=ask,
        check=check,
        read=read,
    )
    return seen_only_as_sum(run.sites, wanted, task.run, run.log)


def _check_count(run: Experiment, names: tuple[str, ...], n_cases: int) -> None:
    """Demand the cases that the sites declared before planning, as far as they told."""
    declared = [run.cohort.held_out[name].n_cases for name in names]
    fewest = sum(1 if n is None else n for n in declared)
    if n_cases < fewest or (None not in declared and n_cases != fewest):
        raise MessageError(f"metrics: expected {fewest} cases as declared, found {n_cases}")
