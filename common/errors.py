"""One root error; its children say what the reader must do.

A message names what is wrong, where, what was expected and what was found. The command line
turns an error into one clear line per defect and the class's ``exit_code``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal


class ConsiliumError(Exception):
    """Root of all errors that Consilium raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(ConsiliumError):
    """Fix the configuration, the command line or a file that you wrote."""

    exit_code = 2


class DiskError(ConfigError):
    """Free disk space, or choose a folder that can be written."""


class PolicyError(ConsiliumError):
    """A site's policy, or its privacy, forbids what was asked; nothing was released."""

    exit_code = 2

    def __init__(self, message: str, rule: str | None = None) -> None:
        """Keep the name of the rule, which the coordinator may know, beside the text."""
        super().__init__(message)
        self.rule = rule


class MessageError(ConsiliumError):
    """The other side sent something that does not fit; it was not used."""


class FederationError(ConsiliumError):
    """The federation cannot go on: too few sites answered, or nothing was learned."""


@dataclass(frozen=True)
class Defect:
    """One thing that is wrong with a case. Stays at the site: file names may identify people."""

    case: str
    file: str
    expected: str
    found: str

    def __str__(self) -> str:
        """Return the one-line form that a person reads."""
        return f"{self.case}: {self.file}: expected {self.expected}, found {self.found}"


class DataError(ConsiliumError):
    """Fix the data; carries every defect of every case, not only the first."""

    exit_code = 2

    def __init__(self, summary: str, defects: Sequence[Defect] = ()) -> None:
        """Keep the defects beside the summary line."""
        super().__init__("\n".join([summary, *map(str, defects)]))
        self.summary = summary
        self.defects = tuple(defects)


ErrorCode = Literal[
    "data",
    "disk",
    "config",
    "policy",
    "policy:task",
    "policy:plan",
    "policy:config",
    "policy:approval",
    "policy:epochs",
    "policy:hours",
    "policy:privacy",
    "policy:metrics",
    "policy:cases",
    "policy:action",
    "policy:bundle",
    "policy:size",
    "message",
    "out-of-memory",
    "internal",
]
"""All that a site says about an error; the text stays in the site's own log.

``policy:`` names the rule that forbids what was asked; "policy:approval" waits for a person there.
"""
