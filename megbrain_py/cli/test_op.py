"""`megbrain test-op NAME`: the cases of operator rooms on this machine's kernels, as a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from megbrain_py.errors import DataError, MegBrainError


def test_op(names: Sequence[str]) -> int:
    """Run forward, gradient and error cases; exit code 1 when one fails."""
    failed = passed = 0
    for room in rooms_named(names):
        found = _test_room(room)
        passed += sum(not reason for reason in found)
        failed += sum(bool(reason) for reason in found)
    print(f"{passed} checks passed, {failed} failed")
    return 1 if failed else 0


def rooms_named(names: Sequence[str]) -> list[str | Path]:
    """Room names, from names of rooms or of functions in them; folders of rooms elsewhere."""
    from megbrain_py import functional, op_testing
    from megbrain_py.training.settings import nearest

    known = op_testing.rooms()
    if "all" in names:
        return list(known)
    rooms: list[str | Path] = []
    for name in names:
        home = getattr(getattr(functional, name, None), "__module__", "")
        if name in known:
            rooms.append(name)
        elif home.startswith("megbrain_py.ops."):
            rooms.append(home.split(".")[2])
        elif Path(name).is_dir() or "/" in name:
            rooms.append(Path(name))
        else:
            public = [n for n in vars(functional) if not n.startswith("_")]
            raise DataError(f"no operator {name}{nearest(name, {*known, *public})}")
    return list(dict.fromkeys(rooms))


def _test_room(room: str | Path) -> list[str]:
    """Print a line for each case; for each check the reason of its failure, or ""."""
    from megbrain_py import op_testing

    cases, errors = op_testing.cases_of(room)
    width = max([24, *(len(case.name) for case in cases), *(len(case.name) for case in errors)])
    print(f"{room}\n  {'case':<{width}}  {'forward':<8} {'gradient':<8} seconds")
    reasons: list[str] = []
    for case in cases:
        started = time.perf_counter()
        forward = _reason(lambda case=case: op_testing.check_forward(case))  # type: ignore[misc]
        columns, found = [_mark(forward)], [forward]
        if case.differentiated:
            gradient = _reason(lambda case=case: op_testing.check_gradient(case))  # type: ignore[misc]
            columns.append(_mark(gradient))
            found.append(gradient)
        else:
            columns.append("-")
        seconds = time.perf_counter() - started
        print(f"  {case.name:<{width}}  {columns[0]:<8} {columns[1]:<8} {seconds:.3f}")
        _explain(found)
        reasons += found
    for error in errors:
        reason = _reason(lambda error=error: op_testing.check_error(error))  # type: ignore[misc]
        print(f"  {error.name:<{width}}  {'refused' if not reason else 'FAILED'}")
        _explain([reason])
        reasons.append(reason)
    return reasons


def _reason(check: Callable[[], None]) -> str:
    try:
        check()
    except (AssertionError, MegBrainError) as error:
        return str(error) or "failed without a word"
    return ""


def _mark(reason: str) -> str:
    return "FAILED" if reason else "ok"


def _explain(reasons: Sequence[str]) -> None:
    for reason in filter(None, reasons):
        print("      " + reason.replace("\n", "\n      "))
