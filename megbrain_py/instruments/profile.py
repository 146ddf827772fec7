"""Profile: what every instruction took, by instruction, kernel or your line, against the roof."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from megbrain_py.instruments.roof import Roof
from megbrain_py.plan import Instruction, Plan

Key = Literal["instruction", "kernel", "origin"]


@dataclass(frozen=True)
class Row:
    """An instruction, or several together (`count`).

    seconds: the median over the profiled runs. flops: `Operator.flops`. bytes: of all values that
    are read and written, each counted once for each instruction; caches may save some of them.
    roof_seconds: the least time that the machine's roof allows for both.
    """

    kernel: str
    origin: str
    seconds: float
    flops: int
    bytes: int
    roof_seconds: float = 0.0
    shapes: str = ""
    count: int = 1

    @property
    def gflops(self) -> float:
        """1e9 operations per second."""
        return self.flops / max(self.seconds, 1e-9) / 1e9

    @property
    def gbytes(self) -> float:
        """1e9 bytes per second."""
        return self.bytes / max(self.seconds, 1e-9) / 1e9

    @property
    def roof_share(self) -> float:
        """1: as fast as arithmetic or memory allow. Above 1: values came from the caches, or the
        roof was measured on a busy machine (`megbrain bench roof`)."""
        return self.roof_seconds / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class Profile:
    """The instructions of a plan in order (`rows`), as `runs` profiled runs found them."""

    rows: tuple[Row, ...]
    runs: int
    roof: Roof

    @property
    def seconds(self) -> float:
        """Of all instructions."""
        return sum(row.seconds for row in self.rows)

    def by_kernel(self) -> tuple[Row, ...]:
        """One row for each kernel, the longest first."""
        return self._grouped(lambda row: row.kernel)

    def by_origin(self) -> tuple[Row, ...]:
        """One row for each of your lines, gradients of it included, the longest first."""
        return self._grouped(lambda row: row.origin)

    def _grouped(self, key: Callable[[Row], str]) -> tuple[Row, ...]:
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(key(row), []).append(row)
        return tuple(sorted(map(_together, groups.values()), key=lambda row: -row.seconds))

    def table(self, by: Key = "kernel", limit: int | None = 20) -> str:
        """Text: a line for each row, the longest first; at most `limit` of them."""
        rows = {
            "instruction": lambda: sorted(self.rows, key=lambda row: -row.seconds),
            "kernel": self.by_kernel,
            "origin": self.by_origin,
        }[by]()
        return "\n".join(self._lines(by, rows, limit))

    def _lines(self, by: Key, rows: Sequence[Row], limit: int | None) -> list[str]:
        shown = rows[:limit]
        lines = [f"{'ms':>9} {'share':>6} {'GFLOP/s':>8} {'GB/s':>6} {'roof':>12}  {_HEADS[by]}"]
        for row in shown:
            share = row.seconds / max(self.seconds, 1e-12)
            bound = self.roof.bound(row.flops, row.bytes)
            roof = f"{100 * row.roof_share:.0f} % {bound}"
            lines.append(
                f"{1e3 * row.seconds:9.3f} {100 * share:5.1f}% {row.gflops:8.1f} "
                f"{row.gbytes:6.1f} {roof:>12}  {_TITLES[by](row)}"
            )
        if len(rows) > len(shown):
            rest = sum(row.seconds for row in rows[len(shown) :])
            lines.append(f"{1e3 * rest:9.3f} in {len(rows) - len(shown)} more")
        return lines

    def __str__(self) -> str:
        head = (
            f"{1e3 * self.seconds:.3f} ms in {len(self.rows)} instructions, median of "
            f"{self.runs} runs; roof {self.roof}"
        )
        parts = [head, self.table("kernel"), self.table("origin", 10)]
        return "\n\n".join([*parts, self.table("instruction", 10)])

    def to_json(self, path: str | Path | None = None) -> str:
        """Rows and roof as JSON; also written to `path` if one is given."""
        document: dict[str, Any] = {
            "runs": self.runs,
            "seconds": self.seconds,
            "roof": asdict(self.roof),
            "rows": [{**asdict(row), "roof_share": row.roof_share} for row in self.rows],
        }
        text = json.dumps(document, indent=1)
        if path is not None:
            Path(path).write_text(text + "\n")
        return text


_HEADS = {
    "instruction": "kernel and shapes, origin",
    "kernel": "calls kernel",
    "origin": "calls origin",
}
_TITLES: dict[str, Callable[[Row], str]] = {
    "instruction": lambda row: f"{row.kernel} {row.shapes}   {row.origin}",
    "kernel": lambda row: f"{row.count:5} {row.kernel}",
    "origin": lambda row: f"{row.count:5} {row.origin}  ({_first(row.kernel)})",
}


def _first(names: str, most: int = 3) -> str:
    """The first of a list of kernels: enough to know the line."""
    listed = names.split(", ")
    return ", ".join(listed if len(listed) <= most else [*listed[:most], "..."])


def _together(rows: Sequence[Row]) -> Row:
    def names(values: Sequence[str]) -> str:
        return ", ".join(dict.fromkeys(values))

    return Row(
        names([row.kernel for row in rows]),
        names([row.origin for row in rows]),
        sum(row.seconds for row in rows),
        sum(row.flops for row in rows),
        sum(row.bytes for row in rows),
        sum(row.roof_seconds for row in rows),
        count=sum(row.count for row in rows),
    )


def profile_of(plan: Plan, runs: Sequence[Sequence[float]], roof: Roof) -> Profile:
    """From the seconds of each instruction in each profiled run; their median."""
    empty = np.zeros(len(plan.instructions))
    seconds = np.median(np.array(runs, float), axis=0) if runs else empty
    timed = zip(plan.instructions, seconds.tolist(), strict=True)
    return Profile(tuple(_row(plan, step, s, roof) for step, s in timed), len(runs), roof)


def _row(plan: Plan, step: Instruction, seconds: float, roof: Roof) -> Row:
    moved = traffic(plan, step)
    flops = plan.flops(step)
    least = roof.seconds(flops, moved)
    return Row(plan.title(step), step.origin, seconds, flops, moved, least, shapes(plan, step))


def traffic(plan: Plan, step: Instruction) -> int:
    """Bytes of the values that an instruction reads and writes."""
    return sum(plan.slots[s].type.nbytes for s in (*step.inputs, *step.outputs))


def shapes(plan: Plan, step: Instruction) -> str:
    """Types of inputs and outputs, as text; without layouts, which make it long."""
    inputs, outputs = (
        " ".join(str(plan.slots[s].type.with_layout("rows")) for s in slots)
        for slots in (step.inputs, step.outputs)
    )
    return f"{inputs} -> {outputs}"
