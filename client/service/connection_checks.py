"""Checks of the way to the coordinator: name, connection, certificate, authentication, clock."""

import math
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

from client.service.findings import Finding, failed, not_checked, ok
from client.service.hello import STAGES, Stage, UnreachableError, ask
from common.errors import ConfigError
from common.kit import Hello, RefusalReason, Refused, SiteKit

LARGEST_CLOCK_ERROR_S = 60.0  # signatures are refused from 300 s on; clocks drift
CLOCK, KNOWN = "clock", "authentication"
NAMES: dict[Stage, str] = {
    "name": "name of the coordinator",
    "connection": "connection",
    "certificate": "certificate of the coordinator",
    "answer": "answer of the coordinator",
}
REFUSALS: dict[RefusalReason, tuple[str, str]] = {
    "unknown-site": (
        "the coordinator does not know this site's key",
        "ask the coordinator whether this kit is the newest, and whether its own kit lists you",
    ),
    "revoked": (
        "the coordinator has revoked this site's key",
        "ask the coordinator why; a new kit is needed to take part again",
    ),
    "expired": ("this site's key has expired", "ask the coordinator for a new kit"),
    "not-yet-valid": (
        "this site's key is not valid yet",
        "wait until the day that kit.toml names, or ask the coordinator",
    ),
    "clock": (
        "this machine's clock differs too much from the coordinator's",
        "set the clock, best by NTP (timedatectl set-ntp true)",
    ),
    "signature": (
        "the signature of this site's requests is wrong",
        "ask the coordinator to send the kit again: its key does not fit",
    ),
    "replayed": (
        "the coordinator saw the same request twice",
        "try again; if it stays so, tell the coordinator that somebody may repeat your requests",
    ),
    "too-large": ("the request was too large", "ask your network team what changes requests"),
    "not-for-sites": (
        "this machine's address may not ask that",
        "tell the coordinator the address from which this site comes",
    ),
    "token": (
        "the coordinator asks for its administrator's token",
        "tell the coordinator: a site must not need it",
    ),
}


def check_connection(kit: SiteKit, folder: Path) -> tuple[Finding, ...]:
    """Call the coordinator once and say for each step of the way how it went."""
    try:
        answer, ahead_s = ask(kit, folder)
    except ConfigError as error:
        stop = failed(NAMES["certificate"], str(error), "ask the coordinator for the kit again")
        rest = (NAMES["name"], NAMES["connection"], KNOWN, CLOCK)
        return (stop, *(not_checked(name, "the kit cannot be used") for name in rest))
    except UnreachableError as error:
        return _stopped(error, kit)
    passed = tuple(_passed(stage, kit) for stage in STAGES)
    if isinstance(answer, Refused):
        return (*passed, refusal(answer), _clock(ahead_s))
    return (*passed, _known(answer, kit), _clock(ahead_s))


def refusal(answer: Refused) -> Finding:
    """Say why the coordinator refuses this site, and what to do."""
    found, mend = REFUSALS[answer.reason]
    said = f"\nit says: {answer.says}" if answer.says else ""
    return failed(KNOWN, found + said, mend)


def _stopped(error: UnreachableError, kit: SiteKit) -> tuple[Finding, ...]:
    """Say how far the call got; a proxy is named, for it may be what answers."""
    at = STAGES.index(error.stage)
    passed = tuple(_passed(stage, kit) for stage in STAGES[:at])
    through = _proxy(kit)
    found = f"{error.found} (through the proxy {through})" if through else error.found
    stop = failed(NAMES[error.stage], found, error.mend)
    why = f"mend first: {NAMES[error.stage]}"
    rest = [*(NAMES[stage] for stage in STAGES[at + 1 :]), KNOWN, CLOCK]
    return (*passed, stop, *(not_checked(name, why) for name in rest))


def _passed(stage: Stage, kit: SiteKit) -> Finding:
    host, _, port = kit.coordinator.rpartition(":")
    through = _proxy(kit)
    words: dict[Stage, str] = {
        "name": f"{host} is left to the proxy {through}" if through else f"{host} is known here",
        "connection": f"port {port} of {host} is open",
        "certificate": f"signed by this federation's authority, made out to {host}",
        "answer": "a coordinator of Consilium",
    }
    return ok(NAMES[stage], words[stage])


def _proxy(kit: SiteKit) -> str | None:
    """Return the proxy that the environment asks for; Flower takes it as well."""
    proxies = getproxies()
    found = proxies.get("https") or proxies.get("all")
    return found if found and not proxy_bypass(kit.coordinator) else None


def _known(answer: Hello, kit: SiteKit) -> Finding:
    if answer.federation != kit.federation or answer.site != kit.site:
        return failed(
            KNOWN,
            f"expected to be {kit.site} of {kit.federation}, the coordinator knows this key as "
            f"{answer.site} of {answer.federation}",
            "ask the coordinator for the kit again",
        )
    if answer.package_sha256 != kit.package_sha256:
        return failed(
            KNOWN,
            f"the coordinator runs consilium {answer.version} and not what the kit names "
            f"({kit.version}, other files)",
            "ask the coordinator for the kit of its version",
        )
    return ok(KNOWN, f"the coordinator of {answer.federation} knows this site as {answer.site}")


def _clock(ahead_s: float) -> Finding:
    if math.isnan(ahead_s):
        return not_checked(CLOCK, "the coordinator's answer tells no time")
    way = "ahead of" if ahead_s > 0 else "behind"
    found = f"{abs(ahead_s):.0f} s {way} the coordinator's"
    if abs(ahead_s) > LARGEST_CLOCK_ERROR_S:
        return failed(CLOCK, found, "set the clock, best by NTP (timedatectl set-ntp true)")
    return ok(CLOCK, f"within {max(1, math.ceil(abs(ahead_s)))} s of the coordinator's")
