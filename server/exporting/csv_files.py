"""Tables as CSV."""

import pandas as pd

TIME = "%Y-%m-%dT%H:%M:%S.%f+00:00"  # ISO 8601; tables are in UTC


def csv_content(table: pd.DataFrame) -> bytes:
    """Return a table as CSV; a missing value is an empty field, every digit of a number is kept."""
    return table.to_csv(index=False, lineterminator="\n", date_format=TIME).encode()
