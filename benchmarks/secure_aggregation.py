"""What adding updates unseen costs in a round, beside the plain one, and how exact the sum is.

Usage: python benchmarks/secure_aggregation.py [--millions 31] [--sites 3 10 40] [--dropped 0]

Nothing is trained and nothing crosses a network: the same messages are made and read in this
process. Every site's seconds are those between its trained weights and the message that holds
them; the coordinator's those between a message and its part in the mean, all checks included,
together for all sites. The bytes are those of all messages of a round with one site, both ways.
What a network adds goes by the bytes: `benchmarks/transport.py --secure` measures a round of real
processes. Largest differences are those between the mean weights of both ways; the bound is that
of `common.fixed_point` and the rounding to float32.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from client.secure.masked_update import VECTOR
from common.axes import Weights
from common.fixed_point import add_to, encoded, mean_weights, parts, vector_words
from common.messages import (
    Agreed,
    AgreeTask,
    MaskedUpdate,
    TrainTask,
    Unmasked,
    UnmaskTask,
    Update,
)
from common.packing import weights_digest
from common.round_sums import n_sums, of_sums, to_sums
from common.secret_shares import combined
from common.secure_aggregation import SecureAggregation
from common.secure_round import (
    Attempt,
    Member,
    SecureRound,
    Shares,
    add_mask,
    agreement_code,
    masked,
    opened,
    sealed,
)
from common.secure_sum import MaskKey, Roster, Words, new_nonce, new_private_key, public_key_of
from common.wire import body_of, n_bytes, to_content, weights_of
from server.exact_sum import ExactSum, fold, mean
from server.sites import Reply
from server.validation import check_update, update_norm

LARGEST = (320, 320, 3, 3, 3)  # tensor of nnU-Net's networks
REGIONS = ("WT", "TC", "ET")
N_CASES = 10
N_NUMBERS = n_sums(REGIONS)
TASK = TrainTask(run="r", plan_hash="0" * 64, method="fedavg", round=1, proximal_mu=0)
UPDATE = Update(round=1, n_cases=N_CASES, n_steps=1, loss=0.5, seconds=1.0)


@dataclass
class Cost:
    """Seconds by step, one number per time that it was done, and bytes."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    up: int = 0
    small: int = 0

    def timed(self, step: str, act: Callable[[], Any]) -> Any:
        """Do something and note how long it took."""
        began = time.perf_counter()
        result = act()
        self.seconds.setdefault(step, []).append(time.perf_counter() - began)
        return result

    def typical(self, *steps: str) -> float:
        """Return the median time of each step, added up."""
        return sum(statistics.median(self.seconds[step]) for step in steps)

    def total(self, *steps: str) -> float:
        """Return all time of the steps."""
        return sum(sum(self.seconds[step]) for step in steps)


def weights(millions: float) -> Weights:
    """Return about so many million float32 weights in tensors of nnU-Net's largest size."""
    rng = np.random.default_rng(0)
    n_tensors = max(1, round(millions * 1e6 / np.prod(LARGEST)))
    return {
        f"block.{n}.weight": rng.normal(0, 0.05, LARGEST).astype(np.float32)
        for n in range(n_tensors)
    }


def trained(sent: Weights, site: int) -> Weights:
    rng = np.random.default_rng(site + 1)
    return {
        n: t + rng.standard_normal(t.shape, np.float32) * np.float32(1e-3) for n, t in sent.items()
    }


def plain_round(sent: Weights, n_sites: int, cost: Cost) -> Weights:
    """Return the mean of the sites' weights as a plain round has it."""
    total = ExactSum()
    for site in range(n_sites):
        after = trained(sent, site)
        content = cost.timed("pack", lambda after=after: to_content(UPDATE, after))
        cost.up = n_bytes(content)

        def counted(content: Any = content) -> None:
            reply = Reply("site", body_of(Update, content), weights_of(content), 0)
            good = check_update(reply, TASK, sent, N_CASES, "float32")
            update_norm(good, sent)
            fold(total, good, N_CASES)

        cost.timed("fold", counted)
    return cost.timed("mean", lambda: mean(total))


def secure_round(sent: Weights, n_sites: int, n_dropped: int, cost: Cost) -> Weights:
    """Return the mean of the survivors' weights as a secure round has it."""
    members = members_of(n_sites)
    secure = members[0].attempt.secure
    size = vector_words(sum(tensor.size for tensor in sent.values()), N_NUMBERS)
    total, boxes, own = np.zeros(size, np.uint64), {}, {}
    for number, member in enumerate(members[: n_sites - n_dropped]):
        content, own[member.site] = masked_answer(sent, number, member, cost)
        cost.up = n_bytes(content)

        def counted(content: Any = content, site: str = member.site) -> None:
            answer = body_of(Update, content)
            boxes[site] = answer.masked.shares if answer.masked else {}
            add_to(total, weights_of(content)[VECTOR].view(np.uint64), N_NUMBERS)

        cost.timed("add", counted)
    told = told_by(members, boxes, own, cost)
    cost.timed("open", lambda: take_off(total, secure.sites, told))
    words, numbers = parts(total, N_NUMBERS)
    count = of_sums(numbers, REGIONS, len(boxes), secure.total_count).count
    return cost.timed("mean", lambda: mean_weights(sent, words, count / secure.total_count))


def members_of(n_sites: int) -> list[Member]:
    private = {f"site-{n:02d}": new_private_key() for n in range(n_sites)}
    keys = tuple(MaskKey(site=s, public_key=public_key_of(key)) for s, key in private.items())
    secure = SecureRound(
        roster=Roster(nonce=new_nonce(), keys=keys),
        threshold=SecureAggregation(min_sites=3).threshold(n_sites),
        total_count=N_CASES * n_sites,
    )
    attempt = Attempt("r", "fedavg", 1, secure, "0" * 64)
    return [Member(attempt, site, key) for site, key in private.items()]


def masked_answer(sent: Weights, number: int, member: Member, cost: Cost) -> tuple[Any, Shares]:
    after, secure = trained(sent, number), member.attempt.secure
    sums = to_sums(N_CASES, 0.5, dict.fromkeys(REGIONS, 0.5), REGIONS)
    share = N_CASES / secure.total_count
    cost.timed("digest", lambda: weights_digest(sent))
    vector = cost.timed("encode", lambda: encoded(sent, after, share, sums))
    vector, shares = cost.timed("mask", lambda: masked(vector, N_NUMBERS, member))
    box = cost.timed("seal", lambda: sealed(shares, member))
    answer = Update(
        round=1,
        n_cases=0,
        n_steps=0,
        seconds=1.0,
        masked=MaskedUpdate(nonce=secure.roster.nonce, shares=box),
    )
    content = cost.timed("pack", lambda: to_content(answer, {VECTOR: vector.view(np.int64)}))
    return content, shares[member.site]


def told_by(
    members: list[Member], boxes: dict[str, Any], own: dict[str, Shares], cost: Cost
) -> dict[str, Unmasked]:
    """Return what as many survivors as the threshold tell, through both small questions."""
    names, secure = tuple(boxes), members[0].attempt.secure
    there = [member for member in members if member.site in boxes][: secure.threshold]
    asked = {
        "run": "r",
        "plan_hash": "0" * 64,
        "method": "fedavg",
        "round": 1,
        "nonce": secure.roster.nonce,
        "survivors": names,
    }
    codes = {
        member.site: cost.timed("agree", lambda member=member: codes_of(member, names))
        for member in there
    }
    answers = {}
    for member in there:
        question = UnmaskTask(
            **asked,  # type: ignore[arg-type]
            codes={s: c[member.site] for s, c in codes.items() if s != member.site},
            shares={s: box[member.site] for s, box in boxes.items() if s != member.site},
        )
        told = cost.timed("tell", lambda m=member, q=question: unmasked(m, q, own[m.site]))
        answers[member.site] = told
        agreed = Agreed(nonce=secure.roster.nonce, codes=codes[member.site])
        four = (AgreeTask(**asked), agreed, question, told)  # type: ignore[arg-type]
        cost.small = sum(n_bytes(to_content(message)) for message in four)
    return answers


def codes_of(member: Member, names: tuple[str, ...]) -> dict[str, str]:
    return {
        other.site: agreement_code(member, member.site, other, names)
        for other in member.others
        if other.site in names
    }


def unmasked(member: Member, question: UnmaskTask, own: Shares) -> Unmasked:
    for other in member.others:
        if other.site in question.codes:
            agreement_code(member, other.site, other, question.survivors)
    received = {s: opened(box, s, member) for s, box in question.shares.items()}
    received[member.site] = own
    dropped = set(member.attempt.secure.sites) - set(received)
    return Unmasked(
        nonce=question.nonce,
        own={site: shares.own for site, shares in received.items()},
        pairs={site: {d: shares.pairs[d] for d in dropped} for site, shares in received.items()},
    )


def take_off(total: Words, sites: tuple[str, ...], told: dict[str, Unmasked]) -> None:
    place = {site: number for number, site in enumerate(sites, start=1)}
    for site, pairs in next(iter(told.values())).pairs.items():
        own = {place[t]: bytes.fromhex(answer.own[site]) for t, answer in told.items()}
        add_mask(total, N_NUMBERS, combined(own), negative=True)
        for other in pairs:
            pair = {place[t]: bytes.fromhex(a.pairs[site][other]) for t, a in told.items()}
            add_mask(total, N_NUMBERS, combined(pair), negative=site < other)


def report(sent: Weights, n_sites: int, n_dropped: int) -> None:
    plain, secure, n_there = Cost(), Cost(), n_sites - n_dropped
    one = plain_round(sent, n_there, plain)
    other = secure_round(sent, n_sites, n_dropped, secure)
    found = max(float(np.abs(one[name] - other[name]).max()) for name in sent)
    largest = max(float(np.abs(tensor).max()) for tensor in one.values())
    bound = n_there * 2.0**-29 * n_sites / n_there + largest * 2.0**-23
    up, down = plain.up / 2**20, sum(tensor.nbytes for tensor in sent.values()) / 2**20
    more = (secure.up - plain.up + secure.small) / 2**20
    print(f"\n{n_sites} sites, {n_dropped} dropped out, {down / 4 * 2**20 / 1e6:.1f} M parameters")
    steps = ("digest", "encode", "mask", "seal", "pack")
    told = ", ".join(f"{step} {secure.typical(step):.2f}" for step in steps)
    print(
        f"  a site      plain {plain.typical('pack'):5.2f} s, masked "
        f"{secure.typical(*steps):5.2f} s ({told})"
    )
    small = secure.typical("agree", "tell")
    print(f"              two small questions {small:.3f} s")
    told = ", ".join(f"{step} {secure.total(step):.2f}" for step in ("add", "open", "mean"))
    print(
        f"  coordinator plain {plain.total('fold', 'mean'):5.2f} s, masked "
        f"{secure.total('add', 'open', 'mean'):5.2f} s ({told})"
    )
    print(
        f"  bytes      plain {up + down:.2f} MiB, masked {up + down + more:.2f} MiB "
        f"({(up + down + more) / (up + down):.4f} times)"
    )
    print(f"  largest difference {found:.3g}, bound {bound:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--millions", type=float, default=31)
    parser.add_argument("--sites", type=int, nargs="+", default=[3, 10, 40])
    parser.add_argument("--dropped", type=int, default=0)
    arguments = parser.parse_args()
    sent = weights(arguments.millions)
    for n_sites in arguments.sites:
        report(sent, n_sites, arguments.dropped)


if __name__ == "__main__":
    main()
