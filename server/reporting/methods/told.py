"""Numbers of the run directory's files as sentences print them, each with its source."""

from collections.abc import Mapping, Sequence

from common.config import RunConfig
from common.planning.plan import AnyConfiguration, Plan
from server.reporting.sources import sourced

TIMES = " \N{MULTIPLICATION SIGN} "


def value_at(record: object, key: str) -> object:
    """Return what stands at a path of names within records, mappings and sequences."""
    for name in key.split("."):
        if isinstance(record, Mapping):
            record = record[name]
        elif isinstance(record, Sequence):
            record = record[int(name)]
        else:
            record = getattr(record, name)
    return record


def number_text(value: object) -> str:
    """Return a number, or several along axes, as a sentence prints them."""
    if isinstance(value, tuple):
        return TIMES.join(map(number_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def listed_numbers(values: Sequence[float]) -> str:
    """Return numbers with three digits, as a list."""
    return ", ".join(f"{value:.3g}" for value in values)


def of_config(config: RunConfig, key: str) -> str:
    """Return a value of the configuration."""
    return sourced(number_text(value_at(config, key)), f"config.toml: {key}")


def percent_of_config(config: RunConfig, key: str) -> str:
    """Return a fraction of the configuration as a percentage."""
    return sourced(percent(value_at(config, key)), f"config.toml: {key}")


def of_plan(plan: Plan, key: str) -> str:
    """Return a value of the plan that all configurations share."""
    return sourced(number_text(value_at(plan, key)), f"plan.json: {key}")


def of_configuration(name: str, configuration: AnyConfiguration, key: str) -> str:
    """Return a value of one of the plan's configurations."""
    value = value_at(configuration, key)
    return sourced(number_text(value), f"plan.json: configurations.{name}.{key}")


def of_program(value: object, name: str) -> str:
    """Return a number that stands in this package, and not in the run directory."""
    return sourced(number_text(value), f"program: {name}")


def percent(fraction: object) -> str:
    """Return a fraction as a percentage."""
    return f"{100 * float(str(fraction)):g} %"


def plural(n: int, word: str) -> str:
    """Return a word for so many things."""
    return word if n == 1 else f"{word}s"


def listed(items: Sequence[str]) -> str:
    """Return items as a sentence lists them; empty for none."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
