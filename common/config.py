"""The configuration of a run: what the study lead decides, in one TOML file.

There is no default for a scientific choice: the file says it. What follows from data (patch,
batch, spacing) is not configuration; it lives in the plan.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import model_validator

from common.augmentation import Augmentation
from common.codec import record
from common.errors import ConfigError
from common.federation import Federation, MethodName, SiteName, lacking
from common.losses import NNUNET_LOSS, Loss
from common.planning.plan import ConfigurationName, TrainedRules
from common.planning.preparation import Preparation
from common.privacy.settings import PatientPrivacy
from common.schedules import Schedule
from common.task import Task

Norm = Literal["instance", "batch", "group"]
BatchNormSharing = Literal["local-statistics", "local", "shared"]
Output = Literal["labels", "regions"]
ArchitectureName = Literal[
    "unet",
    "resunet",
    "preact-resunet",
    "resenc-unet",
    "unet2d",
    "resunet2d",
    "denseunet2d",
    "swin-unetr",
    "segresnet",
    "segresnet-vae",
    "attention-unet",
    "unetr",
    "unet++",
    "vnet",
]
"""Builders stand in `common.networks.table`."""
WITH_HEADS: tuple[ArchitectureName, ...] = (
    "unet",
    "resunet",
    "preact-resunet",
    "resenc-unet",
    "unet2d",
    "resunet2d",
    "denseunet2d",
)
"""Those whose networks tell which layers give the logits (`common.trained`)."""
TrainedPart = Literal["all", "biases-and-norms"]
OptimizerName = Literal["sgd", "adam", "adamw"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


@record
class FinishedRun:
    """A finished run whose model another one builds on."""

    run: str
    """Its directory, relative to the configuration file. Sites are not told where it is."""
    method: MethodName


@record
class Model:
    """The network, apart from what the plan decides."""

    configuration: ConfigurationName
    """Of the plan: slices, full resolution, or the coarser one of large images."""
    norm: Norm
    batch_norm: BatchNormSharing
    """Which batch-norm tensors leave a site; without effect for the other norms."""
    output: Output
    """Softmax over labels, or one sigmoid per region."""
    base_features: Annotated[int, Ge(4), Le(64)]
    """Channels of the first stage; 32 in the published plans."""
    deep_supervision: bool
    """Whether coarser decoder stages are supervised too; not every architecture has them."""
    architecture: ArchitectureName = "unet"
    first_stage: FinishedRun | None = None
    """Makes the run a cascade's second stage: 3d_fullres sees what a run of 3d_lowres, with the
    same plan and sites, predicted."""
    start: FinishedRun | None = None
    """Whose model training starts from, tensor by tensor where name and shape are equal; without
    it from random weights."""

    def with_runs(self, path_of: Callable[[str, str], str]) -> "Model":
        """Return the model with other directories of the runs that it builds on.

        Args:
            path_of: from the name of the field and the directory now to the directory then.
        """
        first, start = self.first_stage, self.start
        return replace(
            self,
            first_stage=replace(first, run=path_of("first_stage", first.run)) if first else None,
            start=replace(start, run=path_of("start", start.run)) if start else None,
        )


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

    optimizer: OptimizerName
    """SGD is with Nesterov momentum."""
    learning_rate: Annotated[float, Gt(0)]
    momentum: Annotated[float, Ge(0), Lt(1)]
    """Nesterov momentum of SGD; the first beta of Adam and AdamW."""
    weight_decay: Annotated[float, Ge(0)]
    schedule: Schedule
    """How the learning rate runs over the steps of all rounds."""
    gradient_clip_norm: Annotated[float, Gt(0)]
    augmentation: Augmentation
    validation_fraction: Annotated[float, Ge(0), Lt(1)]
    """Share of a training site's cases that it keeps for validation (at least one, if > 0)."""
    loss: Loss = NNUNET_LOSS
    """Terms that are summed; nnU-Net's, unless the file names others."""
    optimizer_state: Literal["reset", "kept"] = "reset"
    """Whether momentum starts afresh in every round, as the weights are no longer the site's own
    after an aggregation, or goes on from the site's last round; it never leaves the site."""
    precision: Precision = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether the network is compiled; "auto" does so where it saves more time than it takes."""
    checkpoint_every_steps: Annotated[int, Ge(0)] = 100
    """How often a site keeps what it needs to go on inside a round; 0 for never."""
    trained: TrainedPart = "all"
    """All parameters, or biases, scales and shifts of norms, and heads only, of a model that
    training starts from: far fewer values for privacy to add noise to (Bu et al. 2022)."""


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
    postprocessing: Literal["off", "chosen"] = "off"
    """Whether steps after the network are tried on all sites' validation cases; those that help
    there are done from then on (`common.evaluation.postprocess_choice`)."""
    personalised_steps: Annotated[int, Ge(1)] | None = None
    """Further steps that every training site takes from the final shared model, only to compare
    its own model with the shared one on its validation cases; None for no comparison."""


@record
class Dirichlet:
    """Random sizes: shares of the sites are drawn from a symmetric Dirichlet distribution."""

    n_sites: Annotated[int, Ge(2)]
    alpha: Annotated[float, Gt(0)]


@record
class Folds:
    """Cross-validation of pooled training: nnU-Net's folds of the same cases, one held out."""

    n: Annotated[int, Ge(2)]
    held_out: Annotated[int, Ge(0)]
    """From 0; the site `held-out` has this fold, the site `pooled` has the others."""


@record
class Simulation:
    """Only for `consilium simulate`: how one data set becomes several sites."""

    sizes: dict[SiteName, Annotated[int, Ge(1)]] | None = None
    csv: str | None = None
    """Columns Partition_ID,Subject_ID; the path is relative to the configuration file."""
    dirichlet: Dirichlet | None = None
    folds: Folds | None = None
    """`consilium simulate --fold` holds out another one."""
    data: str | None = None
    """Folder with the data, relative to the configuration file; `--data` overrides it."""
    times: str | None = None
    """JSON file with times of real institutions (`simulation.clock`), relative to the configuration
    file; with it rounds take simulated time, by which deadlines and late updates go."""

    @model_validator(mode="after")
    def _one_partition(self) -> "Simulation":
        ways = (self.sizes, self.csv, self.dirichlet, self.folds)
        if sum(item is not None for item in ways) != 1:
            raise ValueError("expected exactly one of sizes, csv, dirichlet and folds")
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
    privacy: PatientPrivacy | None = None
    """Patient-level differential privacy of what training sites send; none if absent."""
    simulation: Simulation | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        if lines := lacking(self.federation):
            raise ValueError("; ".join(lines))
        if len(set(self.federation.methods)) != len(self.federation.methods):
            raise ValueError("federation.methods: expected every method once")
        if len(set(self.federation.held_out)) != len(self.federation.held_out):
            raise ValueError("federation.held_out: expected every site once")
        if self._corrects_statistics():
            raise ValueError(
                f"model.batch_norm: {self.model.batch_norm!r}: the method feddyn corrects what is "
                "shared, which must be all parameters and no statistics; "
                "expected 'local-statistics', or another norm"
            )
        if lines := [*self._unprotected(), *self._untrainable()]:
            raise ValueError("; ".join(lines))
        if self._sums_statistics():
            raise ValueError(
                "model.batch_norm: 'shared' sends running statistics, whose changes have no "
                "bound that federation.secure_aggregation could add them within; expected "
                "'local-statistics' or 'local', or another norm"
            )
        if self._lacks_affine_parameters():
            raise ValueError(
                "model.batch_norm: 'local' keeps scale and shift at each site, so a held-out site "
                "has none to predict with; expected 'local-statistics' or 'shared'"
            )
        return self

    def check_task(self, task: Task) -> None:
        """Demand that the task can do what the configuration asks for.

        Raises:
            ConfigError: for a region output of a task that cannot turn regions into labels, or
                class weights that are not one per output.
        """
        if self.model.output == "regions" and task.region_labels is None:
            raise ConfigError(
                f"model.output: 'regions' needs region_labels in task {task.name}, found none; "
                "expected 'labels'"
            )
        by_label = self.model.output == "labels"
        n_outputs = len(task.foreground_labels) + 1 if by_label else len(task.regions)
        for term in self.training.loss:
            if term.class_weights is not None and len(term.class_weights) != n_outputs:
                raise ConfigError(
                    f"training.loss: {term.term}: class_weights: expected {n_outputs} (background "
                    f"and labels, or regions), found {len(term.class_weights)}"
                )

    def _unprotected(self) -> list[str]:
        """Return what the promise of `privacy` would not hold for."""
        if self.privacy is None:
            return []
        wrong = {
            "model.norm: expected 'instance' or 'group' with [privacy], for batch norm lets a "
            "patient change the gradients of others, found 'batch'": self.model.norm == "batch",
            "model.first_stage: expected none with [privacy], for the first stage's predictions "
            "of a patient tell about others": self.model.first_stage is not None,
            "federation.methods: expected none that looks at training losses with [privacy], for "
            "they leave no site, found dwa": "dwa" in self.federation.methods,
            "training.schedule: expected one that does not look at training losses with "
            "[privacy], for they leave no site, found plateau": self.training.schedule.name
            == "plateau",
            "federation.local_steps: expected with [privacy], so that all sites take equally many "
            "steps, found local_epochs": self.federation.local_steps is None,
            "training.precision: expected float32, bfloat16 or auto with [privacy], for whether a "
            "step of float16 is skipped depends on the data, found float16": self.training.precision
            == "float16",
            "evaluation.personalised_steps: expected none with [privacy], for these steps have no "
            "noise": self.evaluation.personalised_steps is not None,
        }
        return [line for line, found in wrong.items() if found]

    def _untrainable(self) -> list[str]:
        """Return why it would not do to train only a part of the network."""
        if self.training.trained == "all":
            return []
        model, site_privacy = self.model, self.federation.site_privacy
        wrong = {
            "model.start: expected a finished run with training.trained = 'biases-and-norms', for "
            "frozen random weights learn nothing, found none": model.start is None,
            f"model.architecture: expected one of {', '.join(WITH_HEADS)} with training.trained = "
            "'biases-and-norms', for others do not tell which layers are their heads, found "
            f"{model.architecture}": model.architecture not in WITH_HEADS,
            "federation.site_privacy: expected none with training.trained = 'biases-and-norms', "
            "for its noise moves frozen weights too": site_privacy is not None,
        }
        return [line for line, found in wrong.items() if found]

    def _corrects_statistics(self) -> bool:
        other = self.model.norm == "batch" and self.model.batch_norm != "local-statistics"
        return other and "feddyn" in self.federation.methods

    def _sums_statistics(self) -> bool:
        shared = self.model.norm == "batch" and self.model.batch_norm == "shared"
        return shared and self.federation.secure_aggregation is not None

    def _lacks_affine_parameters(self) -> bool:
        local = self.model.norm == "batch" and self.model.batch_norm == "local"
        return local and bool(self.federation.held_out)
