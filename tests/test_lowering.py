"""Updates, aliases, in-place writes, fetches: values do not depend on what memory is shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import engine, optim
from megbrain_py import functional as F


def parameter(*values: float) -> mb.Parameter:
    return mb.Parameter(np.array(values, np.float32), "p")


def kernels(function: mb.Function) -> list[str]:
    return [step.kernel for step in function.plan.instructions]


def test_an_update_is_written_directly() -> None:
    p = parameter(1, 2)
    step = mb.compile({}, updates={p: p + 1.0})
    assert kernels(step) == ["add"]
    step()
    step()
    assert p.value.tolist() == [3, 4]


def test_swapped_parameters() -> None:
    a, b = parameter(1, 2), parameter(3, 4)
    mb.compile({}, updates={a: b, b: a})()
    assert a.value.tolist() == [3, 4]
    assert b.value.tolist() == [1, 2]


def test_updates_that_read_each_other() -> None:
    a, b = parameter(1, 2), parameter(3, 4)
    mb.compile({}, updates={a: a + b, b: b - a})()
    assert a.value.tolist() == [4, 6]
    assert b.value.tolist() == [2, 2]


def test_one_value_updates_two_parameters() -> None:
    a, b, x = parameter(1, 2), parameter(3, 4), mb.placeholder("x", (2,))
    new = x * 2.0
    step = mb.compile({"new": new, "later": new + a}, updates={a: new, b: new})
    result = step(x=[5, 6])
    assert a.value.tolist() == b.value.tolist() == result["new"].tolist() == [10, 12]
    assert result["later"].tolist() == [11, 14], "outputs read the value before the update"


def test_a_fetched_parameter_is_the_value_before_the_update() -> None:
    p = parameter(1, 2)
    result = mb.compile({"old": p, "view": F.reshape(p, (2, 1))}, updates={p: p * 3.0})()
    assert result["old"].tolist() == [1, 2]
    assert result["view"].tolist() == [[1], [2]]
    assert p.value.tolist() == [3, 6]


def test_an_input_as_new_value() -> None:
    p, x = parameter(1, 2), mb.placeholder("x", (2,))
    mb.compile({"y": x + p}, updates={p: x})(x=[7, 8])
    assert p.value.tolist() == [7, 8]


def test_train_and_eval_share_parameters() -> None:
    p, x = parameter(1, 2), mb.placeholder("x", (2,))
    train = mb.compile({}, updates={p: p + x})
    evaluate = mb.compile(p * 2.0)
    train(x=[1, 1])
    assert evaluate()["output"].tolist() == [4, 6]
    p.set([0, 1])
    assert evaluate()["output"].tolist() == [0, 2]


def test_elementwise_chains_run_in_place() -> None:
    x = mb.placeholder("x", (1024,))
    y = ((x * 2.0 + 1.0) * 3.0 - 5.0) * 0.5
    function = mb.compile(y)
    assert function.peak_bytes == 1024 * 4
    value = np.arange(1024, dtype=np.float32)
    expected = ((value * 2 + 1) * 3 - 5) * 0.5
    np.testing.assert_allclose(function(x=value)["output"], expected, rtol=1e-6)


def test_fetches_survive_the_next_run_and_other_functions() -> None:
    x = mb.placeholder("x", (64,))
    function = mb.compile({"x": x, "y": x + 1.0})
    first = function(x=np.zeros(64))
    function(x=np.full(64, 9.0))
    mb.compile(mb.placeholder("z", (4096,)) * 3.0)(z=np.full(4096, 5.0))
    assert not first["x"].any()
    assert (first["y"] == 1).all()


def test_out_is_written_and_checked() -> None:
    function = mb.compile(mb.placeholder("x", (3,)) + 1.0)
    out = np.zeros(3, np.float32)
    assert function(x=[1, 2, 3], out={"output": out})["output"] is out
    assert out.tolist() == [2, 3, 4]
    with pytest.raises(mb.EngineError, match="out output expects a writable"):
        function(x=[1, 2, 3], out={"output": np.zeros(3)})


def test_a_borrowed_input_is_filled_in_place() -> None:
    function = mb.compile(mb.placeholder("x", (3,)) + 1.0)
    function.input("x")[:] = [1, 2, 3]
    assert function()["output"].tolist() == [2, 3, 4]
    function.input("x")[0] = 7
    assert function()["output"].tolist() == [8, 3, 4]
    assert function(x=[0, 0, 0])["output"].tolist() == [1, 1, 1]


def test_peak_is_what_the_arena_takes() -> None:
    # larger than any plan before it in this process: the arena grows to exactly this plan
    x = mb.placeholder("x", (engine.arena_bytes() // 4 + 1_000_000,))
    y = F.sum((x + 1.0) * x)
    function = mb.compile(y)
    assert function.plan.scratch_bytes == engine.arena_bytes() == function.peak_bytes
    assert function.plan.lower_bound <= function.peak_bytes


FEED_ERRORS = [
    ({}, "input x is missing"),
    ({"x": np.zeros(4)}, "input x expects shape .3,., found .4,."),
    ({"x": np.zeros(3), "z": 1}, "no input is named z; inputs: x"),
    ({"x": np.zeros(3, complex)}, "input x expects float32, found complex128"),
]


@pytest.mark.parametrize(("feeds", "message"), FEED_ERRORS)
def test_wrong_feeds(feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(mb.EngineError, match=message):
        mb.compile(mb.placeholder("x", (3,)) + 1.0)(**feeds)


@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:-1", "cpu:x", "cuda:0 "])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(mb.EngineError, match=f"^device {device} is not known; expected cpu or"):
        mb.compile(mb.placeholder("x", (3,)) + 1.0, device=device)


def test_unlisted_input() -> None:
    x, y = mb.placeholder("x", (3,)), mb.placeholder("y", (3,))
    with pytest.raises(mb.CompileError, match="input y is used but not listed"):
        mb.compile(x + y, inputs=[x])


def test_a_building_function_is_compiled_once_per_signature() -> None:
    @mb.function(cache_size=2)
    def double(x: mb.Var) -> dict[str, mb.Var]:
        return {"y": x * 2.0}

    for size in (2, 3, 2, 3, 4, 4):
        assert double(x=np.ones(size))["y"].tolist() == [2.0] * size
    assert double.compilations == 3
    double(x=np.ones(2))  # was evicted by size 4
    assert double.compilations == 4


@dataclass(frozen=True)
class _Difference(mb.Operator, kernel="sub"):
    """a - b, which may be written over a only: stands for kernels that read b more than once."""

    def infer(self, a: mb.TensorType, b: mb.TensorType) -> mb.TensorType:
        return a

    def may_overwrite(
        self, inputs: Sequence[mb.TensorType], outputs: Sequence[mb.TensorType]
    ) -> Sequence[tuple[int, int]]:
        return [(0, 0)]


def test_an_input_used_twice_is_overwritten_only_if_both_uses_permit() -> None:
    x = mb.placeholder("x", (64,))
    once = mb.compile(_Difference()(x + 1.0, x))
    twice = mb.compile(_Difference()(x + 1.0, x + 1.0))
    assert once.peak_bytes == 2 * 64 * 4
    assert twice.peak_bytes == 2 * 64 * 4, "the output has storage of its own"
    value = np.arange(64, dtype=np.float32)
    assert (once(x=value)["output"] == 1).all()
    assert (twice(x=value)["output"] == 0).all()


def test_updates_run_as_soon_as_their_gradient_is_there() -> None:
    """A deep stack never holds the gradients of two layers: each is applied and forgotten."""
    weights = [parameter_of_shape(64, 64, seed=k) for k in range(12)]
    h = mb.placeholder("x", (4, 64))
    for w in weights:
        h = F.tanh(F.matmul(h, w))
    sgd = optim.SGD(weights, momentum=0.9)
    step = mb.compile({}, updates=sgd.updates(F.sum(h * h), mb.placeholder("lr", ())))
    gradient_bytes = [0] * len(step.plan.instructions)
    for at, instruction in enumerate(step.plan.instructions):
        if instruction.kernel == "sgd_update":
            slot = step.plan.slots[instruction.inputs[1]]
            for live in range(slot.first, at + 1):
                gradient_bytes[live] += slot.type.nbytes
    assert max(gradient_bytes) == 64 * 64 * 4


def parameter_of_shape(*shape: int, seed: int) -> mb.Parameter:
    rng = np.random.default_rng(seed)
    return mb.Parameter(rng.normal(0, 0.1, shape).astype(np.float32), f"w{seed}")
