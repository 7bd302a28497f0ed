"""Numbers and times as the pages write them: with a unit, or a dash where nothing is known."""

import math
from collections.abc import Callable
from datetime import datetime

from server.reporting.report_words import NO_VALUE, bytes_text, duration_text

ZONE = "UTC"  # one zone for sites in several countries; every heading of a time says so
DAY_S, TIB = 86400, 2**40  # a report has neither; three weeks with 60 sites do
SEVERITY_WORDS = {"info": "Note", "warning": "Warning", "critical": "Critical"}


def time_text(moment: datetime | None) -> str:
    """Return a time of UTC to the second."""
    return NO_VALUE if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def seconds_text(seconds: float | None) -> str:
    """Return a duration with its units."""
    if seconds is None or math.isnan(seconds):
        return NO_VALUE
    days, rest_s = divmod(round(seconds), DAY_S)
    return f"{days} d {rest_s // 3600} h" if days >= 2 else duration_text(seconds)


def size_text(n_bytes: float | None) -> str:
    """Return a size with its unit."""
    if n_bytes is None or math.isnan(n_bytes):
        return NO_VALUE
    return f"{n_bytes / TIB:.1f} TiB" if n_bytes >= TIB else bytes_text(round(n_bytes))


def share_text(share: float | None) -> str:
    """Return a share of one in percent."""
    return NO_VALUE if _unknown(share) else f"{share:.0%}"


def number_text(n_decimals: int) -> Callable[[float | None], str]:
    """Return what writes a number with so many decimals."""
    return lambda value: NO_VALUE if _unknown(value) else f"{value:.{n_decimals}f}"


def count_text(n: float | None) -> str:
    """Return a whole number."""
    return NO_VALUE if n is None else f"{n:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def text_or_dash(text: object) -> str:
    """Return text; a dash for none."""
    return NO_VALUE if text is None or text == "" else str(text)


def plain_number(value: float | None) -> float | None:
    """Return a number that a page can sort by; None for NaN and infinity, which JSON lacks."""
    return None if value is None or not math.isfinite(value) else float(value)


def _unknown(value: float | None) -> bool:
    return value is None or math.isnan(value)
