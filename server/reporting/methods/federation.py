"""The rounds of a run and the methods that aggregated them, each with its paper."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from common.config import RunConfig
from common.federation import Federation, MethodName
from server.reporting.methods.told import of_config, percent_of_config, plural
from server.reporting.references import cite
from server.reporting.report_data import METHOD_LABELS

Setting: TypeAlias = Callable[[str], str]
"""From a key under `[federation]` to its number, ready for a sentence."""

WEIGHTINGS = {
    "cases": "its number of training cases",
    "steps": "its number of optimisation steps",
    "uniform": "one",
}
UPLOADS = {
    "float16": "as changes in 16-bit floating-point numbers",
    "bfloat16": "as changes in bfloat16 numbers",
    "int8": "as changes in 8-bit whole numbers",
}
COUNT_ONCE: tuple[MethodName, ...] = (
    "feddyn",
    "median",
    "trimmed-mean",
    "krum",
    "multi-krum",
    "bulyan",
    "trust",
    "cyclic",
    "incremental",
    "local-only",
)
"""Methods to which it does not matter what a site counts."""

ROBUST: dict[str, tuple[str, str]] = {
    "trimmed-mean": ("the mean of every weight without its extremes", "yin2018"),
    "krum": ("the one update nearest to most others", "blanchard2017"),
    "multi-krum": ("the mean of the updates nearest to most others", "blanchard2017"),
    "bulyan": ("Krum's choice, then a trimmed mean of every weight", "elmhamdi2018"),
}


def rounds(config: RunConfig) -> list[str]:
    """Return how long the federation trained, and what a round asked for."""
    federation = config.federation
    n_methods = len(federation.methods)
    length = (
        f"{of_config(config, 'federation.local_steps')} optimisation steps"
        if federation.local_steps is not None
        else f"{of_config(config, 'federation.local_epochs')} epochs of its own cases"
    )
    each = "each method had" if n_methods > 1 else "there were"
    n_rounds = of_config(config, "federation.rounds")
    return [
        (
            f"With the seed {of_config(config, 'federation.seed')}, {each} up to {n_rounds} "
            f"{plural(federation.rounds, 'round')}; in a round the coordinator sent the shared "
            f"weights, every site trained for {length} and returned its weights."
        ),
        *_asked(config, federation),
        *_sent(federation),
        *_final(config, federation),
    ]


def aggregation(config: RunConfig) -> list[str]:
    """Return how each method made the next weights, and what a site counts."""
    federation = config.federation
    found = [f"{METHOD_LABELS[name]}: {_method(config, name)}" for name in federation.methods]
    if any(name not in COUNT_ONCE for name in federation.methods):
        found.append(f"In a weighted mean a site counts {WEIGHTINGS[federation.weighting]}.")
    checked = "; every update was checked for shape, finite values and size before it counted"
    found.append(
        "Sums were exact, so that the order of the replies changed no bit of the result"
        f"{checked if federation.secure_aggregation is None else ''}."
    )
    return found


def _method(config: RunConfig, name: MethodName) -> str:
    """Return one method's rule as a sentence."""

    def of(key: str) -> str:
        return of_config(config, f"federation.{key}")

    server = {
        "fedavgm": ("momentum", "hsu2019"),
        "fedadagrad": ("Adagrad", "reddi2021"),
        "fedadam": ("Adam", "reddi2021"),
        "fedyogi": ("Yogi", "reddi2021"),
    }
    if name in server:
        rule, paper = server[name]
        rate, beta1 = of("server_optimizer.learning_rate"), of("server_optimizer.beta1")
        rest = ""
        if name != "fedavgm":
            beta2, tau = of("server_optimizer.beta2"), of("server_optimizer.tau")
            rest = f", beta2 {beta2}, tau {tau}"
        return (
            f"the coordinator followed the mean change by {rule} with learning rate {rate}, "
            f"beta1 {beta1}{rest} {cite(paper)}."
        )
    sentences: dict[MethodName, str] = {
        "fedavg": f"the weighted mean of the sites' weights {cite('mcmahan2017')}.",
        "median": f"the median over sites of every weight {cite('yin2018')}.",
        "ida": f"weights by the inverse distance from the mean {cite('yeganeh2020')}.",
        "dwa": f"weights by how slowly a site's loss falls {cite('liu2019')}.",
        "cyclic": f"one site after the other trained the same weights {cite('sheller2018')}.",
        "incremental": f"each site trained once, in turn {cite('sheller2018')}.",
        "local-only": "every site trained its own model from the same start; nothing was "
        "combined, and the mean over these models of every case's metric was scored.",
    }
    return sentences.get(name) or _with_setting(name, of)


def _with_setting(name: MethodName, of: Setting) -> str:
    """Return the rule of a method that has a number of its own."""
    match name:
        case "fedprox":
            return (
                "the mean of FedAvg, with mu / 2 times the squared distance from the received "
                f"weights in every site's loss, mu = {of('proximal_mu')} {cite('li2020')}."
            )
        case "feddyn":
            alpha = of("dynamic_alpha")
            return f"dynamic regularisation with alpha = {alpha} {cite('acar2021')}."
        case "trust":
            return (
                "updates were rescaled to the root site's and weighted by the cosine to it "
                f"{cite('cao2021')}."
            )
        case "partial-sharing":
            share = of("withheld_fraction")
            return f"every site withheld the smallest {share} of its change {cite('shokri2015')}."
        case _:
            rule, paper = ROBUST[name]
            return f"{rule}, against up to {of('n_faulty')} faulty sites {cite(paper)}."


def _asked(config: RunConfig, federation: Federation) -> Iterator[str]:
    if federation.sites_per_round is not None:
        drawn = of_config(config, "federation.sites_per_round")
        yield f"Of the training sites {drawn} were drawn for every round."
    fewest = of_config(config, "federation.min_sites")
    share = (
        f" and of sites with {percent_of_config(config, 'federation.min_case_share')} of the cases"
        if federation.min_case_share is not None
        else ""
    )
    hours = of_config(config, "federation.round_timeout_s")
    yield (
        f"A round counted with good updates of at least {fewest} "
        f"{plural(federation.min_sites, 'site')}{share}, within {hours} s."
    )
    if federation.late_rounds:
        late = of_config(config, "federation.late_rounds")
        yield f"An update up to {late} rounds late counted in the round in which it came."
    if federation.exclude_after is not None:
        failed = of_config(config, "federation.exclude_after")
        yield f"A site was given up after {failed} failed rounds in a row."
    if federation.max_norm_ratio is not None:
        ratio = of_config(config, "federation.max_norm_ratio")
        yield f"An update {ratio} times as long as the median before it was refused."


def _sent(federation: Federation) -> Iterator[str]:
    if federation.upload != "float32":
        yield (
            f"Sites sent what they learned {UPLOADS[federation.upload]}; what rounding took away "
            f"went along in the next round {cite('seide2014', 'karimireddy2019')}."
        )


def _final(config: RunConfig, federation: Federation) -> Iterator[str]:
    if federation.early_stop is not None:
        patience = of_config(config, "federation.early_stop.patience_rounds")
        least = of_config(config, "federation.early_stop.min_improvement")
        yield (
            "A method's rounds ended when the mean validation Dice had not risen by "
            f"{least} for {patience} rounds."
        )
    if federation.final_model == "last":
        yield "The weights after the last round were tested."
    elif federation.final_model == "best":
        yield "The weights of the round with the highest mean validation Dice were tested."
    else:
        decay = of_config(config, "federation.average_decay")
        yield (
            f"The exponential moving average over rounds, decay {decay}, was tested "
            f"{cite('tarvainen2017')}."
        )
    if federation.retries:
        n_times = of_config(config, "federation.retries")
        times = plural(federation.retries, "time")
        yield f"A site whose process died was asked again up to {n_times} {times} in a round."
