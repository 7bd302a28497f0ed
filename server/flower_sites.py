"""The sites over Flower's Grid: the same code for real hospitals and for the simulation."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar, cast, get_args

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.axes import Weights
from common.errors import ErrorCode, FederationError, MessageError
from common.evaluation.postprocess_choice import ValidationSums
from common.messages import (
    Agreed,
    AgreeTask,
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
    Unmasked,
    UnmaskTask,
    Update,
    Validated,
    ValidateTask,
)
from common.secure_sum import MaskKey
from common.wire import body_of, n_bytes, to_content, weights_of
from server.mailbox import POLL_S, Clock, Mailbox, Question
from server.sites import Answers, Failure, Late, Reply, TrainAnswers

T = TypeVar("T")
Tasks: TypeAlias = Mapping[str, tuple[object, Weights | None]]
"""What each site is asked, and the weights that go with it."""
PLANNING_TIMEOUT_S = 24 * 3600.0  # preprocessing a large data set takes hours
FIND_TIMEOUT_S = 600.0  # to read the headers of a large data set again


class FlowerSites:
    """Implements `server.sites.Sites`; remembers which node is which site."""

    def __init__(
        self,
        grid: Grid,
        clock: Clock = time,
        nodes: Mapping[str, int] | None = None,
        names: Callable[[], Mapping[int, str] | None] = lambda: None,
    ) -> None:
        """Reach sites over a grid.

        Args:
            grid: Flower's.
            clock: to wait by.
            nodes: those that `measure` need not find.
            names: returns which site each node is by its key; None takes the sites' word for it.
        """
        self._grid, self._clock, self._names = grid, clock, names
        self._mailbox: Mailbox[object] = Mailbox(grid, clock)
        self._nodes: dict[str, int] = dict(nodes or {})
        self._asked: MeasureTask | None = None
        self._measured: dict[str, Measured] = {}

    def measure(self, task: MeasureTask, n_sites: int, timeout_s: float) -> Answers[Measured]:
        """Wait for the sites, ask all, and learn their names from the answers."""
        self._asked = task
        nodes = {f"node {node}": node for node in self._wait_for(n_sites, timeout_s)}
        tasks = dict.fromkeys(nodes, (task, None))
        for answer in self._ask(Measured, "query.measure", tasks, PLANNING_TIMEOUT_S, nodes):
            if isinstance(answer, Failure):
                yield answer
                continue
            name = answer.value.site
            if not self._may_be(name, nodes[answer.site]):
                raise FederationError(f"{answer.site}: calls itself {name!r}, which it is not")
            if name in self._nodes:
                raise FederationError(f"site {name!r}: expected once, two nodes use this name")
            self._nodes[name], self._measured[name] = nodes[answer.site], answer.value
            yield Reply(name, answer.value, None, answer.n_bytes)

    def keys(self, task: KeysTask, sites: Sequence[str]) -> Answers[MaskKey]:
        """Ask sites for a fresh public key for one sum."""
        tasks = dict.fromkeys(sites, (task, None))
        return self._ask(MaskKey, "query.keys", tasks, PLANNING_TIMEOUT_S)

    def measure_masked(self, task: MeasureTask, sites: Sequence[str]) -> Answers[Measured]:
        """Ask sites for their masked counts."""
        tasks = dict.fromkeys(sites, (task, None))
        return self._ask(Measured, "query.measure", tasks, PLANNING_TIMEOUT_S)

    def prepare(self, task: PrepareTask, sites: Sequence[str]) -> Answers[Prepared]:
        """Ask sites to agree on the plan and to prepare their cases."""
        tasks = dict.fromkeys(sites, (task, None))
        return self._ask(Prepared, "query.prepare", tasks, PLANNING_TIMEOUT_S)

    def first_stage(
        self, tasks: Mapping[str, tuple[FirstStageTask, Weights]]
    ) -> Answers[FirstStageDone]:
        """Ask sites to predict their cases with a cascade's first stage."""
        action, timeout_s = "query.first_stage", PLANNING_TIMEOUT_S
        return self._ask(FirstStageDone, action, tasks, timeout_s)

    def train(
        self,
        tasks: Mapping[str, tuple[TrainTask, Weights]],
        timeout_s: float,
        *,
        late_s: float = 0.0,
        retries: int = 0,
    ) -> TrainAnswers:
        """Ask sites to train for one round; late answers of earlier rounds come with it."""
        self._find_again()
        n_sent: dict[str, int] = {}
        questions = self._questions("train", tasks, self._nodes, retries)
        packing = _packing(tasks, n_sent)
        for question, message in self._mailbox.ask(questions, packing, timeout_s, late_s):
            answer = _answer(Update, question.site, message, timeout_s)
            _let_go(message)
            if question.purpose is tasks.get(question.site, (None,))[0]:
                yield replace(answer, n_sent=n_sent[question.site])
            elif isinstance(answer, Reply):
                yield Late(cast("TrainTask", question.purpose), answer)
            del answer, message  # before the next one is pulled

    def agree(self, tasks: Mapping[str, AgreeTask], timeout_s: float) -> Answers[Agreed]:
        """Ask survivors to agree to who survived."""
        alone = {site: (task, None) for site, task in tasks.items()}
        return self._ask(Agreed, "query.agree", alone, timeout_s)

    def unmask(self, tasks: Mapping[str, UnmaskTask], timeout_s: float) -> Answers[Unmasked]:
        """Ask survivors for their shares."""
        alone = {site: (task, None) for site, task in tasks.items()}
        return self._ask(Unmasked, "query.unmask", alone, timeout_s)

    def training(self) -> Mapping[str, TrainTask]:
        """Return what sites still work on after a deadline."""
        return cast("Mapping[str, TrainTask]", self._mailbox.unanswered)

    def validate(
        self, tasks: Mapping[str, tuple[ValidateTask, Weights]], timeout_s: float
    ) -> Answers[Validated]:
        """Ask sites to test weights on their validation cases."""
        return self._ask(Validated, "evaluate.validate", tasks, timeout_s)

    def personalise(
        self, tasks: Mapping[str, tuple[PersonaliseTask, Weights]], timeout_s: float
    ) -> Answers[Personalised]:
        """Ask sites to train the final weights further, for a comparison that stays with them."""
        action = "train.personalise"
        return self._ask(Personalised, action, tasks, timeout_s)

    def postprocess(
        self, tasks: Mapping[str, tuple[PostprocessTask, Weights]], timeout_s: float
    ) -> Answers[ValidationSums]:
        """Ask sites what candidates for post-processing do to their validation cases."""
        action = "evaluate.postprocess"
        return self._ask(ValidationSums, action, tasks, timeout_s)

    def test(
        self, tasks: Mapping[str, tuple[TestTask, Weights]], timeout_s: float
    ) -> Answers[Tested]:
        """Ask held-out sites to score a final model."""
        return self._ask(Tested, "evaluate.test", tasks, timeout_s)

    def rank(self, task: RankTask, sites: Sequence[str]) -> Answers[Ranked]:
        """Ask held-out sites to rank the models that they tested."""
        tasks = dict.fromkeys(sites, (task, None))
        return self._ask(Ranked, "evaluate.rank", tasks, PLANNING_TIMEOUT_S)

    def floor(self, task: FloorTask, sites: Sequence[str]) -> Answers[FloorMeasured]:
        """Ask held-out sites for the learning-free baseline."""
        tasks = dict.fromkeys(sites, (task, None))
        return self._ask(FloorMeasured, "evaluate.floor", tasks, PLANNING_TIMEOUT_S)

    def _find_again(self) -> None:
        """Learn the numbers of sites whose nodes were restarted under another one.

        A SuperNode that has no key of its own gets a new number. Who it is, it says as it did in
        the beginning, with the same counts; SuperLink's keys decide whether that is to be believed.
        """
        connected = set(self._grid.get_node_ids())
        gone = {site for site, node in self._nodes.items() if node not in connected}
        nodes = {f"node {n}": n for n in connected - set(self._nodes.values())}
        if self._asked is None or not gone or not nodes:
            return
        tasks = dict.fromkeys(nodes, (self._asked, None))
        for answer in self._ask(Measured, "query.measure", tasks, FIND_TIMEOUT_S, nodes):
            if isinstance(answer, Failure) or answer.value.site not in gone:
                continue
            if not self._may_be(answer.value.site, nodes[answer.site]):
                continue
            if answer.value == self._measured[answer.value.site]:
                self._nodes[answer.value.site] = nodes[answer.site]

    def _may_be(self, site: str, node: int) -> bool:
        """Return whether a node has a site's key, or no keys are known."""
        names = self._names()
        return names is None or names.get(node) == site

    def _wait_for(self, n_sites: int, timeout_s: float) -> list[int]:
        deadline = self._clock.monotonic() + timeout_s
        while len(nodes := sorted(self._grid.get_node_ids())) < n_sites:
            if self._clock.monotonic() > deadline:
                raise FederationError(
                    f"sites: expected {n_sites} within {timeout_s:.0f} s, {len(nodes)} connected"
                )
            self._clock.sleep(POLL_S)
        return nodes

    def _ask(
        self,
        cls: type[T],
        action: str,
        tasks: Tasks,
        timeout_s: float,
        nodes: Mapping[str, int] | None = None,
    ) -> Answers[T]:
        """Send one message per site, then yield each answer as it arrives."""
        if nodes is None:
            self._find_again()
        questions = self._questions(action, tasks, nodes or self._nodes)
        for question, message in self._mailbox.ask(questions, _packing(tasks, {}), timeout_s):
            yield _answer(cls, question.site, message, timeout_s)

    def _questions(
        self, action: str, tasks: Tasks, nodes: Mapping[str, int], attempts: int = 0
    ) -> dict[str, Question[object]]:
        return {
            site: Question(site, nodes[site], action, task, attempts)
            for site, (task, _) in tasks.items()
        }


def _packing(
    tasks: Tasks, n_sent: dict[str, int]
) -> Callable[[Iterable[str]], Mapping[str, RecordDict]]:
    """Return what makes messages, and counts in `n_sent` the bytes that went to each site."""

    def contents_of(sites: Iterable[str]) -> Mapping[str, RecordDict]:
        contents = _contents({site: tasks[site] for site in sites})
        for site, content in contents.items():
            n_sent[site] = n_sent.get(site, 0) + n_bytes(content)
        return contents

    return contents_of


def _contents(tasks: Tasks) -> dict[str, RecordDict]:
    """Pack equal weights once: all sites usually get the same object."""
    packed: dict[tuple[int, str], RecordDict] = {}
    contents = {}
    for site, (task, weights) in tasks.items():
        key = (id(weights), repr(task))
        if key not in packed:
            packed[key] = to_content(task, weights)
        contents[site] = packed[key]
    return contents


def _answer(
    cls: type[T], site: str, message: Message | None, timeout_s: float
) -> Reply[T] | Failure:
    if message is None:
        return Failure(site, "timeout", f"no answer within {timeout_s:.0f} s")
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


def _let_go(message: Message | None) -> None:
    """Let go of a reply's buffers: cycles in Flower's records would keep them for a while."""
    if message is not None and message.has_content():
        for record in message.content.array_records.values():
            record.clear()
