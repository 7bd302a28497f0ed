"""What a site minimised and how: loss, optimiser, learning rate, local steps."""

from common.config import RunConfig
from common.losses import CrossEntropy, Dice, Focal, FocalTversky, LossTerm, TopK, Tversky
from common.schedules import Constant, Cosine, Plateau, Poly, Schedule, Steps
from server.reporting.methods.told import listed, of_config, of_program, percent_of_config
from server.reporting.references import cite
from server.reporting.sources import sourced


def loss(config: RunConfig) -> list[str]:
    """Return what was minimised."""
    terms = [_term(config, term, place) for place, term in enumerate(config.training.loss)]
    sum_of = "the sum of " if len(terms) > 1 else ""
    found = [f"The loss was {sum_of}{listed(terms)}."]
    if any(term.class_weights for term in config.training.loss):
        weights = "; ".join(
            sourced(
                ", ".join(f"{w:g}" for w in term.class_weights),
                f"config.toml: training.loss.{place}.class_weights",
            )
            for place, term in enumerate(config.training.loss)
            if term.class_weights
        )
        found.append(f"Outputs were weighted by {weights}.")
    return found


def optimiser(config: RunConfig) -> list[str]:
    """Return how weights followed gradients."""
    training = config.training
    rate = of_config(config, "training.learning_rate")
    momentum = of_config(config, "training.momentum")
    decay = of_config(config, "training.weight_decay")
    if training.optimizer == "sgd":
        kind = f"stochastic gradient descent with Nesterov momentum {momentum}"
        paper = "sutskever2013"
    else:
        second = of_program("0.999", "client.training.optimise, SECOND_BETA")
        name = "Adam" if training.optimizer == "adam" else "AdamW"
        kind = f"{name} with betas {momentum} and {second}"
        paper = "kingma2015" if training.optimizer == "adam" else "loshchilov2019"
    state = (
        "started afresh in every round"
        if training.optimizer_state == "reset"
        else "went on from a site's last round"
    )
    found = [
        (
            f"Sites trained by {kind} {cite(paper)}, learning rate {rate}, weight decay {decay} "
            f"and gradients cut to a norm of {of_config(config, 'training.gradient_clip_norm')}; "
            f"the optimiser's state {state}."
        ),
        _schedule(config, training.schedule),
    ]
    if training.validation_fraction > 0:
        share = percent_of_config(config, "training.validation_fraction")
        found.append(f"Every site kept {share} of its cases, at least one, for validation.")
    if training.trained == "biases-and-norms":
        found.append(
            "Only biases, scales and shifts of norms, and the output layers were trained "
            f"{cite('bu2022')}."
        )
    return found


def _term(config: RunConfig, term: LossTerm, place: int) -> str:
    key = f"training.loss.{place}"

    def of(name: str) -> str:
        return of_config(config, f"{key}.{name}")

    match term:
        case CrossEntropy():
            words = f"cross-entropy {cite('isensee2021')}"
        case Dice():
            words = f"soft Dice {cite('milletari2016', 'isensee2021')}"
        case TopK():
            words = f"cross-entropy of the worst {of('percent')} % of voxels {cite('wu2016')}"
        case Focal():
            words = f"the focal loss with gamma {of('gamma')} {cite('lin2017')}"
        case Tversky():
            words = f"the Tversky loss with alpha {of('alpha')} and beta {of('beta')} "
            words += cite("salehi2017")
        case FocalTversky():
            words = f"the focal Tversky loss with alpha {of('alpha')}, beta {of('beta')} and "
            words += f"gamma {of('gamma')} {cite('abraham2019')}"
    return words if term.weight == 1 else f"{of('weight')} times {words}"


def _schedule(config: RunConfig, schedule: Schedule) -> str:
    def of(name: str) -> str:
        return of_config(config, f"training.schedule.{name}")

    match schedule:
        case Constant():
            return "The learning rate stayed the same."
        case Poly():
            return (
                "The learning rate fell over the steps of all rounds as (1 - t) to the power of "
                f"{of('power')}, with t the fraction of steps done {cite('isensee2021')}."
            )
        case Cosine():
            up = percent_of_config(config, "training.schedule.warmup")
            left = percent_of_config(config, "training.schedule.final")
            return (
                f"The learning rate rose over the first {up} of all steps and fell along half a "
                f"cosine to {left} of its value {cite('loshchilov2017')}."
            )
        case Steps():
            points = ", ".join(f"{100 * point:g} %" for point in schedule.at)
            at = sourced(points, "config.toml: training.schedule.at")
            return f"The learning rate was multiplied by {of('factor')} after {at} of all steps."
        case Plateau():
            return (
                f"The learning rate was multiplied by {of('factor')} whenever the mean training "
                f"loss over sites had not fallen by {of('min_improvement')} for "
                f"{of('patience_rounds')} rounds, down to {of('floor')} of its value."
            )
