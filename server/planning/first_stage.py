"""The first stage of a cascade: a finished run's model, whose labels the second stage sees."""

from dataclasses import dataclass
from pathlib import Path

from common.axes import Weights
from common.codec import read_json, read_toml
from common.config import FinishedRun, RunConfig
from common.errors import ConfigError
from common.files import write_atomically
from common.messages import FirstStage, FirstStageTask
from common.packing import weights_digest
from common.planning.plan import Plan
from server.run_folder import RunFolder, load_model
from server.sites import Sites, all_of

FILES = ("config.toml", "task.toml", "plan.json")


@dataclass(frozen=True)
class FinishedStage:
    """A first stage, ready to be given to the sites."""

    told: FirstStage
    weights: Weights


def finished_stage(config: RunConfig, plan: Plan, folder: RunFolder) -> FinishedStage | None:
    """Read the first stage of a cascade, and keep a copy in the run directory; None without one.

    Raises:
        ConfigError: when the first run is not finished, is no 3d_lowres, or had another plan.
    """
    wanted = config.model.first_stage
    if wanted is None:
        return None
    _keep_copy(wanted, folder)
    first = RunFolder(folder.first_stage)
    found = read_toml(RunConfig, first.config)
    stages = (found.model.configuration, config.model.configuration)
    if stages != ("3d_lowres", "3d_fullres"):
        raise ConfigError(
            "model.first_stage: expected a run of 3d_lowres for one of 3d_fullres, "
            f"found {stages[0]} for {stages[1]}"
        )
    if (theirs := read_json(Plan, first.plan).hash) != plan.hash:
        raise ConfigError(
            f"model.first_stage: expected a run with the plan {plan.hash[:16]}, found "
            f"{theirs[:16]}: both stages need the same sites, data and [planning]"
        )
    weights = load_model(first.model(wanted.method))
    told = FirstStage(model=found.model, weights_sha256=weights_digest(weights))
    return FinishedStage(told, weights)


def give_first_stage(
    sites: Sites, names: tuple[str, ...], stage: FinishedStage, run: str, plan: Plan
) -> None:
    """Have every site predict its cases with the first stage.

    Raises:
        FederationError: when a site cannot.
    """
    task = FirstStageTask(run=run, plan_hash=plan.hash)
    tasks = dict.fromkeys(names, (task, stage.weights))
    all_of(sites.first_stage(tasks), "predict with the first stage")


def _keep_copy(wanted: FinishedRun, folder: RunFolder) -> None:
    """Copy what a first stage consists of, so that this run is whole without the other one."""
    source, target = RunFolder(Path(wanted.run)), RunFolder(folder.first_stage)
    if target.model(wanted.method).exists():
        return
    if not source.model(wanted.method).exists():
        raise ConfigError(
            f"model.first_stage: {source.path}: expected a finished run with a model of "
            f"{wanted.method}, found none"
        )
    for name in FILES:
        write_atomically(target.path / name, (source.path / name).read_bytes())
    write_atomically(target.model(wanted.method), source.model(wanted.method).read_bytes())
