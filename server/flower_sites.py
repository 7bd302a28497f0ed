"""The sites over Flower's Grid: the same code for real hospitals and for the simulation.

Replies are pulled one message at a time, so that the coordinator holds one site's weights at
once, however many sites there are. (Flower's own `send_and_receive` keeps all of them.)
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar, get_args

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.axes import Weights
from common.errors import FederationError, MessageError
from common.evaluation.postprocess_choice import ValidationSums
from common.messages import (
    ErrorCode,
    FirstStageDone,
    FirstStageTask,
    FloorMeasured,
    FloorTask,
    KeysTask,
    Measured,
    MeasureTask,
    Personalised,
    PersonaliseTask,
    PostprocessTask,
    Prepared,
    PrepareTask,
    Ranked,
    RankTask,
    Tested,
    TestTask,
    TrainTask,
    Update,
    Validated,
    ValidateTask,
)
from common.secure_sum import MaskKey
from common.wire import body_of, n_bytes, to_content, weights_of
from server.sites import Answers, Failure, Reply

T = TypeVar("T")
POLL_S = 0.5  # between looks for new replies
PLANNING_TIMEOUT_S = 24 * 3600.0  # preprocessing a large data set takes hours


class FlowerSites:
    """Implements `server.sites.Sites`; remembers which node is which site."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._nodes: dict[str, int] = {}

    def measure(self, task: MeasureTask, n_sites: int, timeout_s: float) -> Answers[Measured]:
        """Wait for the sites, ask all, and learn their names from the answers."""
        nodes = {f"node {node}": node for node in self._wait_for(n_sites, timeout_s)}
        content = to_content(task)
        contents = dict.fromkeys(nodes, content)
        for answer in self._ask(Measured, "query.measure", contents, nodes, PLANNING_TIMEOUT_S):
            if isinstance(answer, Failure):
                yield answer
                continue
            name = answer.value.site
            if name in self._nodes:
                raise FederationError(f"site {name!r}: expected once, two nodes use this name")
            self._nodes[name] = nodes[answer.site]
            yield Reply(name, answer.value, None, answer.n_bytes)

    def keys(self, task: KeysTask, sites: Sequence[str]) -> Answers[MaskKey]:
        """Ask sites for a fresh public key for one sum."""
        contents = dict.fromkeys(sites, to_content(task))
        return self._ask(MaskKey, "query.keys", contents, self._nodes, PLANNING_TIMEOUT_S)

    def measure_masked(self, task: MeasureTask, sites: Sequence[str]) -> Answers[Measured]:
        """Ask sites for their masked counts."""
        contents = dict.fromkeys(sites, to_content(task))
        return self._ask(Measured, "query.measure", contents, self._nodes, PLANNING_TIMEOUT_S)

    def prepare(self, task: PrepareTask, sites: Sequence[str]) -> Answers[Prepared]:
        """Ask sites to agree on the plan and to prepare their cases."""
        contents = dict.fromkeys(sites, to_content(task))
        return self._ask(Prepared, "query.prepare", contents, self._nodes, PLANNING_TIMEOUT_S)

    def first_stage(
        self, tasks: Mapping[str, tuple[FirstStageTask, Weights]]
    ) -> Answers[FirstStageDone]:
        """Ask sites to predict their cases with a cascade's first stage."""
        action, timeout_s = "query.first_stage", PLANNING_TIMEOUT_S
        return self._ask(FirstStageDone, action, _contents(tasks), self._nodes, timeout_s)

    def train(
        self, tasks: Mapping[str, tuple[TrainTask, Weights]], timeout_s: float
    ) -> Answers[Update]:
        """Ask sites to train for one round."""
        return self._ask(Update, "train", _contents(tasks), self._nodes, timeout_s)

    def validate(
        self, tasks: Mapping[str, tuple[ValidateTask, Weights]], timeout_s: float
    ) -> Answers[Validated]:
        """Ask sites to test weights on their validation cases."""
        return self._ask(Validated, "evaluate.validate", _contents(tasks), self._nodes, timeout_s)

    def personalise(
        self, tasks: Mapping[str, tuple[PersonaliseTask, Weights]], timeout_s: float
    ) -> Answers[Personalised]:
        """Ask sites to train the final weights further, for a comparison that stays with them."""
        action = "train.personalise"
        return self._ask(Personalised, action, _contents(tasks), self._nodes, timeout_s)

    def postprocess(
        self, tasks: Mapping[str, tuple[PostprocessTask, Weights]], timeout_s: float
    ) -> Answers[ValidationSums]:
        """Ask sites what candidates for post-processing do to their validation cases."""
        action = "evaluate.postprocess"
        return self._ask(ValidationSums, action, _contents(tasks), self._nodes, timeout_s)

    def test(
        self, tasks: Mapping[str, tuple[TestTask, Weights]], timeout_s: float
    ) -> Answers[Tested]:
        """Ask held-out sites to score a final model."""
        return self._ask(Tested, "evaluate.test", _contents(tasks), self._nodes, timeout_s)

    def rank(self, task: RankTask, sites: Sequence[str]) -> Answers[Ranked]:
        """Ask held-out sites to rank the models that they tested."""
        contents = dict.fromkeys(sites, to_content(task))
        return self._ask(Ranked, "evaluate.rank", contents, self._nodes, PLANNING_TIMEOUT_S)

    def floor(self, task: FloorTask, sites: Sequence[str]) -> Answers[FloorMeasured]:
        """Ask held-out sites for the learning-free baseline."""
        contents = dict.fromkeys(sites, to_content(task))
        return self._ask(FloorMeasured, "evaluate.floor", contents, self._nodes, PLANNING_TIMEOUT_S)

    def _wait_for(self, n_sites: int, timeout_s: float) -> list[int]:
        deadline = time.monotonic() + timeout_s
        while len(nodes := sorted(self._grid.get_node_ids())) < n_sites:
            if time.monotonic() > deadline:
                raise FederationError(
                    f"sites: expected {n_sites} within {timeout_s:.0f} s, {len(nodes)} connected"
                )
            time.sleep(POLL_S)
        return nodes

    def _ask(
        self,
        cls: type[T],
        action: str,
        contents: Mapping[str, RecordDict],
        nodes: Mapping[str, int],
        timeout_s: float,
    ) -> Answers[T]:
        """Send one message per site, then yield each answer as it arrives."""
        messages = [
            Message(content, nodes[site], action, ttl=timeout_s)
            for site, content in sorted(contents.items())
        ]
        ids = self._grid.push_messages(messages)
        pending = dict(zip(ids, sorted(contents), strict=True))
        deadline = time.monotonic() + timeout_s
        while pending and time.monotonic() < deadline:
            n_before = len(pending)
            for site, message in self._pull(pending):
                yield _answer(cls, site, message)
            if len(pending) == n_before:
                time.sleep(POLL_S)
        for site in pending.values():
            yield Failure(site, "timeout", f"no answer within {timeout_s:.0f} s")

    def _pull(self, pending: dict[str, str]) -> Iterator[tuple[str, Message]]:
        """Yield replies that have arrived, one at a time, and strike them off `pending`."""
        for message_id in list(pending):
            for message in self._grid.pull_messages([message_id]):
                yield pending.pop(message_id), message


def _contents(tasks: Mapping[str, tuple[object, Weights]]) -> dict[str, RecordDict]:
    """Pack equal weights once: all sites usually get the same object."""
    packed: dict[tuple[int, str], RecordDict] = {}
    contents = {}
    for site, (task, weights) in tasks.items():
        key = (id(weights), repr(task))
        if key not in packed:
            packed[key] = to_content(task, weights)
        contents[site] = packed[key]
    return contents


def _answer(cls: type[T], site: str, message: Message) -> Reply[T] | Failure:
    if message.has_error():
        return Failure(site, _error_code(message), "the site's log says more")
    try:
        content = message.content
        weights = weights_of(content) if content.array_records else None
        return Reply(site, body_of(cls, content), weights, n_bytes(content))
    except MessageError as error:
        return Failure(site, "message", str(error))


def _error_code(message: Message) -> str:
    """Return our own code, or Flower's number; never a foreign text, which may name a patient."""
    reason = message.error.reason or ""
    return reason if reason in get_args(ErrorCode) else f"flower-{message.error.code}"
