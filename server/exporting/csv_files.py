"""Tables as CSV."""

import pandas as pd


def csv_content(table: pd.DataFrame) -> bytes:
    """Return a table as CSV; a missing value is an empty field, every digit of a number is kept."""
    return table.to_csv(index=False, lineterminator="\n").encode()
