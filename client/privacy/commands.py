"""The command `consilium privacy`: a ledger, opening one, and noise for a target."""

import json
from pathlib import Path
from typing import Annotated

import typer

from common.codec import encode
from common.errors import ConfigError
from common.files import demand_writable, write_atomically

TARGETS = (1.0, 2.0, 4.0, 8.0)  # epsilons of the table


def privacy(
    path: Annotated[
        Path | None,
        typer.Argument(help="A site's privacy ledger, or a run's configuration (.toml)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw epsilon over steps as SVG.", dir_okay=False),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that no line of the ledger is missing.")
    ] = False,
    open_: Annotated[
        bool, typer.Option("--open", help="Give the data set a budget; a person decides this.")
    ] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Find the noise that keeps a target.")
    ] = False,
    epsilon: Annotated[float | None, typer.Option(help="Budget, or target, of epsilon.")] = None,
    delta: Annotated[float | None, typer.Option(help="At most 1 / number of patients.")] = None,
    data_set: Annotated[str | None, typer.Option(help="A name of the data set.")] = None,
    reason: Annotated[
        str | None, typer.Option(help="Why a ledger that is open gets another budget.")
    ] = None,
    sampling_rate: Annotated[
        float | None, typer.Option(help="Probability with which a step draws a patient.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the whole run.")] = None,
) -> None:
    """Show what training has cost the patients of a data set, and what is left."""
    if calibrate:
        _calibrate(_given("--epsilon", epsilon), delta, sampling_rate, steps, as_json=as_json)
    elif path is None:
        raise ConfigError("expected a ledger or a configuration, or --calibrate, found neither")
    elif open_:
        _open(path, _given("--epsilon", epsilon), _given("--delta", delta), data_set, reason)
    elif path.suffix == ".toml":
        _of_config(path, as_json=as_json)
    else:
        _show(path, plot, as_json=as_json, verify=verify)


def _show(path: Path, plot: Path | None, *, as_json: bool, verify: bool) -> None:
    from client.privacy.ledger import load_account
    from client.privacy.words import lines_of, spending, summary_of

    if plot:
        demand_writable(plot)
    account = load_account(path)
    summary = summary_of(account)
    typer.echo(json.dumps(encode(summary), indent=1) if as_json else "\n".join(lines_of(summary)))
    if verify and not as_json:
        last = account.entries[-1].hash if account.entries else ""
        n_entries = len(account.entries)
        typer.echo(f"{path}: {n_entries} entries, none changed or missing; last hash {last}")
    if plot:
        from client.privacy.plot import epsilon_svg  # draws with matplotlib

        if summary.epsilon is None or summary.delta is None or summary.spent is None:
            raise ConfigError(f"{path}: expected a ledger with a bound to draw, found none")
        points = spending(account)
        write_atomically(plot, epsilon_svg(points, summary.epsilon, summary.delta).encode())


def _open(
    path: Path, epsilon: float, delta: float, data_set: str | None, reason: str | None
) -> None:
    from client.privacy.ledger import open_ledger

    _within("--epsilon", epsilon, 0.0, float("inf"))
    _within("--delta", delta, 0.0, 1.0)
    if path.suffix == ".toml":
        raise ConfigError(f"{path}: expected the name of a ledger, such as privacy.jsonl")
    open_ledger(path, epsilon, delta, data_set=data_set, reason=reason)
    typer.echo(
        f"{path}: budget epsilon {epsilon:g} at delta {delta:g}; sites with up to "
        f"{int(1 / delta + 1e-9)} patients train with it"
    )


def _calibrate(
    epsilon: float,
    delta: float | None,
    sampling_rate: float | None,
    steps: int | None,
    *,
    as_json: bool,
) -> None:
    from common.privacy.accounting import noise_for

    _within("--epsilon", epsilon, 0.0, float("inf"))
    delta = _within("--delta", _given("--delta", delta), 0.0, 1.0)
    rate = _given("--sampling-rate", sampling_rate)
    if rate != 1.0:
        _within("--sampling-rate", rate, 0.0, 1.0)
    if steps is None:
        raise ConfigError("--steps: missing; --calibrate needs it")
    wanted = sorted({*TARGETS, epsilon})
    noises = {target: noise_for(target, delta, rate, steps) for target in wanted}
    _tell(noises, epsilon, f"{steps} steps, sampling rate {rate:g}, delta {delta:g}", as_json)


def _of_config(path: Path, *, as_json: bool) -> None:
    from common.codec import read_toml
    from common.config import RunConfig
    from common.privacy.accounting import noise_for
    from common.privacy.run_cost import allowed_steps, noise_of, privacy_of, promised_epsilon

    config = read_toml(RunConfig, path)
    privacy, n_steps = privacy_of(config), allowed_steps(config)
    promised, rate = promised_epsilon(config), privacy.sampling_rate
    noises = {
        target: noise_for(target, privacy.delta, rate, n_steps)
        for target in TARGETS
        if target != promised
    }
    noises[promised] = noise_of(config)
    what = (
        f"{n_steps} steps (with some to spare for rounds that are repeated), sampling rate "
        f"{rate:g}, delta {privacy.delta:g}"
    )
    _tell(dict(sorted(noises.items())), promised, what, as_json)


def _tell(noises: dict[float, float], epsilon: float, what: str, as_json: bool) -> None:
    if as_json:
        table = [{"epsilon": e, "noise_multiplier": noise} for e, noise in noises.items()]
        found = {"epsilon": epsilon, "noise_multiplier": noises[epsilon], "table": table}
        typer.echo(json.dumps(found, indent=1))
        return
    typer.echo(f"noise multiplier {noises[epsilon]:g} for epsilon {epsilon:.4g}: {what}")
    typer.echo("epsilon  noise multiplier")
    for target, noise in noises.items():
        typer.echo(f"{target:7.4g}  {noise:g}")


def _given(name: str, value: float | None) -> float:
    if value is None:
        raise ConfigError(f"{name}: missing")
    return value


def _within(name: str, value: float, low: float, high: float) -> float:
    if not low < value < high:
        raise ConfigError(
            f"{name}: expected a number above {low:g} and below {high:g}, found {value:g}"
        )
    return value
