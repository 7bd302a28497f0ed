"""How a federation learns: who, how often, by which methods, and what a round asks for.

The section `[federation]` of a run's configuration; `common.config` holds the others.
"""

import math
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import StringConstraints, model_validator

from common.codec import record
from common.privacy.site_level import PLAIN_MEAN, SiteLevelPrivacy
from common.secure_aggregation import LOOKS_AT_SINGLE_UPDATES, SecureAggregation

MethodName = Literal[
    "fedavg",
    "fedprox",
    "feddyn",
    "fedavgm",
    "fedadagrad",
    "fedadam",
    "fedyogi",
    "ida",
    "dwa",
    "median",
    "trimmed-mean",
    "krum",
    "multi-krum",
    "bulyan",
    "trust",
    "partial-sharing",
    "cyclic",
    "incremental",
    "local-only",
]
"""Each has a file of its own in `server.strategies`, with its paper."""
Weighting = Literal["cases", "steps", "uniform"]
Upload = Literal["float32", "float16", "bfloat16", "int8"]
"""`common.transport` says what becomes of the digits."""

SiteName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""Names become parts of file names."""


@record
class EarlyStop:
    """When a method's rounds end before their time, by the sites' mean validation Dice."""

    patience_rounds: Annotated[int, Ge(1)]
    """Rounds without an improvement."""
    min_improvement: Annotated[float, Ge(0)] = 0.001
    """Of the mean Dice over sites and regions; less is none."""


@record
class ServerOptimizer:
    """How the coordinator follows the mean update: FedAvgM, FedAdagrad, FedAdam, FedYogi."""

    learning_rate: Annotated[float, Gt(0)]
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9  # Reddi et al. 2021
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.99  # Reddi et al. 2021
    tau: Annotated[float, Gt(0)] = 0.001  # Reddi et al. 2021: how adaptive it is


@record
class Federation:
    """Who learns together, how often, and with which methods."""

    seed: Annotated[int, Ge(0), Lt(2**32)]
    methods: Annotated[tuple[MethodName, ...], MinLen(1)]
    rounds: Annotated[int, Ge(1)]
    held_out: tuple[SiteName, ...]
    """Sites that never train; the final models are tested and ranked there."""
    min_sites: Annotated[int, Ge(1)]
    """Fewest training sites whose updates must arrive for a round to count."""
    local_steps: Annotated[int, Ge(1)] | None = None
    """Optimisation steps of every site in every round; this or `local_epochs`."""
    local_epochs: Annotated[float, Gt(0)] | None = None
    """Epochs of every site in every round: one draws as many patches as the site has cases for
    training, so that larger sites take more steps."""
    early_stop: EarlyStop | None = None
    """None trains for all rounds; sites that release no validation Dice have no say."""
    final_model: Literal["last", "best", "average"] = "last"
    """Which weights are tested: the last round's, those of the round of the highest mean
    validation Dice over sites and regions, or the exponential moving average over rounds."""
    average_decay: Annotated[float, Gt(0), Lt(1)] | None = None
    """Of that average: what is left of a round's share after the next one."""
    weighting: Weighting = "cases"
    """What a site counts in a mean: its training cases (FedAvg), its optimisation steps, or 1; no
    matter to methods that count every site once."""
    proximal_mu: Annotated[float, Gt(0)] | None = None
    """FedProx: weight of the proximal term (Li et al. 2020); required if it is a method."""
    dynamic_alpha: Annotated[float, Gt(0)] | None = None
    """FedDyn: weight of the dynamic regularisation (Acar et al. 2021; 0.01 to 0.1 there)."""
    server_optimizer: ServerOptimizer | None = None
    """Required by the methods that have one."""
    n_faulty: Annotated[int, Ge(0)] | None = None
    """Of trimmed-mean, krum, multi-krum and bulyan: how many faulty sites they withstand."""
    root_site: SiteName | None = None
    """Of trust: the training site of the coordinator's own, whose data are known to be clean."""
    withheld_fraction: Annotated[float, Ge(0), Lt(1)] | None = None
    """Of partial-sharing: share of its update that a site does not send; published are 0 to 0.4."""
    round_timeout_s: Annotated[float, Gt(0)] = 24 * 3600.0
    """A site that has not answered by then is left out of the round."""
    min_case_share: Annotated[float, Gt(0), Le(1)] | None = None
    """Least share of the cases of the sites asked that good updates must stand for; without it
    only `min_sites` decides."""
    sites_per_round: Annotated[int, Ge(1)] | None = None
    """How many training sites are drawn for every round; all without it."""
    retries: Annotated[int, Ge(0), Le(10)] = 1
    """How often a site whose process died is asked again within the round."""
    late_rounds: Annotated[int, Ge(0), Le(10)] = 0
    """How many rounds late an update may come and still count, in the round in which it comes;
    until then its site is not asked again. At 0 late updates are logged and dropped."""
    exclude_after: Annotated[int, Ge(1)] | None = None
    """Failed rounds in a row after which a site is no longer asked; never without it."""
    max_norm_ratio: Annotated[float, Gt(1)] | None = None
    """An update whose norm is so many times the median of the rounds before is refused."""
    upload: Upload = "float32"
    """How sites send what they learned: whole weights, or the change in fewer bytes."""
    secure_aggregation: SecureAggregation | None = None
    """Whether the coordinator sees only the sum of a round's updates; it sees each if absent."""
    site_privacy: SiteLevelPrivacy | None = None
    """Site-level differential privacy by noise at the coordinator; none if absent."""
    join_timeout_s: Annotated[float, Gt(0)] = 24 * 3600.0
    """How long the coordinator waits for the sites to connect."""

    @model_validator(mode="after")
    def _one_length(self) -> "Federation":
        if (self.local_steps is None) == (self.local_epochs is None):
            found = "neither" if self.local_steps is None else "both"
            raise ValueError(f"expected exactly one of local_steps and local_epochs, found {found}")
        if self.sites_per_round is not None and self.sites_per_round < self.min_sites:
            raise ValueError(
                f"sites_per_round: expected at least min_sites = {self.min_sites}, "
                f"found {self.sites_per_round}"
            )
        return self

    def counted(self, n_cases: int, n_steps: int) -> int:
        """Return how often an update of a site with so many cases and steps counts in a mean."""
        if self.weighting == "uniform":
            return 1
        if self.weighting == "cases":
            return n_cases
        return n_steps if self.local_steps is None else 1  # all take as many

    def steps_per_round(self, n_cases: int, batch_size: int) -> int:
        """Return the optimisation steps of a site with so many training cases, at least 1."""
        if self.local_epochs is None:
            return self.local_steps or 1
        return max(1, math.ceil(self.local_epochs * n_cases / batch_size))


NEEDED: dict[MethodName, str] = {
    "fedprox": "proximal_mu",
    "feddyn": "dynamic_alpha",
    **dict.fromkeys(("fedavgm", "fedadagrad", "fedadam", "fedyogi"), "server_optimizer"),
    **dict.fromkeys(("trimmed-mean", "krum", "multi-krum", "bulyan"), "n_faulty"),
    "trust": "root_site",
    "partial-sharing": "withheld_fraction",
}
"""What a method cannot do without."""
FEWEST: dict[MethodName, tuple[int, int]] = {  # updates per faulty site, and besides
    "trimmed-mean": (2, 1),  # Yin et al. 2018
    "krum": (2, 3),  # Blanchard et al. 2017
    "multi-krum": (2, 3),
    "bulyan": (4, 3),  # El Mhamdi et al. 2018
}


def fewest_sites(method: MethodName, n_faulty: int) -> int:
    """Return how many updates a method's promise needs; without faulty sites there is none."""
    per_faulty, besides = FEWEST.get(method, (0, 1))
    return per_faulty * n_faulty + besides if n_faulty else 1


def withstood(method: MethodName, n_faulty: int, n_updates: int) -> int:
    """Return how many faulty updates a method withstands among so many, at most `n_faulty`.

    Fewer arrive than the promise needs when faulty ones were refused before; so many less can be
    among the others (`server.participation.require_quorum` sees to it that they were refused).
    """
    able = (n for n in range(n_faulty, 0, -1) if fewest_sites(method, n) <= n_updates)
    return next(able, 0)


def unsummable(federation: Federation) -> list[str]:
    """Return what a federation wants that the sum of a round's updates cannot give."""
    secure = federation.secure_aggregation
    if secure is None:
        return []
    found = [
        f"federation.methods: {method} {LOOKS_AT_SINGLE_UPDATES[method]}, which secure_aggregation "
        "lets nobody see"
        for method in federation.methods
        if method in LOOKS_AT_SINGLE_UPDATES
    ]
    wrong = {
        "federation.upload: expected 'float32' with secure_aggregation, which sends whole numbers "
        f"of its own, found {federation.upload!r}": federation.upload != "float32",
        "federation.max_norm_ratio: expected none with secure_aggregation, for nobody sees the "
        "norm of an update": federation.max_norm_ratio is not None,
        "federation.late_rounds: expected 0 with secure_aggregation, for a late update has the "
        f"masks of its own round, found {federation.late_rounds}": federation.late_rounds > 0,
        f"federation.min_sites: expected at least {secure.min_sites}, the fewest of which "
        f"secure_aggregation opens a sum, found {federation.min_sites}": federation.min_sites
        < secure.min_sites,
    }
    return [*found, *(line for line, is_wrong in wrong.items() if is_wrong)]


def lacking(federation: Federation) -> list[str]:
    """Return what the methods of a run need and do not have."""
    found = [
        f"federation.{NEEDED[method]}: missing; the method {method} needs it"
        for method in federation.methods
        if method in NEEDED and getattr(federation, NEEDED[method]) is None
    ]
    if (federation.final_model == "average") != (federation.average_decay is not None):
        found.append("federation.average_decay: expected with final_model = 'average', and only so")
    if "partial-sharing" in federation.methods and federation.upload != "float32":
        found.append(
            "federation.upload: expected 'float32' with partial-sharing, whose sites send values "
            f"and not changes, found {federation.upload!r}"
        )
    found += _unprotected(federation)
    if federation.root_site in federation.held_out:
        found.append(
            "federation.root_site: expected a site that trains, "
            f"found {federation.root_site!r}, which is held out"
        )
    found += unsummable(federation)
    for method in federation.methods:
        n_faulty = federation.n_faulty or 0
        if federation.min_sites < (fewest := fewest_sites(method, n_faulty)):
            found.append(
                f"federation.min_sites: expected at least {fewest}, for {method} withstands "
                f"{n_faulty} faulty among so many, found {federation.min_sites}"
            )
    return found


def _unprotected(federation: Federation) -> list[str]:
    """Return what the promise of `site_privacy` would not hold for."""
    if federation.site_privacy is None:
        return []
    others = [method for method in federation.methods if method not in PLAIN_MEAN]
    found = [
        f"federation.methods: expected ones that use only the mean with site_privacy "
        f"({', '.join(PLAIN_MEAN)}), found {method}"
        for method in others
    ]
    if federation.secure_aggregation is not None:
        found.append(
            "federation.site_privacy: expected none with secure_aggregation, for an update that "
            "nobody sees cannot be clipped"
        )
    if federation.weighting != "uniform":
        found.append(
            "federation.weighting: expected 'uniform' with site_privacy, so that no site counts "
            f"more than another, found {federation.weighting!r}"
        )
    return found
