"""One round's training at a site, from the received network to the trained one.

Everything that it goes by is written in the agreement and in the message; what it keeps on the
site's disk only spares work after a crash, or goes on from the site's own last round.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import nn

from client.device import Device
from client.site import Agreement, SiteConfig, site_log
from client.training.compiling import Forward, compiling_pays, forward_of
from client.training.drift import drift_file, load_drift, save_drift, shifted
from client.training.memory import out_of_memory_explained
from client.training.optimise import Pace
from client.training.optimizer_state import load_optimizer, optimizer_file, save_optimizer
from client.training.round_checkpoint import RoundCheckpoint, digest_of
from client.training.train import Learner, Objective, begin
from common.axes import Weights
from common.messages import TrainTask
from common.random import step_rng
from common.trained import freeze_others

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
StepsFrom = Callable[[int, int], Iterator[S]]
"""From the first step and the number of steps to what each of them sees."""


class Loop(Protocol[S_contra]):
    """How steps are taken: `train`, or `train_privately` with its mechanism."""

    def __call__(
        self,
        learner: Learner,
        steps: Iterator[S_contra],
        objective: Objective,
        pace: Pace,
        device: Device,
        /,
        *,
        seed_of_step: Callable[[int], int],
        after_step: Callable[[Learner], None],
    ) -> tuple[int, float]:
        """Train to the end of a round; return number of steps and mean loss."""


@dataclass(frozen=True)
class LocalRound:
    """What a site was asked for, and where."""

    site: SiteConfig
    agreement: Agreement
    task: TrainTask
    weights: Weights
    """As received."""
    n_cases: int
    """For training, at this site."""

    @property
    def n_steps(self) -> int:
        """Optimisation steps of this site in every round."""
        federation = self.agreement.terms.config.federation
        return federation.steps_per_round(self.n_cases, self.agreement.configuration.batch_size)


def train_locally(
    wanted: LocalRound, network: nn.Module, device: Device, loop: Loop[S], steps_from: StepsFrom[S]
) -> tuple[int, float]:
    """Train a network that holds the received weights, in place.

    Steps since the last checkpoint are taken again after a crash. With differential privacy they
    are drawn anew, with new noise, and charged again, though nobody saw those before.

    Returns:
        Number of steps and mean loss.

    Raises:
        ConfigError: when a part of the network is to be trained that it does not tell.
        FederationError: when the loss, or with differential privacy a weight, is not finite.
        MemoryError: with one line that says what to change.
    """
    site, task = wanted.site, wanted.task
    chosen = wanted.agreement.terms.config.training
    proximal = task.proximal_mu > 0
    freeze_others(network, chosen.trained)
    learner = begin(
        network, chosen, device, proximal=proximal, forward=_forward(wanted, network, device)
    )
    if task.dynamic:
        drift = load_drift(drift_file(site, task.run, task.method, task.round - 1), network)
        learner.received = shifted(learner.received, drift)
    if chosen.optimizer_state == "kept":
        before = optimizer_file(site, task.run, task.method, task.round - 1)
        load_optimizer(before, learner.optimizer)
    checkpoint = _checkpoint(wanted)
    done = checkpoint.restore(learner)
    if done:
        site_log(site).info("round %d: goes on after step %d", task.round, done)
    kept = "the steps up to the last checkpoint are kept, and a resumed run goes on from there"
    with out_of_memory_explained(site.memory_gb, kept):
        result = loop(
            learner,
            steps_from(done, wanted.n_steps - done),
            _objective(wanted),
            _pace(wanted),
            device,
            seed_of_step=lambda step: _seed(wanted, step),
            after_step=checkpoint.after_step,
        )
    if chosen.optimizer_state == "kept":
        after = optimizer_file(site, task.run, task.method, task.round)
        save_optimizer(after, learner.optimizer)
    if task.dynamic:
        save_drift(drift_file(site, task.run, task.method, task.round), network, learner.received)
    return result


def _forward(wanted: LocalRound, network: nn.Module, device: Device) -> Forward:
    config, configuration = wanted.agreement.terms.config, wanted.agreement.configuration
    pays = compiling_pays(configuration, device, wanted.n_steps, config.federation.rounds)
    cache, log = wanted.site.state_folder / "compiled", site_log(wanted.site)
    return forward_of(network, config.training.compile, pays=pays, cache=cache, log=log)


def _objective(wanted: LocalRound) -> Objective:
    terms, planned = wanted.agreement.terms, wanted.agreement.configuration
    model = terms.config.model
    return Objective(
        task=terms.task,
        output=model.output,
        batch_dice=planned.batch_dice,
        supervision=planned.deep_supervision_weights if model.deep_supervision else (1.0,),
        proximal_mu=wanted.task.proximal_mu,
        terms=terms.config.training.loss,
    )


def _pace(wanted: LocalRound) -> Pace:
    config = wanted.agreement.terms.config
    return Pace(
        schedule=config.training.schedule,
        learning_rate=config.training.learning_rate * wanted.task.rate_factor,
        first_step=(wanted.task.round - 1) * wanted.n_steps,
        total_steps=config.federation.rounds * wanted.n_steps,
    )


def _checkpoint(wanted: LocalRound) -> RoundCheckpoint:
    site, task = wanted.site, wanted.task
    return RoundCheckpoint(
        path=site.run_folder(task.run) / "unfinished" / f"{task.method}.safetensors",
        received=digest_of(task, wanted.weights),
        every_steps=wanted.agreement.terms.config.training.checkpoint_every_steps,
    )


def _seed(wanted: LocalRound, step: int) -> int:
    """Return the seed of what is random inside the network in one step."""
    seed = wanted.agreement.terms.config.federation.seed
    rng = step_rng(seed, wanted.site.name, wanted.task.round, step, "network")
    return int(rng.integers(2**63))
