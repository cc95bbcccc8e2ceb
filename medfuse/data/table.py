"""A table's path in; its cells as text, or what is wrong with the file, out."""

import re
from pathlib import Path

import pandas as pd

from medfuse.errors import CohortError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def read_cells(path: Path) -> pd.DataFrame:
    """Read every cell of a CSV or Parquet table as text, empty where there is none.

    Raises:
        CohortError: It is no such table, or cannot be read; the message gives none of its content.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise CohortError(f"{path}: expected a table that ends in .csv or .parquet")
    if _URL.match(str(path)):
        raise CohortError(
            f"{path}: expected a table on this machine, and this is an address; download it first"
        )
    try:
        # Opened here, as pandas would take some names for something to download.
        with path.open("rb") as file:
            if path.suffix == ".csv":
                return pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
            table = pd.read_parquet(file)
            return table.astype(object).where(table.notna(), "").astype(str)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise CohortError(f"{path}: the table cannot be read ({why})") from error
    except UnicodeDecodeError as error:
        raise CohortError(
            f"{path}: expected a CSV table in UTF-8, and its text is in another encoding (Latin-1 "
            "or Windows-1252, perhaps); save it as UTF-8"
        ) from error
    except ValueError as error:  # what pandas and pyarrow raise for a malformed file
        raise CohortError(f"{path}: not a well-formed {path.suffix[1:]} table") from error
