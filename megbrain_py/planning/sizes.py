"""Numbers of bytes as people write them."""

from __future__ import annotations

import re

UNITS = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip


def parse_size(text: str) -> int:
    """Bytes of "3GiB", "512 MiB", "1.5GB" or "4096"; ValueError for anything else."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", text)
    unit = found and UNITS.get((found[2] or "b").lower())
    if not found or not unit:
        raise ValueError(f"expected bytes such as 3GiB or 512MiB, found {text!r}")
    return int(float(found[1]) * unit)


def unit_of(size: int) -> tuple[int, str]:
    """The largest unit that is not larger than `size`: its bytes and its name."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return unit, name
    return 1, "bytes"


def show_size(size: int) -> str:
    """1.50 GiB, 512.0 MiB, 4.0 KiB, 12 bytes."""
    unit, name = unit_of(size)
    digits = {"GiB": 2, "bytes": 0}.get(name, 1)
    return f"{size / unit:,.{digits}f} {name}"
