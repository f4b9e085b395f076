"""The table of instances that `keras-rpe segment` writes."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from keras_rpe.written_file import write_file

if TYPE_CHECKING:
    from keras_rpe.models import Instances

COLUMNS = ("image", "instance", "area", "score", "class", "top", "left", "bottom", "right")


class InstanceTable:
    """A CSV file with a row for every instance of every image of a folder of results.

    The rows that the file has already stay, but for those of images that are added anew.

    Args:
        path: The file, read if it exists.

    Raises:
        ValueError: If the file exists and is not such a table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, list[list[str]]] = {}
        if not path.exists():
            return
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))
        except (OSError, ValueError, csv.Error):
            rows = []
        if not rows or tuple(rows[0]) != COLUMNS or any(len(r) != len(COLUMNS) for r in rows):
            raise ValueError(
                f"{path} exists and is not a table that `keras-rpe segment` wrote, choose another "
                "folder with --out."
            )
        for row in rows[1:]:
            self._rows.setdefault(row[0], []).append(row)

    def add(self, image: str, instances: Instances) -> None:
        """Put in the rows of an image.

        Args:
            image: Its name without ending.
            instances: Its instances: areas in pixels, scores in [0, 1]; bottom and right are the
                first row and column beyond.
        """
        columns = zip(instances.areas, instances.scores, instances.classes, instances.boxes)
        self._rows[image] = [
            [image, str(number), str(area), f"{score:.4f}", str(kind), *map(str, box)]
            for number, (area, score, kind, box) in enumerate(columns, start=1)
        ]

    def write(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: If it cannot be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for rows in self._rows.values():
            writer.writerows(rows)
        write_file(self.path, text.getvalue())
