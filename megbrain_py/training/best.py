"""Which of a run's measurings was the best, and whether it is time to stop: read from the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Goodness = tuple[float, float]


def goodness(line: Mapping[str, Any], by: str) -> Goodness | None:
    """By this models are compared, larger is better; None for a line that does not say.

    by: a COCO figure, of equal ones AP50 decides; or "val_loss". A figure that could not be taken
    (nothing to find) counts as 0.
    """
    if by == "val_loss":
        return (-float(line["loss"]), 0.0) if line.get("kind") == "val" else None
    if line.get("kind") != "eval":
        return None
    return float(line.get(by) or 0.0), float(line.get("AP50") or 0.0)


def is_best(lines: Sequence[Mapping[str, Any]], by: str, step: int) -> bool:
    """Is the measuring at `step` as good as every earlier one? Of equal ones the later is taken."""
    found = {line["step"]: g for line in lines if (g := goodness(line, by)) is not None}
    return step in found and found[step] >= max(found.values())


def measurings_since_best(lines: Sequence[Mapping[str, Any]], by: str) -> int:
    """How many measurings came after the best one; the first of equal ones counts here."""
    found = [g for line in lines if (g := goodness(line, by)) is not None]
    return len(found) - 1 - found.index(max(found)) if found else 0
