"""A proposal in plain words: what a person reads before saying yes or no."""

from client.proposals import Proposal
from client.site import SiteConfig
from common.codec import content_hash
from common.config import RunConfig

SHARING = {
    "local-statistics": "means and variances stay here; scales and shifts leave with the weights",
    "local": "means, variances, scales and shifts stay here",
    "shared": "means, variances, scales and shifts leave with the weights",
}
METRICS = {
    "none": "no metrics",
    "secure-sum": "sums of ranks and metrics, only in the sum of several held-out sites",
    "ranks": "sums of ranks over all cases, no metric",
    "aggregates": "sums of ranks, and means and quartiles over all cases",
    "cases": "Dice, HD95, sensitivity and specificity of every case, under a random number",
}
COUNTS = {
    "exact": "as they are",
    "coarse": "in bins of several cases",
    "secure-sum": "only in the sum of several sites",
}


def describe(site: SiteConfig, proposal: Proposal) -> tuple[str, ...]:
    """Return lines that say who asks for what, and what would leave the building.

    Args:
        site: that was asked; its policy, as it is now, decides about what leaves.
        proposal: what was asked.
    """
    config = proposal.config
    held_out = site.name in config.federation.held_out
    return (
        f"asked by: the coordinator, for the run {proposal.run}, {proposal.asked}",
        f"answer so far: {proposal.answer} {proposal.answered or ''}".rstrip(),
        (
            f"task: {proposal.task.name} version {proposal.task.version}, channels "
            f"{', '.join(proposal.task.channels)}, regions {', '.join(proposal.task.regions)}"
        ),
        *(_testing(config) if held_out else _training(config)),
        f"leaves the building: counts of the data set, {COUNTS[site.policy.fingerprint]}",
        *(_released_by_tests(site) if held_out else _released_by_training(site, config)),
        *(("privacy: nothing is trained here",) if held_out else privacy_words(config)),
        f"plan: {proposal.plan_hash}{_edited(proposal)}",
        f"hash of the task: {content_hash(proposal.task)}",
        f"hash of the configuration: {content_hash(config)}",
        f"hash to approve: {proposal.hash}",
    )


def privacy_words(config: RunConfig) -> tuple[str, ...]:
    """Return lines that say what a run promises to the patients of a training site."""
    privacy = config.privacy
    if privacy is None:
        return ("privacy: no differential privacy",)
    promise = (
        f"epsilon {privacy.epsilon:g} for the whole run, from which the noise follows"
        if privacy.epsilon is not None
        else f"noise {privacy.noise_multiplier:g} times what one patient can change, from which "
        "epsilon follows"
    )
    return (
        f"privacy: differential privacy of every patient, {promise}; delta {privacy.delta:g}",
        (
            f"privacy: each step draws every patient with probability {privacy.sampling_rate:g} "
            f"and clips each one's gradient to {privacy.clip_norm:g}; all steps of this site are "
            "charged to its own ledger first"
        ),
    )


def _edited(proposal: Proposal) -> str:
    return ", changed by a person at the coordinator" if proposal.edited else ""


def _testing(config: RunConfig) -> tuple[str, ...]:
    return (
        "part of this site: held out; nothing is trained, final models are tested here",
        f"methods: {', '.join(config.federation.methods)}",
    )


def _training(config: RunConfig) -> tuple[str, ...]:
    federation, model = config.federation, config.model
    steps = (
        f"{federation.local_steps} steps"
        if federation.local_steps is not None
        else f"{federation.local_epochs:g} epochs"
    )
    sharing = SHARING[model.batch_norm] if model.norm == "batch" else f"none: {model.norm} norm"
    return (
        "part of this site: trains on its own cases",
        f"methods: {', '.join(federation.methods)}",
        f"rounds: up to {federation.rounds} of every method, {steps} of this site in each",
        f"network: {model.architecture}, {model.configuration}{_part(config)}",
        f"batch norm: {sharing}",
    )


def _part(config: RunConfig) -> str:
    few = config.training.trained == "biases-and-norms"
    return "; only its biases, norms and heads are trained" if few else ""


def _released_by_training(site: SiteConfig, config: RunConfig) -> tuple[str, ...]:
    means = "the mean Dice over validation cases" if site.policy.validation_means else "no Dice"
    loss = "no loss" if config.privacy is not None else "the mean loss"
    return (
        (
            f"leaves the building: after every round the weights ({config.federation.upload}), the "
            f"number of cases, {loss}, the time that it took, and {means}"
            f"{_without_noise(config)}"
        ),
    )


def _without_noise(config: RunConfig) -> str:
    return "; only the weights have noise" if config.privacy is not None else ""


def _released_by_tests(site: SiteConfig) -> tuple[str, ...]:
    pictures = "pictures of three cases" if site.policy.pictures else "no pictures"
    return (
        f"leaves the building: of every final model {METRICS[site.policy.metrics]}",
        f"leaves the building: {pictures}",
    )
