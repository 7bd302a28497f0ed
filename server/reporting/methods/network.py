"""The network of a run: its architecture, norms, outputs and parameters."""

from common.config import ArchitectureName, Model, RunConfig
from common.planning.plan import AnyConfiguration
from common.task import Task
from server.reporting.methods.told import of_config, plural
from server.reporting.model_size import ModelSize
from server.reporting.references import cite
from server.reporting.sources import sourced

ARCHITECTURES: dict[ArchitectureName, tuple[str, tuple[str, ...]]] = {
    "unet": ("a plain U-Net", ("ronneberger2015", "cicek2016", "isensee2021")),
    "resunet": ("a U-Net with a residual encoder", ("isensee2019",)),
    "preact-resunet": ("a U-Net with a pre-activation residual encoder", ("isensee2019",)),
    "resenc-unet": ("nnU-Net's residual-encoder U-Net", ("isensee2024",)),
    "unet2d": ("a five-level 2D U-Net", ("ronneberger2015",)),
    "resunet2d": ("a five-level 2D U-Net with residual blocks", ("ronneberger2015",)),
    "denseunet2d": ("a five-level 2D U-Net with dense blocks", ("ronneberger2015",)),
    "swin-unetr": ("Swin UNETR", ("hatamizadeh2022swin",)),
    "segresnet": ("SegResNet", ("myronenko2018",)),
    "segresnet-vae": ("SegResNet with its variational autoencoder", ("myronenko2018",)),
    "attention-unet": ("Attention U-Net", ("oktay2018",)),
    "unetr": ("UNETR", ("hatamizadeh2022unetr",)),
    "unet++": ("UNet++", ("zhou2018",)),
    "vnet": ("V-Net", ("milletari2016",)),
}
PLANNED: tuple[ArchitectureName, ...] = (
    "unet",
    "resunet",
    "preact-resunet",
    "resenc-unet",
    "attention-unet",
)
"""Those whose stages, strides and widths are the plan's."""
NORMS = {
    "batch": ("batch normalisation", "ioffe2015"),
    "instance": ("instance normalisation", "ulyanov2016"),
    "group": ("group normalisation", "wu2018"),
}
SHARING = {
    "local-statistics": (
        "Running statistics of batch normalisation stayed at each site, scale and shift were "
        f"shared {cite('andreux2020')}."
    ),
    "local": f"All tensors of batch normalisation stayed at each site {cite('li2021')}.",
    "shared": "Running statistics of batch normalisation were shared like weights.",
}


def network(
    config: RunConfig,
    task: Task | None,
    trained: dict[str, AnyConfiguration],
    size: ModelSize | None,
) -> list[str]:
    """Return what was trained.

    Args:
        config: names architecture and norm.
        task: gives the outputs.
        trained: the plan's configuration that was trained, by name.
        size: of the model in the run directory; None before there is one.
    """
    model = config.model
    words, papers = ARCHITECTURES[model.architecture]
    norm, paper = NORMS[model.norm]
    found = [f"The network was {words} {cite(*papers)} with {norm} {cite(paper)}."]
    if model.architecture in PLANNED:
        found += [_stages(name, one) for name, one in trained.items()]
    else:
        width = of_config(config, "model.base_features")
        found.append(f"Its base width is {width}; the plan gives the patch, not the stages.")
    if model.norm == "batch":
        found.append(SHARING[model.batch_norm])
    found += [_outputs(model, task), *_supervision(model, trained), *_beginning(model)]
    if size is not None:
        values = sourced(f"{size.n_parameters:,}", f"{size.file}: values of parameters")
        tensors = sourced(size.n_tensors, f"{size.file}: tensors of parameters")
        found.append(f"The shared model has {values} parameters in {tensors} tensors.")
    return found


def _stages(name: str, one: AnyConfiguration) -> str:
    n_stages = len(one.kernel_sizes)
    source = f"plan.json: count of configurations.{name}.kernel_sizes"
    widths = ", ".join(map(str, one.features_per_stage))
    features = sourced(widths, f"plan.json: configurations.{name}.features_per_stage")
    return (
        f"It has {sourced(n_stages, source)} {plural(n_stages, 'stage')} with {features} features "
        "in strides and kernels of the plan (table of stages below)."
    )


def _outputs(model: Model, task: Task | None) -> str:
    if model.output == "regions":
        n = sourced(len(task.regions), "task.toml: count of regions") if task else "all"
        return f"It gives one sigmoid for each of {n} regions, which may overlap."
    n = sourced(len(task.labels), "task.toml: count of labels") if task else "all"
    return f"It gives a softmax over {n} labels, background included."


def _supervision(model: Model, trained: dict[str, AnyConfiguration]) -> list[str]:
    if not model.deep_supervision:
        return ["There was no deep supervision."]
    found = []
    for name, one in trained.items():
        text = ", ".join(f"{weight:.3g}" for weight in one.deep_supervision_weights)
        source = f"plan.json: configurations.{name}.deep_supervision_weights"
        found.append(f"Decoder stages were supervised with weights {sourced(text, source)}.")
    return found


def _beginning(model: Model) -> list[str]:
    found = []
    if model.start is not None:
        found.append(
            f"Training started from the model that {model.start.method} made in another run; "
            "tensors of other names or shapes were random."
        )
    else:
        found.append(
            f"Convolutions were drawn as in {cite('he2015')}; all sites started from the same "
            "weights."
        )
    if model.first_stage is not None:
        found.append(
            "As the second stage of a cascade it also saw the labels that a run at lower "
            f"resolution predicted ({model.first_stage.method})."
        )
    return found
