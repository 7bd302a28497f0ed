"""Memory and time of the coordinator's aggregation, against Flower's own FedAvg, in one run.

Usage: python benchmarks/aggregation.py [--millions 31] [--sites 16 64] [--methods fedavg fedadam]

Sites are fakes that answer with weights of the size of nnU-Net's BraTS network; nothing is trained.
Ours is the whole round of the coordinator: messages, replies, every check, fold, checkpoint.
Flower's is `FedAvg.aggregate_train` of the same replies. Each is measured in a process of its own:
the largest resident memory above what it had before the first weights.

The time of one reply stands beside that of copying an array of the size of the weights. A fold
reads 4 bytes per parameter, reads 8 and writes 8; a copy reads 4 and writes 4.
"""

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from common.axes import Weights
from common.federation import Federation, MethodName, ServerOptimizer
from common.messages import TrainTask, Update
from common.wire import WEIGHTS, to_content
from server.exact_sum import ExactSum, fold
from server.flower_sites import FlowerSites
from server.run_folder import checkpoint_file, read_state, save_checkpoint
from server.sites import Reply
from server.strategies import SiteUpdate, build_strategy
from server.validation import check_update, update_norm
from simulation.grid import InProcessGrid

LOG = logging.getLogger("benchmark")
LARGEST = (320, 320, 3, 3, 3)  # tensor of nnU-Net's networks
N_CASES = 10
FEDERATION = Federation(
    seed=1,
    methods=("fedavg",),
    rounds=2,
    held_out=(),
    min_sites=1,
    local_steps=1,
    server_optimizer=ServerOptimizer(learning_rate=0.1),
)
TASK = TrainTask(run="r", plan_hash="0", method="fedavg", round=1, proximal_mu=0)
UPDATE = Update(round=1, n_cases=N_CASES, n_steps=1, loss=0.5, seconds=1.0)


def weights(millions: float) -> Weights:
    """Return about so many million float32 weights in tensors of nnU-Net's largest size."""
    rng = np.random.default_rng(0)
    n_tensors = max(1, round(millions * 1e6 / np.prod(LARGEST)))
    return {
        f"{n:02d}.weight": rng.standard_normal(LARGEST, np.float32) * np.float32(0.02)
        for n in range(n_tensors)
    }


class FakeSites(InProcessGrid):
    """Forgets what is sent, as the SuperLink's process has it then; answers from a file."""

    def __init__(self, folder: Path, n_sites: int) -> None:
        super().__init__(None, {n + 1: {} for n in range(n_sites)})  # type: ignore[arg-type]
        self._reply = folder / "reply.npy"
        self._index = json.loads((folder / "index.json").read_text())

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep who was asked, without the weights."""
        emptied = [
            Message(RecordDict(), message.metadata.dst_node_id, message.metadata.message_type)
            for message in messages
        ]
        return super().push_messages(emptied)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return one reply per message, each read anew."""
        for message_id in message_ids:
            asked = self._waiting.pop(message_id)
            content = to_content(UPDATE, {"a": np.zeros(1, np.float32)})
            array = Array("float32", (self._n,), "numpy.ndarray", self._reply.read_bytes())
            content[WEIGHTS] = ArrayRecord({"float32": array})
            content["index"]["json"] = json.dumps(self._index).encode()  # type: ignore[index]
            yield Message(content, reply_to=asked)

    @property
    def _n(self) -> int:
        return sum(int(np.prod(entry["shape"])) for entry in self._index)


def prepare(folder: Path, millions: float, method: MethodName, n_sites: int) -> None:
    """Write a state before the first round and the reply of a site."""
    begun = weights(millions)
    strategy = build_strategy(method, FEDERATION)
    save_checkpoint(folder, 0, strategy.init(begun, [str(n) for n in range(n_sites)]))
    content = to_content(UPDATE, {n: w * np.float32(1.01) for n, w in begun.items()})
    (folder / "reply.npy").write_bytes(content.array_records[WEIGHTS]["float32"].data)
    (folder / "index.json").write_bytes(content.config_records["index"]["json"])  # type: ignore[arg-type]


def ours(folder: Path, method: MethodName, n_sites: int) -> None:
    """Run one round as the coordinator does."""
    strategy = build_strategy(method, FEDERATION)
    state = read_state(checkpoint_file(folder, 0))
    nodes = {str(n): n + 1 for n in range(n_sites)}
    sites = FlowerSites(FakeSites(folder, n_sites), nodes=nodes)
    tasks = {site: (TASK, strategy.weights_for(state, site)) for site in nodes}

    def updates() -> Iterator[SiteUpdate]:
        for reply in sites.train(tasks, 3600.0):
            if not isinstance(reply, Reply):
                raise TypeError(f"expected a reply, found {reply}")
            sent = strategy.weights_for(state, reply.site)
            found = check_update(reply, TASK, sent, N_CASES, "float32")
            update_norm(found, sent)
            yield SiteUpdate(reply.site, N_CASES, found)
            del reply, found

    save_checkpoint(folder, 1, strategy.aggregate(state, updates()))


def flowers(folder: Path, n_sites: int) -> None:
    """Aggregate the same replies as Flower does: all of them at once."""
    grid = FakeSites(folder, n_sites)
    messages = [Message(RecordDict(), n + 1, "train") for n in range(n_sites)]
    replies = []
    for message in grid.pull_messages(grid.push_messages(messages)):
        counted = MetricRecord({"num-examples": N_CASES})
        arrays = ArrayRecord(dict(message.content.array_records[WEIGHTS]))
        content = RecordDict({"arrays": arrays, "metrics": counted})
        replies.append(Message(content, metadata=message.metadata))
    aggregated, _ = FedAvg().aggregate_train(1, replies)
    if aggregated is None:
        raise RuntimeError("Flower aggregated nothing")


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far; `getrusage` has its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measured(what: str, folder: Path, n_sites: int) -> int:
    """Return the growth of this process's peak while it aggregates."""
    before = peak_bytes()
    if what == "flower":
        flowers(folder, n_sites)
    else:
        ours(folder, what, n_sites)  # type: ignore[arg-type]
    return peak_bytes() - before


def in_a_process(*arguments: object) -> str:
    """Run this file once more with other arguments; return what it printed."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def median_s(act: Callable[[], object], runs: int = 5) -> float:
    """Return the median of several times, after one that does not count."""
    act()
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def report_memory(methods: list[str], n_sites: list[int], millions: float) -> None:
    """Print the peaks, in GiB and in sizes of the model."""
    size = sum(tensor.nbytes for tensor in weights(millions).values())
    LOG.info("model of %.1f million parameters: %.0f MiB", size / 4e6, size / 2**20)
    for what in [*methods, "flower"]:
        for n in n_sites:
            with tempfile.TemporaryDirectory() as folder:
                method = "fedavg" if what == "flower" else what
                in_a_process("--prepare", folder, method, n, millions)
                peak = int(in_a_process("--measure", what, folder, n).split()[-1])
            name = "Flower's FedAvg" if what == "flower" else what
            told = (name, n, peak / 2**30, peak / size)
            LOG.info("%-16s %3d sites: peak %.2f GiB = %.2f model sizes", *told)


def report_speed(millions: float) -> None:
    """Print what one reply takes, and the share of the memory's bandwidth that its fold reaches."""
    sent = weights(millions)
    arrived = {name: tensor * np.float32(1.01) for name, tensor in sent.items()}
    n_parameters = sum(tensor.size for tensor in sent.values())
    total, source = ExactSum(), np.ones(n_parameters, np.float32)
    target = np.zeros_like(source)
    copy = 8 * n_parameters / median_s(lambda: np.copyto(target, source))
    folding = median_s(lambda: fold(total, arrived, N_CASES))
    reply: Reply[Update] = Reply("a", UPDATE, arrived, 0)
    checking = median_s(lambda: check_update(reply, TASK, sent, N_CASES, "float32"))
    norm = median_s(lambda: update_norm(arrived, sent))
    bandwidth = 20 * n_parameters / folding
    LOG.info("copy: %.1f GB/s; fold: %.3f s, %.1f GB/s", copy / 1e9, folding, bandwidth / 1e9)
    LOG.info("fold at %.0f %% of a copy's bandwidth", 100 * bandwidth / copy)
    LOG.info("besides, per reply: every check %.3f s, norm %.3f s", checking, norm)


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--millions", type=float, default=31)
    parser.add_argument("--sites", type=int, nargs="+", default=[16, 64])
    methods = get_args(MethodName)
    parser.add_argument("--methods", nargs="+", choices=methods, default=["fedavg", "fedadam"])
    parser.add_argument("--prepare", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.prepare:
        folder, method, n_sites, millions = args.prepare
        prepare(Path(folder), float(millions), method, int(n_sites))
    elif args.measure:
        what, folder, n_sites = args.measure
        LOG.info("%d", measured(what, Path(folder), int(n_sites)))
    else:
        report_speed(args.millions)
        report_memory(args.methods, args.sites, args.millions)


if __name__ == "__main__":
    main()
