"""What protects patients and sites in a run, as its configuration promises it."""

from collections.abc import Iterator

from common.config import RunConfig
from server.reporting.methods.told import of_config, plural
from server.reporting.references import cite


def privacy(config: RunConfig) -> list[str]:
    """Return the mechanisms of a run; what it let out stands in the privacy statement."""
    found = [*_patients(config), *_sums(config), *_sites(config)]
    return found or [
        (
            "Neither differential privacy nor secure aggregation was used: the coordinator saw the "
            "weights of every site after every round."
        )
    ]


def _patients(config: RunConfig) -> Iterator[str]:
    if config.privacy is None:
        return

    def of(key: str) -> str:
        return of_config(config, f"privacy.{key}")

    n_patches = config.privacy.patches_per_patient
    yield (
        f"Sites trained with patient-level differential privacy by DP-SGD {cite('abadi2016')}: "
        f"every step drew each patient of a site with probability {of('sampling_rate')}, cut the "
        f"mean gradient of the patient's {of('patches_per_patient')} "
        f"{'patch' if n_patches == 1 else 'patches'} to an L2 norm of "
        f"{of('clip_norm')}, and added normal noise to the sum."
    )
    if config.privacy.epsilon is not None:
        yield (
            f"The noise was calibrated so that the whole run, all methods and rounds, costs at "
            f"most epsilon = {of('epsilon')} at delta = {of('delta')}."
        )
    else:
        yield (
            f"The noise has a deviation of {of('noise_multiplier')} times that norm; delta is "
            f"{of('delta')}."
        )
    yield (
        "Two data sets are neighbours if one patient's images are replaced by nothing "
        f"{cite('kairouz2021')}; epsilon is the smaller of two upper bounds "
        f"{cite('mironov2019', 'gopi2021')}."
    )


def _sums(config: RunConfig) -> Iterator[str]:
    secure = config.federation.secure_aggregation
    if secure is None:
        return
    fewest = of_config(config, "federation.secure_aggregation.min_sites")
    share = "more than two thirds"
    if secure.agreeing_share is not None:
        share = (
            f"{of_config(config, 'federation.secure_aggregation.agreeing_share')} (as a fraction)"
        )
    yield (
        f"Updates were masked for each other by secure aggregation {cite('bonawitz2017')}: the "
        f"coordinator opened only sums of at least {fewest} {plural(secure.min_sites, 'site')}, "
        f"with the help of {share} of a round's sites."
    )


def _sites(config: RunConfig) -> Iterator[str]:
    if config.federation.site_privacy is None:
        return

    def of(key: str) -> str:
        return of_config(config, f"federation.site_privacy.{key}")

    yield (
        f"The coordinator cut every site's change to an L2 norm of {of('clip_norm')} and added "
        f"normal noise of {of('noise_multiplier')} times that norm to their sum, for site-level "
        f"differential privacy at delta = {of('delta')} {cite('mcmahan2018')}."
    )
