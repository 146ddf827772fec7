"""The format memplan-v1: what is refused, and the replayer of schedules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megbrain_py.errors import DataError
from megbrain_py.planning.memplan import from_json, read, to_json
from megbrain_py.planning.replay import Replay, ReplayError, replay
from tests.memory_graphs import random_graph


def chain() -> dict[str, Any]:
    """b -> x -> y -> z: y may be made over x; z needs workspace."""
    return {
        "format": "memplan-v1", "name": "chain", "tensor_bytes": [10, 4, 6, 1], "base": [0],
        "keep": [3],
        "ops": [
            {"name": "a", "cost": 2, "inp": [0], "out": [1], "phase": "fwd"},
            {"name": "b", "cost": 3, "inp": [1], "out": [2], "phase": "fwd", "inplace": [[2, 1]]},
            {"name": "c", "cost": 5, "inp": [2], "out": [3], "phase": "bwd", "ws": 7},
        ],
    }  # fmt: skip


def test_graphs_survive_writing_and_reading(tmp_path: Path) -> None:
    graphs = [random_graph(seed, once=0.3) for seed in range(20)]
    file = tmp_path / "graphs.json"
    file.write_text(json.dumps([to_json(g) for g in graphs]), encoding="utf-8")
    assert read(file) == graphs


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format",), "memplan-v2", "expected an object of format memplan-v1, found 'memplan-v2'"),
        (("tensor_bytes", 1), -4, "tensor_bytes[1] is -4, expected bytes >= 0"),
        (("tensor_bytes", 1), 4.5, "tensor_bytes[1] is 4.5, expected bytes >= 0"),
        (("base",), [7], "base names tensor 7, expected 0 to 3"),
        (("keep",), [3, 3], "keep names a tensor twice: [3, 3]"),
        (("keep",), None, "keep is None, expected a list"),
        (("ops", 1, "cost"), -1, "ops[1]: cost is -1, expected a number >= 0"),
        (("ops", 1, "cost"), float("nan"), "ops[1]: cost is nan, expected a number >= 0"),
        (("ops", 1, "ws"), "big", "ops[1]: ws is 'big', expected bytes >= 0"),
        (("ops", 1, "inp"), [2], "ops[1]: tensor 2 is both read and made"),
        (("ops", 0, "inp"), [2], "ops[0] reads tensor 2, which is not made before"),
        (("ops", 1, "out"), [0], "ops[1] makes tensor 0, which is a base tensor"),
        (("ops", 2, "out"), [1], "ops[2] makes tensor 1, which is made before"),
        (("ops", 1, "inplace"), [[1, 2]], "ops[1]: inplace holds [1, 2], expected [an output, an"),
        (("ops", 1, "rerun"), "no", "ops[1]: rerun is 'no', expected free or never"),
        (("budgets",), [0], "budgets holds 0, expected bytes, or a fraction below 1"),
    ],
)
def test_what_is_wrong_is_named(path: tuple[Any, ...], value: Any, message: str) -> None:
    data = chain()
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    if path == ("ops", 1, "out"):
        del data["ops"][1]["inplace"]
    with pytest.raises(DataError) as error:
        from_json(data, "g.json: graph 0")
    assert str(error.value).startswith("g.json: graph 0")
    assert message in str(error.value)


def test_a_replay_counts_workspace_and_takes() -> None:
    graph = from_json(chain(), "chain")
    plain = [["run", 0, []], ["run", 1, []], ["free", 1], ["run", 2, []]]
    assert replay(graph, plain) == Replay(cost=10, peak=10 + 6 + 1 + 7)
    taken = [["run", 0, []], ["run", 1, [2]], ["run", 2, []], ["free", 2]]
    assert replay(graph, taken) == Replay(cost=10, peak=10 + 6 + 1 + 7)
    held = [["run", 0, []], ["run", 1, []], ["run", 2, []], ["run", 2, []]]
    assert replay(graph, held) == Replay(cost=15, peak=10 + 4 + 6 + 1 + 7)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([["run", 1, []]], "input 1 is not resident"),
        ([["run", 0, []], ["run", 1, [2]], ["free", 1]], "the tensor is not resident"),
        ([["free", 0]], "base tensors stay"),
        ([["run", 0, [1]]], "no permission to take an input for output 1"),
        ([["run", 0, []], ["run", 1, []]], "tensor 3 of keep is not resident"),
        ([["run", 0, []], ["run", 1, []], ["run", 1, [2]]], "output 2 does not come into being"),
        ([["walk", 0]], "expected run, free or place"),
    ],
)
def test_a_replay_refuses_what_cannot_happen(events: list[Any], message: str) -> None:
    with pytest.raises(ReplayError, match=message):
        replay(from_json(chain(), "chain"), events)
