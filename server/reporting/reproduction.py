"""The commands that make a run again, and whether that gives the same weights."""

from server.reporting.report_data import ReportData

SAME = (
    "With the same data and versions, the configuration of this run directory gives the same run, "
    "on a CPU bit for bit."
)
PRIVATE = (
    "The configuration of this run directory gives a run of the same kind; noise for privacy is "
    "drawn afresh each time, so that no two runs give the same weights."
)
UNKNOWN = "The configuration of this run is not known; these are the commands of a simulation."


def commands(data: ReportData) -> tuple[str, ...]:
    """Return the lines to type, in order."""
    simulated = data.config is None or data.config.simulation is not None
    run = (
        "consilium simulate config.toml --out ANOTHER_DIRECTORY"
        if simulated
        else "consilium coordinator run config.toml"
    )
    return run, "consilium report ANOTHER_DIRECTORY"


def reproducible(data: ReportData) -> str:
    """Return what making the run again gives."""
    if data.config is None:
        return UNKNOWN
    is_private = data.config.privacy is not None or data.config.federation.site_privacy is not None
    return PRIVATE if is_private else SAME
