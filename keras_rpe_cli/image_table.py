"""A CSV file with rows for each image of a folder of results."""

from __future__ import annotations

import csv
import io
from itertools import chain
from pathlib import Path
from typing import Any

Row = dict[str, str]


class ImageTable:
    """A table of rows by image; those of other images stay, and images done again are replaced."""

    def __init__(self, path: Path, columns: set[str]) -> None:
        self.path, self.columns = path, columns
        self.rows: dict[str, list[Row]] = {}
        if not path.exists():
            return
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file, strict=True)
                read, found = list(reader), set(reader.fieldnames or [])
        except (OSError, ValueError, csv.Error):
            read, found = [], set()
        if not columns <= found or any(None in row or None in row.values() for row in read):
            raise ValueError(
                f"{path} exists and is not a table that `keras-rpe` wrote, choose another "
                "folder with --out."
            )
        for row in read:
            self.rows.setdefault(row["image"], []).append(row)

    def write(self) -> None:
        """Write it, with a mark by which spreadsheets know its encoding."""
        from keras_rpe.written_file import write_file

        rows = list(chain.from_iterable(self.rows.values()))
        columns = dict.fromkeys(chain(*rows)) if rows else dict.fromkeys(sorted(self.columns))
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_file(self.path, "\ufeff" + text.getvalue())


def table_text(value: Any) -> str:
    """A number for a table: whole ones as they are, others with five digits, nothing for NaN."""
    number = float(value)
    if number != number:
        return ""
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else f"{number:.5g}"
