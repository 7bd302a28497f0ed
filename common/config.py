"""The configuration of a run: what the study lead decides, in one TOML file.

There is no default for a scientific choice: the file says it. What follows from data (patch,
batch, spacing) is not configuration; it lives in the plan.
"""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import StringConstraints, model_validator

from common.codec import record
from common.errors import ConfigError
from common.plan import Configuration3dName, TrainedRules
from common.preparation import Preparation
from common.task import Task

MethodName = Literal["fedavg", "fedprox", "local-only"]
Norm = Literal["instance", "batch", "group"]
BatchNormSharing = Literal["local-statistics", "local", "shared"]
Output = Literal["labels", "regions"]
SiteName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""Names become parts of file names."""
Precision = Literal["auto", "float32", "bfloat16", "float16"]


@record
class Federation:
    """Who learns together, how often, and with which methods."""

    seed: Annotated[int, Ge(0), Lt(2**32)]
    methods: Annotated[tuple[MethodName, ...], MinLen(1)]
    rounds: Annotated[int, Ge(1)]
    local_steps: Annotated[int, Ge(1)]
    """Optimisation steps of every site in every round."""
    held_out: tuple[SiteName, ...]
    """Sites that never train; the final models are tested and ranked there."""
    min_sites: Annotated[int, Ge(1)]
    """Fewest training sites whose updates must arrive for a round to count."""
    proximal_mu: Annotated[float, Gt(0)] | None = None
    """FedProx: weight of the proximal term (Li et al. 2020); required if it is a method."""
    round_timeout_s: Annotated[float, Gt(0)] = 24 * 3600.0
    """A site that has not answered by then is left out of the round."""
    join_timeout_s: Annotated[float, Gt(0)] = 24 * 3600.0
    """How long the coordinator waits for the sites to connect."""


@record
class Model:
    """The network, apart from what the plan decides."""

    configuration: Configuration3dName
    norm: Norm
    batch_norm: BatchNormSharing
    """Which batch-norm tensors leave a site; without effect for the other norms."""
    output: Output
    """Softmax over labels, or one sigmoid per region."""
    base_features: Annotated[int, Ge(4), Le(64)]
    """Channels of the first stage; 32 in the published plans."""
    deep_supervision: bool


@record
class Planning:
    """How the plan is made."""

    rules: TrainedRules
    memory_gb: Annotated[float, Gt(0)]
    """Memory of the smallest site's accelerator; the published plans assume 8."""
    max_batch_size: Annotated[int, Ge(1)] | None = None
    """A limit for small machines; the plan says what it cut."""
    edited_plan: str | None = None
    """A `plan.json` that a person changed, instead of what the rules give; the path is relative to
    the configuration file. Every site's policy decides whether it trains by it."""


@record
class Training:
    """How a site trains."""

    optimizer: Literal["sgd", "adamw"]
    """SGD is with Nesterov momentum."""
    learning_rate: Annotated[float, Gt(0)]
    momentum: Annotated[float, Ge(0), Lt(1)]
    """Nesterov momentum of SGD; the first beta of AdamW."""
    weight_decay: Annotated[float, Ge(0)]
    poly_power: Annotated[float, Ge(0)]
    """Learning rate falls as (1 - step / all steps of all rounds) ** power."""
    gradient_clip_norm: Annotated[float, Gt(0)]
    mirror: bool
    """Augment by mirroring along every axis."""
    intensity: bool
    """Augment brightness, noise and gamma."""
    validation_fraction: Annotated[float, Ge(0), Lt(1)]
    """Share of a training site's cases that it keeps for validation (at least one, if > 0)."""
    precision: Precision = "auto"


@record
class Evaluation:
    """How models are judged."""

    hd95: Literal["pooled", "max"]
    mirroring: bool
    """Average predictions over all mirrorings; 2**3 times the work."""
    calibration_patches: Annotated[int, Ge(1)]
    """Patches from which a held-out site estimates its own batch-norm statistics."""
    ties: Literal["min", "average"]
    pictures: bool
    """Ask held-out sites for overlay pictures; each site's policy decides."""


@record
class Dirichlet:
    """Random sizes: shares of the sites are drawn from a symmetric Dirichlet distribution."""

    n_sites: Annotated[int, Ge(2)]
    alpha: Annotated[float, Gt(0)]


@record
class Simulation:
    """Only for `consilium simulate`: how one data set becomes several sites."""

    sizes: dict[SiteName, Annotated[int, Ge(1)]] | None = None
    csv: str | None = None
    """Columns Partition_ID,Subject_ID; the path is relative to the configuration file."""
    dirichlet: Dirichlet | None = None
    data: str | None = None
    """Folder with the data, relative to the configuration file; `--data` overrides it."""

    @model_validator(mode="after")
    def _one_partition(self) -> "Simulation":
        if sum(item is not None for item in (self.sizes, self.csv, self.dirichlet)) != 1:
            raise ValueError("expected exactly one of sizes, csv and dirichlet")
        return self


@record
class RunConfig:
    """The whole configuration of a run."""

    task: str
    """A built-in task's name, or the path of a task's TOML relative to this file."""
    federation: Federation
    model: Model
    planning: Planning
    training: Training
    evaluation: Evaluation
    preparation: Preparation = Preparation()
    """Steps before normalisation that nnU-Net does not have; none unless the file says so."""
    simulation: Simulation | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        if "fedprox" in self.federation.methods and self.federation.proximal_mu is None:
            raise ValueError("federation.proximal_mu: missing; the method fedprox needs it")
        if len(set(self.federation.methods)) != len(self.federation.methods):
            raise ValueError("federation.methods: expected every method once")
        if len(set(self.federation.held_out)) != len(self.federation.held_out):
            raise ValueError("federation.held_out: expected every site once")
        if self._lacks_affine_parameters():
            raise ValueError(
                "model.batch_norm: 'local' keeps scale and shift at each site, so a held-out site "
                "has none to predict with; expected 'local-statistics' or 'shared'"
            )
        return self

    def check_task(self, task: Task) -> None:
        """Demand that the task can do what the configuration asks for.

        Raises:
            ConfigError: for a region output of a task that cannot turn regions into labels.
        """
        if self.model.output == "regions" and task.region_labels is None:
            raise ConfigError(
                f"model.output: 'regions' needs region_labels in task {task.name}, found none; "
                "expected 'labels'"
            )

    def _lacks_affine_parameters(self) -> bool:
        local = self.model.norm == "batch" and self.model.batch_norm == "local"
        return local and bool(self.federation.held_out)
