"""Every check of every operator's cases; a room without cases fails."""

from __future__ import annotations

import pytest

from megbrain_py import op_testing
from megbrain_py.node import Operator
from megbrain_py.op_testing import Case, ErrorCase

LOADED = {room: op_testing.cases_of(room) for room in op_testing.rooms()}
CASES = [pytest.param(c, id=f"{room}-{c.name}") for room, (cs, _) in LOADED.items() for c in cs]
ERRORS = [pytest.param(c, id=f"{room}-{c.name}") for room, (_, es) in LOADED.items() for c in es]


@pytest.mark.parametrize("room", LOADED)
def test_room_has_cases(room: str) -> None:
    assert LOADED[room][0], f"ops/{room}/cases.py has no cases"


def test_every_operator_occurs_in_a_case() -> None:
    seen: set[type[Operator]] = set()
    for cases, _ in LOADED.values():
        for case in cases:
            nodes = op_testing.graph_of(case).nodes
            if case.differentiated:
                nodes += op_testing.gradient_graph_of(case).nodes
            seen |= {type(node.op) for node in nodes}
    ours = [t for t in _subclasses(Operator) if t.__module__.startswith("megbrain_py.ops.")]
    unseen = [t.__name__ for t in ours if t.kernel and t not in seen]
    assert not unseen, f"no case has {', '.join(unseen)}"


def _subclasses(kind: type[Operator]) -> list[type[Operator]]:
    direct = kind.__subclasses__()
    return [*direct, *(t for d in direct for t in _subclasses(d))]


@pytest.mark.parametrize("case", CASES)
def test_forward(case: Case) -> None:
    op_testing.check_forward(case)


@pytest.mark.parametrize("case", CASES)
def test_gradient(case: Case) -> None:
    op_testing.check_gradient(case)


@pytest.mark.parametrize("case", ERRORS)
def test_error(case: ErrorCase) -> None:
    op_testing.check_error(case)
