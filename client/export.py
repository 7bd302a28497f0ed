"""A trained model as other places read it: from a run directory, without the coordinator's code."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

from client.site import Agreement
from common.axes import Weights
from common.codec import read_json, read_toml
from common.config import RunConfig
from common.errors import ConfigError
from common.evaluation.postprocess import Chain, PostProcessing
from common.messages import FirstStage, PrepareTask
from common.packing import weights_digest
from common.planning.fingerprint import empty
from common.planning.plan import Plan
from common.ranks.ranking import Ranking
from common.task import Task


@dataclass(frozen=True)
class TrainedModel:
    """Weights with everything that is needed to use them."""

    agreement: Agreement
    weights: Weights
    method: str
    steps: Chain = ()
    """What is done to the labels; found on the validation cases of the run."""
    first: "TrainedModel | None" = None
    """The first stage, of a cascade."""


def load_trained(run: Path, method: str | None) -> TrainedModel:
    """Read the final model of a run.

    Args:
        run: a run directory with config.toml, task.toml, plan.json and models/.
        method: whose model; None takes the best-ranked method that has a shared model.

    Raises:
        ConfigError: when the folder is no run, or has no such model.
    """
    available = sorted(path.stem for path in (run / "models").glob("*.safetensors"))
    if not available:
        raise ConfigError(f"{run}: expected a finished run with models/, found none")
    chosen = method or _best(run, available)
    if chosen not in available:
        raise ConfigError(f"{run}: model {chosen!r}: expected one of {', '.join(available)}")
    task, plan = read_toml(Task, run / "task.toml"), read_json(Plan, run / "plan.json")
    config = read_toml(RunConfig, run / "config.toml")
    earlier = config.model.first_stage
    first = load_trained(run / "first-stage", earlier.method) if earlier else None
    terms = PrepareTask(
        run=run.name,
        task=task,
        config=config,
        fingerprint=empty(task),
        plan_hash=plan.hash,
        first_stage=_told(first) if first else None,
    )
    path = run / "models" / f"{chosen}.safetensors"
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ConfigError(f"{path}: expected a whole model: {error}") from None
    beside = run / "models" / f"{chosen}.postprocessing.json"
    steps = read_json(PostProcessing, beside).steps if beside.exists() else ()
    return TrainedModel(Agreement(terms=terms, plan=plan), weights, chosen, steps, first)


def _told(first: TrainedModel) -> FirstStage:
    """Return what a second stage says of its first."""
    model = first.agreement.terms.config.model
    return FirstStage(model=model, weights_sha256=weights_digest(first.weights))


def _best(run: Path, available: list[str]) -> str:
    path = run / "ranking.json"
    if not path.exists():
        return available[0]
    rank = read_json(Ranking, path).final_rank
    return min(available, key=lambda name: (rank.get(name, len(rank) + 1), name))
