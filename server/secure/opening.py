"""Opening a round's sum: the survivors agree who they are, tell their shares, the masks come off.

Two small questions; each is over when as many sites as the threshold have answered.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from common.errors import MessageError
from common.fixed_point import parts
from common.messages import Agreed, AgreeTask, TrainTask, Unmasked, UnmaskTask
from common.round_sums import RoundSums, n_sums, of_sums
from common.secret_shares import combined
from common.secure_round import SecureRound, add_mask
from common.secure_sum import Key, Words
from server.experiment import Experiment
from server.secure.masked_sum_file import MaskedSum
from server.sites import Answers, Failure, Reply
from server.updates import report_failure

T = TypeVar("T", Agreed, Unmasked)
MOST_WAIT_S = 600.0  # for answers that take a second where a site is there


class Lost(Exception):  # noqa: N818 - a round's end, not an error of the program
    """Too few sites helped; the sum stays closed for good."""


def opened_sum(run: Experiment, task: TrainTask, found: MaskedSum) -> tuple[Words, RoundSums]:
    """Return the sum without its masks, and the numbers beside it.

    Args:
        run: the experiment.
        task: the round's question without masks.
        found: the sum, which is on the disk already; its vector is changed in place.

    Raises:
        Lost: when too few sites agree or tell their shares, or when these do not open it.
    """
    secure, survivors = found.survivors.secure, found.sites
    codes = _codes(run, task, found)
    told = _told(run, task, found, codes)
    regions = tuple(run.task.regions)
    try:
        _take_off(found.vector, n_sums(regions), secure, survivors, told)
        _, numbers = parts(found.vector, n_sums(regions))
        return found.vector, of_sums(numbers, regions, len(survivors), secure.total_count)
    except MessageError as error:
        raise Lost(f"{error}: a site sent a wrong vector or wrong shares") from None


def _codes(run: Experiment, task: TrainTask, found: MaskedSum) -> dict[str, dict[str, Key]]:
    """Return what the survivors that agreed tell each other, by receiver and sender."""
    secure, survivors = found.survivors.secure, found.sites
    question = AgreeTask(
        run=task.run,
        plan_hash=task.plan_hash,
        method=task.method,
        round=task.round,
        nonce=secure.roster.nonce,
        survivors=survivors,
    )
    codes: dict[str, dict[str, Key]] = {site: {} for site in survivors}
    n_agreed = 0
    answers = run.sites.agree(dict.fromkeys(_there(run, found), question), _wait(run))
    for reply in _good(run, task, answers, secure):
        for receiver in set(reply.value.codes) & set(survivors):
            codes[receiver][reply.site] = reply.value.codes[receiver]
        n_agreed += 1
        if n_agreed == secure.threshold:
            return codes
    raise Lost(f"{secure.threshold} sites must agree who survived, {n_agreed} did")


def _told(
    run: Experiment, task: TrainTask, found: MaskedSum, codes: Mapping[str, Mapping[str, Key]]
) -> dict[str, Unmasked]:
    """Return the shares that survivors tell, by site."""
    secure, survivors = found.survivors.secure, found.sites
    questions = {
        site: UnmaskTask(
            run=task.run,
            plan_hash=task.plan_hash,
            method=task.method,
            round=task.round,
            nonce=secure.roster.nonce,
            survivors=survivors,
            codes=dict(codes[site]),
            shares={
                sender: shares[site]
                for sender, shares in found.survivors.shares.items()
                if sender != site
            },
        )
        for site in _there(run, found)
    }
    told: dict[str, Unmasked] = {}
    for reply in _good(run, task, run.sites.unmask(questions, _wait(run)), secure):
        if not _is_whole(reply.value, secure, survivors):
            failure = Failure(reply.site, "message", "shares: expected those of all survivors")
            report_failure(run, task.method, task.round, failure)
            continue
        told[reply.site] = reply.value
        if len(told) == secure.threshold:
            return told
    raise Lost(f"{secure.threshold} sites must tell their shares, {len(told)} did")


def _take_off(
    total: Words,
    n_numbers: int,
    secure: SecureRound,
    survivors: Sequence[str],
    told: Mapping[str, Unmasked],
) -> None:
    """Take all masks that are left off the sum, in place."""
    number = {site: place for place, site in enumerate(secure.sites, start=1)}
    dropped = [site for site in secure.sites if site not in survivors]

    def seed(shares: Mapping[str, str]) -> bytes:
        return combined({number[site]: bytes.fromhex(share) for site, share in shares.items()})

    for site in survivors:
        own = seed({teller: answer.own[site] for teller, answer in told.items()})
        add_mask(total, n_numbers, own, negative=True)
        for other in dropped:
            pair = seed({teller: answer.pairs[site][other] for teller, answer in told.items()})
            add_mask(total, n_numbers, pair, negative=site < other)


def _good(
    run: Experiment, task: TrainTask, answers: Answers[T], secure: SecureRound
) -> Iterator[Reply[T]]:
    """Yield the replies to this attempt, each site's first; report the others."""
    seen = set()
    for answer in answers:
        if isinstance(answer, Failure):
            report_failure(run, task.method, task.round, answer)
        elif answer.value.nonce != secure.roster.nonce:
            failure = Failure(answer.site, "message", "secure sum: expected this attempt's answer")
            report_failure(run, task.method, task.round, failure)
        elif answer.site not in seen:
            seen.add(answer.site)
            yield answer


def _is_whole(answer: Unmasked, secure: SecureRound, survivors: Sequence[str]) -> bool:
    dropped = set(secure.sites) - set(survivors)
    return (
        set(answer.own) == set(survivors)
        and set(answer.pairs) == set(survivors)
        and all(set(pairs) == dropped for pairs in answer.pairs.values())
    )


def _there(run: Experiment, found: MaskedSum) -> tuple[str, ...]:
    """Return the survivors that are still in the run; after a resumption some may not be."""
    return tuple(site for site in found.sites if site in run.cohort.training)


def _wait(run: Experiment) -> float:
    return min(MOST_WAIT_S, run.config.federation.round_timeout_s)
