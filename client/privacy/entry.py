"""One line of the privacy ledger: something that was done to the patients of a data set."""

from typing import Annotated

from annotated_types import Ge, Gt
from pydantic import TypeAdapter

from client.chain.appending import now
from client.chain.line import NOTHING, RECOVERED, Format, Torn
from common.codec import record
from common.privacy.mechanism import NoisySteps
from common.privacy.settings import Delta, Epsilon
from common.secure_sum import Key

OPENED = "opened"
"""A person gave a budget, or another one."""
NOISY_STEPS = "noisy-steps"
"""Steps with noise; written before they are done."""
RELEASED = "released"
"""Something left the site without noise."""
WITHOUT_PRIVACY = "trained-without-privacy"
"""Weights left the site that were trained on these patients without noise."""
KINDS = (OPENED, NOISY_STEPS, RELEASED, WITHOUT_PRIVACY, RECOVERED)
"""All that can be accounted for; every other kind of line costs infinity."""


@record
class Entry:
    """What was done. Stays at the site."""

    n: Annotated[int, Ge(1)]
    """Number of the line, from 1; cut lines are not counted."""
    time: str
    """UTC."""
    kind: str
    """One of `KINDS`; what another version wrote can be read and is not understood."""
    run: str | None = None
    method: str | None = None
    round: int | None = None
    data_version: Key | None = None
    """Which patients and files took part (`client.privacy.data_version`)."""
    patients: Annotated[int, Ge(1)] | None = None
    steps: NoisySteps | None = None
    clip_norm: Annotated[float, Gt(0)] | None = None
    what: str | None = None
    """That left without noise, in words."""
    epsilon: Epsilon | None = None
    """Of the budget, at `delta`."""
    delta: Delta | None = None
    data_set: str | None = None
    """Name that a person gave it."""
    reason: str | None = None
    """Why a person changed the budget."""
    torn: Torn | None = None
    previous: Key = NOTHING
    """Hash of the line above."""
    hash: Key | None = None
    """Of this line, without this field."""

    @property
    def understood(self) -> bool:
        """Whether what this line costs is known."""
        if self.kind == OPENED:
            return self.epsilon is not None and self.delta is not None
        return self.kind in KINDS and (self.kind != NOISY_STEPS or self.steps is not None)


def new_entry(kind: str, **fields: object) -> Entry:
    """Return an entry of now; the ledger gives its number and hashes."""
    return Entry(n=1, time=now(), kind=kind, **fields)  # type: ignore[arg-type]


FORMAT = Format(
    TypeAdapter(Entry),
    lambda torn: new_entry(RECOVERED, torn=torn),
    "what training cost the patients is no longer known; show both files to your data-protection "
    "officer; nothing is trained with them",
)
