"""Tables as parquet, by pyarrow, which pandas calls."""

import pandas as pd


def parquet_content(table: pd.DataFrame) -> bytes:
    """Return a table as the content of a parquet file, with the types of its columns."""
    return table.to_parquet(engine="pyarrow", index=False)
