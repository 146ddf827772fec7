"""Collectives on ranks that are threads: random sequences against numpy; what goes wrong ends."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rank_programs import other_graphs
from test_sanitizers import allocated_bytes

import megbrain_py as mb
from megbrain_py import _engine, debug, distributed, nn  # noqa: TID251  (sets the limit)
from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.graph import Var, nodes_of
from megbrain_py.op_testing import relative_error
from megbrain_py.ops.collective.collective import (
    AllGather,
    AllReduce,
    AllReduceLater,
    Broadcast,
    Collective,
    ReduceScatter,
    ReduceToRoot,
)

SEQUENCES = 1000
TYPES = ("float32", "float64", "int32", "int64", "uint8")


@pytest.fixture
def limit() -> Any:
    """A short limit for ranks that never come."""
    _engine.set_collective_limit(1.0)
    yield
    _engine.set_collective_limit(300.0)


# --- random sequences -----------------------------------------------------------------------------


def _sequence(seed: int, ranks: int) -> tuple[list[Collective], list[tuple[int, ...]], str]:
    """Collectives on random groups, the shape that each takes, and their element type."""
    rng = np.random.default_rng(seed)
    found: list[Collective] = []
    shapes: list[tuple[int, ...]] = []
    for _ in range(int(rng.integers(1, 6))):
        parts = rng.choice([n for n in range(1, ranks + 1) if ranks % n == 0])
        colors = tuple(rng.permutation(np.arange(ranks) % parts).tolist())  # groups of one size
        uneven = tuple(rng.integers(0, 2, ranks).tolist())
        smallest = min(uneven.count(c) for c in uneven)
        reduction = str(rng.choice(["sum", "max", "min"]))
        kinds: list[Collective] = [
            AllReduce(uneven, reduction),  # type: ignore[arg-type]
            AllReduceLater(uneven, reduction),  # type: ignore[arg-type]
            AllGather(colors),
            ReduceScatter(colors),
            Broadcast(uneven, int(rng.integers(smallest))),
            ReduceToRoot(uneven, int(rng.integers(smallest))),
        ]
        found.append(kinds[int(rng.integers(len(kinds)))])
        rows = int(rng.integers(0, 4)) * (ranks // int(parts))
        shapes.append((rows, int(rng.choice([1, 3, 17, 5000]))))
    return found, shapes, str(rng.choice(TYPES))


def _values(seed: int, index: int, rank: int, shape: tuple[int, ...], dtype: str) -> Array:
    rng = np.random.default_rng([seed, index, rank])
    return (rng.standard_normal(shape) * 100 if "float" in dtype else
            rng.integers(0, 50, shape)).astype(dtype)  # fmt: skip


def _run_sequence(seed: int) -> list[Array]:
    world = distributed.current()
    collectives, shapes, dtype = _sequence(seed, world.size)
    inputs = [mb.placeholder(f"x{i}", shape, dtype) for i, shape in enumerate(shapes)]
    made = [op(x) for op, x in zip(collectives, inputs, strict=True)]
    listed: list[Var] = [y[0] if isinstance(y, tuple) else y for y in made]
    feeds = {f"x{i}": _values(seed, i, world.rank, s, dtype) for i, s in enumerate(shapes)}
    return list(mb.compile(listed)(**feeds).values())


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 6])
def test_random_sequences(ranks: int) -> None:
    seeds = range(1000 * ranks, 1000 * ranks + SEQUENCES // 5)
    found = distributed.run(lambda: [_run_sequence(seed) for seed in seeds], ranks)
    for at, seed in enumerate(seeds):
        collectives, shapes, dtype = _sequence(seed, ranks)
        for index, (op, shape) in enumerate(zip(collectives, shapes, strict=True)):
            given = [[_values(seed, index, r, shape, dtype)] for r in range(ranks)]
            for color in set(op.colors):
                members = [r for r in range(ranks) if op.colors[r] == color]
                expected = op.among([given[r] for r in members])
                for rank, (value,) in zip(members, expected, strict=True):
                    result = found[rank][at][index]
                    same = relative_error(result, value) <= (1e-5 if "float" in dtype else 0)
                    assert same, f"seed {seed}, {op} on rank {rank}"


def test_sequences_leak_nothing() -> None:
    used = allocated_bytes()

    def several() -> None:
        distributed.run(lambda: [_run_sequence(seed) for seed in range(5)] and None, 3)
        gc.collect()

    for _ in range(5):
        several()
    before, threads = used(), _threads()
    for _ in range(20):
        several()
    assert used() - before < 200_000
    assert _threads() == threads


def _threads() -> int:
    """Python's and the engine's."""
    return len(list(Path("/proc/self/task").iterdir()))


def test_sums_add_in_the_order_of_ranks() -> None:
    """float32: 1e8 + 1 - 1e8 is 0, in another order 1. Large enough for several blocks."""
    values = np.array([1e8, 1.0, -1e8], np.float32)

    def program() -> Array:
        x = mb.placeholder("x", (100_003,))
        own = np.full(100_003, values[distributed.current().rank], np.float32)
        return mb.compile(F.all_reduce(x))(x=own)["output"]

    expected = values[0] + values[1] + values[2]
    for found in distributed.run(program, 3):
        assert (found == expected).all()


def test_several_functions_run_side_by_side() -> None:
    """Each rank has a device: without collectives none waits for another's run."""
    meeting = threading.Barrier(2, timeout=20)

    class Watch:
        def before(self, index: int) -> None:
            meeting.wait()  # within the run of both

        def after(self, index: int) -> None: ...

    def program() -> str:
        function = mb.compile(F.exp(mb.placeholder("x", (3,))))
        out = {"output": np.empty(3, np.float32)}
        function._executable.run({"x": np.zeros(3, np.float32)}, out, observer=Watch())
        return function.plan.device

    assert distributed.run(program, 2) == ["cpu:0", "cpu:1"]


# --- values between programs ----------------------------------------------------------------------


def test_values_are_exchanged() -> None:
    def program() -> None:
        rank = distributed.current().rank
        assert distributed.all_gather_objects("x" * rank) == ["", "x", "xx"]
        assert distributed.broadcast_object({"rank": rank}, root=2) == {"rank": 2}
        gathered = distributed.all_gather(np.full((rank, 2), rank))
        assert [a.shape for a in gathered] == [(0, 2), (1, 2), (2, 2)]
        np.testing.assert_array_equal(distributed.all_reduce([rank, 1]), [3, 3])
        assert distributed.all_reduce(rank, "max") == 2
        weight = mb.Parameter(np.full(3, float(rank)))
        distributed.broadcast_state([weight], root=1)
        np.testing.assert_array_equal(weight.value, [1, 1, 1])
        distributed.barrier()

    distributed.run(program, 3)


def test_one_rank_exchanges_with_itself() -> None:
    assert distributed.current().size == 1
    assert distributed.all_gather_objects(5) == [5]
    np.testing.assert_array_equal(distributed.all_reduce([2.0]), [2.0])
    distributed.barrier()


def test_layers_draw_the_same_weights_on_every_rank() -> None:
    weights = distributed.run(lambda: nn.Linear(4, 4).weight.value + 0, 3)
    assert all(np.array_equal(w, weights[0]) for w in weights)


# --- what goes wrong ------------------------------------------------------------------------------


def _error(program: Callable[[], object], ranks: int = 3) -> str:
    started = time.monotonic()
    with pytest.raises(mb.EngineError) as raised:
        distributed.run(program, ranks)
    assert time.monotonic() - started < 10
    return str(raised.value)


@pytest.mark.usefixtures("limit")
def test_a_missing_rank_is_named() -> None:
    text = _error(lambda: other_graphs("missing"))
    assert "before a run that begins with all_reduce(colors=(0, 0, 0), reduction='sum')" in text
    assert "rank_programs.py:" in text
    assert "waited 1 s (MB_COLLECTIVE_TIMEOUT) for rank 1 in" in text


@pytest.mark.usefixtures("limit")
def test_a_rank_that_stops_within_a_run_is_named() -> None:
    """It passes the agreement and then never reaches the second collective."""

    class Stop:
        def before(self, index: int) -> None:
            if index == 1 and distributed.current().rank == 1:
                time.sleep(2.5)

        def after(self, index: int) -> None: ...

    def program() -> None:
        x = mb.placeholder("x", (3,))
        function = mb.compile(F.all_reduce(F.exp(F.all_reduce(x))))
        out = {"output": np.empty(3, np.float32)}
        function._executable.run({"x": np.zeros(3, np.float32)}, out, observer=Stop())

    text = _error(program)
    assert text.startswith("all_reduce at ")
    assert "test_collectives.py:" in text
    assert "for rank 1 in an all-reduce of 3 float32, sum" in text


@pytest.mark.parametrize(
    ("what", "lines"),
    [
        ("reduction", ("reduction='sum')(float32[4])", "reduction='max')(float32[4])")),
        ("group", ("colors=(0, 0, 0)", "colors=(0, 1, 2)")),
        ("count", ("rank 0: nothing more", "rank 1: all_reduce")),
    ],
)
def test_mismatched_graphs_are_told_apart(what: str, lines: Sequence[str]) -> None:
    text = _error(lambda: other_graphs(what))
    assert "the ranks run different programs; their collectives and parameters" in text
    for number, line in enumerate(lines):
        assert line in text.splitlines()[1 + number], text


def test_mismatched_parameters_are_told_apart() -> None:
    def program() -> None:
        size = 3 + distributed.current().rank
        w = mb.Parameter(np.ones(size), name="weight")
        mb.compile(F.all_reduce(F.sum(w)))()

    assert "rank 0: weight: float32[3]\n  rank 1: weight: float32[4]" in _error(program)


def test_a_group_of_other_ranks_is_refused() -> None:
    def program() -> None:
        mb.compile(F.all_reduce(mb.placeholder("x", (3,)), group=distributed.Group((0, 0))))

    assert "the group is one of 2 ranks, here are 3" in _error(program)
    with pytest.raises(mb.EngineError, match="the group is one of 2 ranks, this program has one"):
        program()


def test_an_exception_of_one_rank_ends_all_and_is_raised() -> None:
    def program() -> None:
        if distributed.current().rank == 2:
            raise KeyError("rank two")
        other_graphs("none")

    started = time.monotonic()
    with pytest.raises(KeyError, match="rank two"):
        distributed.run(program, 3)
    assert time.monotonic() - started < 5


def test_a_rank_can_say_that_it_stops() -> None:
    def program() -> str:
        if distributed.current().rank == 1:
            distributed.abort("no more pictures")
            return ""
        with pytest.raises(mb.EngineError) as raised:
            distributed.barrier()
        return str(raised.value)

    distributed.abort("alone: does nothing")
    assert distributed.run(program, 2)[0] == "exchange: rank 1 stopped: no more pictures"


def test_after_an_error_the_next_world_is_sound() -> None:
    def failing() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        distributed.run(failing, 2)
    assert distributed.run(lambda: float(distributed.all_reduce(1.0)), 2) == [2.0, 2.0]


def test_a_failed_world_stays_failed() -> None:
    def program() -> str:
        if distributed.current().rank == 1:
            raise ValueError("gone")
        text = ""
        for _ in range(2):
            try:
                distributed.barrier()
            except mb.EngineError as error:
                text = str(error)
        seen.append(text)
        return text

    seen: list[str] = []
    with pytest.raises(ValueError, match="gone"):
        distributed.run(program, 2)
    assert seen == ["exchange: rank 1 stopped: ValueError: gone"]


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan"])
def test_the_limit_must_be_seconds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_COLLECTIVE_TIMEOUT", text)
    with pytest.raises(mb.EngineError, match="MB_COLLECTIVE_TIMEOUT: expected seconds > 0"):
        debug.collective_timeout()


def test_nccl_says_what_is_missing() -> None:
    with pytest.raises(mb.EngineError, match="nccl needs CUDA devices"):
        distributed.init("nccl")  # type: ignore[arg-type]


def test_a_max_has_no_gradient() -> None:
    x = mb.placeholder("x", (3,))
    with pytest.raises(mb.GraphError, match="all_reduce: only a sum has a gradient"):
        mb.gradients(F.sum(F.all_reduce(x, "max", distributed.Group((0,)))), [x])


def test_gradients_of_collectives_are_collectives() -> None:
    x = mb.placeholder("x", (4,))
    group = distributed.Group((0, 0))
    pairs = [
        (F.all_reduce(x, group=group), AllReduce), (F.all_gather(x, group), ReduceScatter),
        (F.reduce_scatter(x, group), AllGather), (F.broadcast(x, 1, group), ReduceToRoot),
    ]  # fmt: skip
    for y, kind in pairs:
        (dx,) = mb.gradients(F.sum(y), [x])
        assert kind in [type(n.op) for n in nodes_of([dx])]


def test_gradients_through_collectives_equal_finite_differences() -> None:
    """Of the sum of all ranks' losses, along one direction on all ranks at once."""
    rng = np.random.default_rng(3)
    x, direction = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 4, 3))
    weights = rng.standard_normal((2, 16, 3))

    def program(step: float) -> tuple[float, float]:
        rank = distributed.current().rank
        v = mb.placeholder("x", (4, 3))
        parts = [F.all_reduce(v), F.all_gather(v), F.reduce_scatter(v), F.broadcast(v, 1)]
        y = F.concat([p * p for p in parts], 0)
        rows = (
            weights[rank, : y.shape[0]] if y.shape[0] <= 16 else np.resize(weights[rank], y.shape)
        )
        loss = F.sum(y * mb.constant(rows.astype(np.float32)))
        (dx,) = mb.gradients(loss, [v])
        moved = (x[rank] + step * direction[rank]).astype(np.float32)
        found = mb.compile({"loss": loss, "dx": dx})(x=moved)
        slope = float((found["dx"].astype(np.float64) * direction[rank]).sum())
        return (float(distributed.all_reduce(float(found["loss"]))),
                float(distributed.all_reduce(slope)))  # fmt: skip

    step = 1e-2
    (above, _), (below, _) = (distributed.run(lambda s=s: program(s), 2)[0] for s in (step, -step))
    _, slope = distributed.run(lambda: program(0.0), 2)[0]
    numeric = (above - below) / (2 * step)
    assert abs(numeric - slope) <= 1e-3 * abs(slope)
