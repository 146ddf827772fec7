"""CSV files of buffers with fixed lifetimes: `id,lower,upper,size`, and `offset` when placed."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megbrain_py.errors import DataError
from megbrain_py.planning.memory import Ints

_NEEDED = ("lower", "upper", "size")
_CONSTRAINTS = ("alignment", "gaps", "hint", "offset")  # would be broken silently
_MOST = 1 << 62  # so that sums stay within 64 bits


@dataclass(frozen=True)
class Intervals:
    """The table of a file as it was written, and its numbers: a buffer lives on [lower, upper)."""

    header: list[str]
    rows: list[list[str]]
    lower: Ints
    upper: Ints
    size: Ints


def read_intervals(path: Path) -> Intervals:
    """Read a file; DataError names the file, the line and the column that is wrong."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file: {error}") from None
    if not lines:
        raise DataError(f"{path}: empty, expected a header id,lower,upper,size")
    header = [name.strip() for name in lines[0][1]]
    for name in ("id", *_NEEDED):
        if header.count(name) != 1:
            raise DataError(
                f"{path}: line 1: expected one column '{name}', found {','.join(header)}"
            )
    for name in _CONSTRAINTS:
        if name in header:
            raise DataError(f"{path}: line 1: column '{name}' is not supported")
    columns = {name: header.index(name) for name in _NEEDED}
    numbers: dict[str, list[int]] = {name: [] for name in _NEEDED}
    for line, row in lines[1:]:
        if len(row) != len(header):
            raise DataError(f"{path}: line {line}: expected {len(header)} fields, found {len(row)}")
        for name, column in columns.items():
            numbers[name].append(_integer(row[column], f"{path}: line {line}: '{name}'"))
        lower, upper, size = (numbers[name][-1] for name in _NEEDED)
        if lower >= upper:
            raise DataError(
                f"{path}: line {line}: expected lower < upper, found {lower} and {upper}"
            )
        if size < 0:
            raise DataError(f"{path}: line {line}: 'size' is {size}, expected at least 0")
    if sum(numbers["size"]) > _MOST:
        raise DataError(f"{path}: the sizes add up to more than 2^62 bytes")
    lowers, uppers, sizes = (np.array(numbers[name], np.int64) for name in _NEEDED)
    return Intervals(header, [row for _, row in lines[1:]], lowers, uppers, sizes)


def _integer(text: str, what: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise DataError(f"{what} is '{text}', expected an integer") from None
    if abs(value) > _MOST:
        raise DataError(f"{what} is {text}, expected at most 2^62 in size")
    return value


def write_placed(path: Path, intervals: Intervals, offsets: Ints) -> None:
    """Write the table as it was read, with a last column `offset`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*intervals.header, "offset"])
        writer.writerows(
            [*row, offset]
            for row, offset in zip(intervals.rows, offsets.tolist(), strict=True)
        )  # fmt: skip
