"""Checks of the kit: its files, its dates, and the package that it was made for."""

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from client.service.credentials import certificate_validity, node_key
from client.service.environment import QUIET
from client.service.findings import Finding, failed, ok, warning
from common.errors import ConfigError
from common.installed import package_digest, package_version
from common.kit import CA_CERTIFICATE, IDENTITY_KEY, NODE_KEY, SiteKit, Validity

SOON = timedelta(days=30)
AGAIN = "ask the coordinator to send the kit again"


def check_files(folder: Path) -> Finding:
    """Check that the kit is complete and as the coordinator made it."""
    defects = [*_changed(folder), *_readable_by_others(folder), *_unusable_key(folder)]
    if not defects:
        return ok("kit", "complete and unchanged; only you can read its keys")
    names = f"{NODE_KEY} {IDENTITY_KEY}"
    mend = f"{AGAIN}; for readable keys: chmod 600 {names}"
    if all(" can be read by others" in defect for defect in defects):
        mend = f"run in {folder}: chmod 600 {names}"
    return failed("kit", "\n".join(defects), mend)


def _changed(folder: Path) -> tuple[str, ...]:
    """Return what is missing or changed; the one place that calls for the checksums."""
    from common.kit_checksums import verify_kit

    return verify_kit(folder)


def _readable_by_others(folder: Path) -> Iterator[str]:
    for name in (NODE_KEY, IDENTITY_KEY):
        path = folder / name
        if path.is_file():
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                yield f"{name} can be read by others: expected mode 0600, found {mode:04o}"


def _unusable_key(folder: Path) -> Iterator[str]:
    try:
        node_key(folder / NODE_KEY)
    except ConfigError as error:
        yield str(error)


def check_dates(kit: SiteKit, folder: Path, now: datetime | None = None) -> Finding:
    """Check the dates of the site's key and of the federation's certificate."""
    now = now or datetime.now(UTC)
    try:
        certificate = certificate_validity(folder / CA_CERTIFICATE)
    except ConfigError as error:
        return failed("dates", str(error), AGAIN)
    dated = {"the kit": kit.validity, CA_CERTIFICATE: certificate}
    bad = [_not_now(name, dates, now) for name, dates in dated.items() if dates.at(now) != "valid"]
    if bad:
        mend = "ask the coordinator for a new kit; if this machine's date is wrong, set it"
        return failed("dates", "\n".join(bad), mend)
    first = min(dated, key=lambda name: dated[name].not_after)
    left = datetime.fromisoformat(dated[first].not_after) - now
    found = f"{first} ends on {dated[first].not_after[:10]}, in {left.days} days"
    if left < SOON:
        return warning("dates", found, "ask the coordinator for a new kit before that day")
    return ok("dates", found)


def _not_now(name: str, dates: Validity, now: datetime) -> str:
    today = now.astimezone(UTC).isoformat(timespec="seconds")
    if dates.at(now) == "expired":
        return f"{name} expired on {dates.not_after}; this machine says that it is {today}"
    return f"{name} is valid from {dates.not_before} on; this machine says that it is {today}"


def check_package(kit: SiteKit) -> Finding:
    """Check that the program installed here is the one that the federation agreed on."""
    try:
        version, digest = package_version(), package_digest()
    except ConfigError as error:
        return failed("package", str(error), f"install consilium {kit.version} again")
    if version != kit.version:
        return failed(
            "package",
            f"consilium {version} is installed, the kit is for {kit.version}",
            f"install consilium {kit.version}, or ask the coordinator for a kit for {version}",
        )
    if digest != kit.package_sha256:
        return failed(
            "package",
            f"consilium {version} is installed, but its files are not those of the kit\n"
            f"expected {kit.package_sha256}\nfound    {digest}",
            f"install consilium {version} again from where the coordinator says; nothing in the "
            "installed files may be changed",
        )
    return ok("package", f"consilium {version}, the very files that the kit names")


def check_flower() -> Finding:
    """Check that the installed Flower is one that this package knows."""
    os.environ.update(QUIET)  # before Flower is imported
    from client.service.hooks import demand_hooks

    try:
        demand_hooks()
    except ConfigError as error:
        return failed("Flower", str(error), "install consilium again, with what it depends on")
    return ok("Flower", "the installed version has all that this package takes hold of")
