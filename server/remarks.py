"""What a reader of the report should know about a configuration that is allowed as it is."""

from collections.abc import Iterator

from common.config import RunConfig
from common.federation import Federation
from server.strategies.partial_sharing import PUBLISHED_FRACTION

COUNT_SITES_ONCE = frozenset(
    {"median", "trimmed-mean", "krum", "multi-krum", "bulyan", "trust", "feddyn", "local-only"}
    | {"cyclic", "incremental"}  # one site in a round
)


def remarks(config: RunConfig) -> Iterator[str]:
    """Yield sentences about settings without effect, or outside what was published."""
    model, federation = config.model, config.federation
    if model.norm != "batch":
        yield f"batch_norm = {model.batch_norm!r} has no effect: norm is {model.norm}"
    if config.privacy is not None:
        yield (
            "privacy: overlap losses are of every patch, also where the plan has batch_dice; steps "
            "draw patients and not the plan's batches, and no two runs give the same weights"
        )
    yield from _weighting(federation)
    if "trust" in federation.methods and federation.local_epochs is not None:
        yield (
            "local_epochs: a root site with few cases takes few steps, and the method trust "
            "rescales every update to its norm"
        )
    withheld = federation.withheld_fraction
    if "partial-sharing" in federation.methods and withheld and withheld > PUBLISHED_FRACTION:
        yield (
            f"withheld_fraction = {withheld:g} is outside the published range of partial sharing, "
            f"0 to {PUBLISHED_FRACTION:g}"
        )


def _weighting(federation: Federation) -> Iterator[str]:
    without = [method for method in federation.methods if method in COUNT_SITES_ONCE]
    if federation.weighting != "cases" and without:
        yield (
            f"weighting = {federation.weighting!r} has no effect on {', '.join(without)}: "
            "every site counts once, or alone"
        )
