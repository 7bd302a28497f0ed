"""Everything that can be wrong before a site starts, found in one go.

Every check runs, also after another has failed; one that needs what failed says "not checked".
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from client.dataset.inspection import Progress
from client.service import connection_checks, kit_checks, site_checks
from client.service.findings import Finding, any_failed, failed, not_checked
from client.service.privacy_check import check_privacy
from client.site import SiteConfig
from common.errors import ConfigError, ConsiliumError
from common.kit import SiteKit, read_site_kit

NEED_KIT = ("dates", "package", "Flower", "site.toml", "connection", "authentication", "clock")
NEED_SITE = ("data", "disk", "accelerator", "privacy")


def check_kit(
    folder: Path, *, data: bool = True, progress: Progress | None = None
) -> Iterator[Finding]:
    """Yield one finding per check, in the order in which things should be mended.

    Args:
        folder: the kit that the coordinator sent.
        data: whether every file of every case is opened, which may take minutes.
        progress: told how many cases are done.
    """
    try:
        kit = read_site_kit(folder)
    except ConsiliumError as error:
        mend = "give the folder that the coordinator sent, or ask for it again"
        yield failed("kit", str(error), mend)
        for name in (*NEED_KIT, *NEED_SITE):
            yield not_checked(name, "there is no kit")
        return
    yield kit_checks.check_files(folder)
    yield kit_checks.check_dates(kit, folder)
    yield kit_checks.check_package(kit)
    yield kit_checks.check_flower()
    yield from _own(kit, folder, progress, data=data)
    yield from connection_checks.check_connection(kit, folder)


def _own(kit: SiteKit, folder: Path, progress: Progress | None, *, data: bool) -> Iterator[Finding]:
    """Yield what concerns the hospital's own file, data and machine."""
    own = site_checks.check_site_file(kit, folder)
    yield own.finding
    checks: dict[str, Callable[[SiteConfig], Finding]] = {
        "data": lambda site: site_checks.check_data(site, progress),
        "disk": site_checks.check_disk,
        "accelerator": site_checks.check_accelerator,
        "privacy": check_privacy,
    }
    for name in NEED_SITE:
        if name == "data" and not data:
            continue
        if own.config is None:
            yield not_checked(name, "mend site.toml first")
        else:
            yield checks[name](own.config)


def demand_startable(
    folder: Path, tell: Callable[[str], None], *, data: bool
) -> tuple[SiteKit, SiteConfig]:
    """Demand all that must be right on this side; the coordinator may come later.

    Args:
        folder: the kit.
        tell: is given every warning and failure.
        data: whether every file of every case is opened as well.

    Raises:
        ConfigError: when something has to be mended first.
    """
    kit = read_site_kit(folder)
    own = site_checks.check_site_file(kit, folder)
    findings = [
        kit_checks.check_files(folder),
        kit_checks.check_dates(kit, folder),
        kit_checks.check_package(kit),
        kit_checks.check_flower(),
        *_own(kit, folder, None, data=data),
    ]
    for finding in findings:
        if finding.outcome in {"warning", "failed"}:
            tell(str(finding))
    if own.config is None or any_failed(findings):
        raise ConfigError(f"{folder}: this site cannot start; mend first what failed above")
    return kit, own.config
