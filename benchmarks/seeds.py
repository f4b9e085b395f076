"""Repeat a training over seeds: lines of a CSV file, and the mean and range of each kind."""

import csv
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

Row = dict[str, str]


def repeated(
    table: Path, kinds: Iterable[Row], run: Callable[[Row], list[dict[str, object]]]
) -> list[Row]:
    """The lines of the file, with those of `run` for each kind that it does not have yet."""
    table.parent.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(table.open(newline=""))) if table.is_file() else []
    for kind in kinds:
        if any(kind.items() <= row.items() for row in rows):
            continue
        began = time.perf_counter()
        found = [
            {
                **kind,
                **{key: f"{x:.4f}" if isinstance(x, float) else str(x) for key, x in one.items()},
            }
            for one in run(kind)
        ]
        print(f"{', '.join(kind.values())}: {time.perf_counter() - began:.0f} s", flush=True)
        is_new = not rows
        rows += found
        with table.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(found[0]))
            if is_new:
                writer.writeheader()
            writer.writerows(found)
    return rows


def print_ranges(rows: list[Row], keys: Sequence[str], figures: Sequence[str]) -> None:
    """Print mean and range of the figures over the rows that have the same keys."""
    print(
        "".join(f"{name:17}" for name in keys), "".join(f"{name:21}" for name in figures), "seeds"
    )
    for kind in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        same = [row for row in rows if tuple(row[key] for key in keys) == kind]
        print("".join(f"{name:17}" for name in kind), end=" ")
        for name in figures:
            values = [float(row[name]) for row in same]
            mean = sum(values) / len(values)
            print(f"{mean:.3f} ({min(values):.3f}-{max(values):.3f})", end="  ")
        print(len(same))
