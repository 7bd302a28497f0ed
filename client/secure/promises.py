"""What a site has masked, agreed to and told in secure rounds, on its disk before it is answered.

In the run's folder, readable by this user only, per method and round:

* ``round-0001.attempt``: the latest question that was answered with a masked update, and this
  site's own shares; a new attempt replaces it, so that of two only the later can be opened;
* ``round-0001.agreed``: the survivors that this site agreed to, written once; from then on no
  update of that round is sent any more;
* ``round-0001.told``: the shares that were told, written once.

They stay as long as the run's folder; what a crash cut short counts as a promise to nobody.
"""

from pathlib import Path
from typing import TypeVar

from client.kept_secrets import write_once
from client.site import SiteConfig
from common.codec import canonical_json, read_json, record
from common.errors import ConfigError, DiskError, PolicyError
from common.federation import SiteName
from common.files import PRIVATE, flush_folder, write_atomically
from common.messages import Unmasked
from common.secure_round import SecureRound, Shares
from common.secure_sum import Key, Nonce

T = TypeVar("T")


@record
class Masked:
    """The latest attempt of a round that was answered. Never leaves the site."""

    secure: SecureRound
    question: Key
    """Hash of all that was asked."""
    own: Shares
    """This site's own shares of its own seeds."""


@record
class Promise:
    """To which survivors this site agreed, for which attempt. Never leaves the site."""

    nonce: Nonce
    survivors: tuple[SiteName, ...]


@record
class Told:
    """Which question was answered with which shares. Never leaves the site."""

    question: Key
    answer: Unmasked


def round_file(site: SiteConfig, run: str, method: str, round_: int, kind: str) -> Path:
    """Return where something of a secure round lies; `kind` is attempt, agreed or told."""
    return site.round_file(run, "secure-rounds", method, round_).with_suffix(f".{kind}")


def keep_attempt(path: Path, attempt: Masked) -> None:
    """Write down what is about to be answered, in the place of an earlier attempt."""
    write_atomically(path, canonical_json(attempt), mode=PRIVATE)
    _flush_folder(path.parent)


def kept_once(cls: type[T], path: Path, value: T) -> T:
    """Write a value unless one is there; return what is there, on the disk for good.

    Raises:
        PolicyError: when what is there was cut short by a crash: nobody knows what was promised.
    """
    write_once(path, canonical_json(value))
    _flush_folder(path.parent)
    found = kept(cls, path)
    if found is None:
        raise PolicyError(f"{path}: expected what this site promised, found none", "privacy")
    return found


def kept(cls: type[T], path: Path) -> T | None:
    """Return what was written; None where there is nothing whole."""
    try:
        return read_json(cls, path) if path.exists() else None
    except ConfigError:
        return None


def _flush_folder(folder: Path) -> None:
    """See to it that a new name is still there after a power cut."""
    try:
        flush_folder(folder)
    except OSError as error:
        raise DiskError(f"{folder}: cannot be written: {error.strerror}") from None
