"""Whom to revoke and whose keys to make new, as the study lead says it on the command line."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from common.errors import ConfigError
from server.provisioning.federation_file import ALL, COORDINATOR, FederationFile
from server.provisioning.registry import Registry


@dataclass(frozen=True)
class Wish:
    """What the study lead asks for on the command line."""

    revoke: tuple[str, ...] = ()
    rotate: tuple[str, ...] = ()


def checked(wish: Wish, federation: FederationFile, registry: Registry | None) -> Wish:
    """Return the wish with `all` spelt out.

    Args:
        wish: from the command line.
        federation: what is to be.
        registry: what was issued so far; None before the first kits.

    Raises:
        ConfigError: with one line for everything that does not fit what was issued.
    """
    if registry is None:
        if wish != Wish():
            raise ConfigError("--revoke, --rotate: expected kits to be there, found none yet")
        return wish
    if defects := [*_defects(wish, federation, registry)]:
        raise ConfigError("\n".join(defects))
    if ALL not in wish.rotate:
        return wish
    valid = [name for name, keys in registry.current.items() if keys.revoked is None]
    everybody = [COORDINATOR, *(name for name in valid if name not in wish.revoke)]
    return replace(wish, rotate=(*wish.rotate, *everybody))


def _defects(wish: Wish, federation: FederationFile, registry: Registry) -> Iterator[str]:
    known = registry.current
    for name in wish.revoke:
        if name not in known:
            yield _unknown("--revoke", name, known)
    for name in wish.rotate:
        if name not in (*known, COORDINATOR, ALL):
            yield _unknown("--rotate", name, (*known, COORDINATOR, ALL))
        elif name in known and name not in federation.sites:
            yield f"--rotate {name}: expected it among the file's sites, found it missing there"
        elif name in wish.revoke:
            yield f"--rotate {name}: expected a site that is not revoked in the same command"
    valid = {name for name, keys in known.items() if keys.revoked is None}
    for name in sorted(valid - {*federation.sites, *wish.revoke}):
        yield (
            f"sites: {name}: has a kit and is no longer listed; list it again, or refuse it from "
            f"now on with --revoke {name}"
        )


def _unknown(option: str, name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(names)}"
    return f"{option} {name}: no kit of that name was issued; {hint}"
