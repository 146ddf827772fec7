"""k ranks with b images each give what one rank with k b images gives, and repeat bit by bit."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from rank_programs import Arrays, batch_norm, detector, own_part, train

import megbrain_py as mb
from megbrain_py import distributed, nn, optim
from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.models.resnet import resnet
from megbrain_py.op_testing import integers, normal, relative_error
from megbrain_py.ops.collective.merge_moments import MergeMoments

SHARDS = [(4, 4), (1, 7), (3, 0, 5), (3, 3, 2), (2, 2, 2, 2), (0, 8)]
SUMMED = ("dgamma", "dbeta", "mean", "var")  # equal on every rank


def on_ranks(shards: Sequence[int], *rest: object, program: object = batch_norm) -> list[Arrays]:
    return distributed.run(lambda: program(shards, *rest), len(shards))  # type: ignore[operator]


def worst(found: Arrays, expected: Arrays, names: Sequence[str]) -> float:
    return max(relative_error(found[n], expected[n]) for n in names)


@pytest.mark.parametrize("two_pass", [False, True], ids=["merged", "two_pass"])
@pytest.mark.parametrize("shards", SHARDS, ids=str)
def test_batch_norm_over_ranks_is_that_of_the_whole_batch(
    shards: tuple[int, ...], two_pass: bool
) -> None:
    whole = batch_norm([sum(shards)])
    found = on_ranks(shards, two_pass)
    joined = {n: np.concatenate([one[n] for one in found]) for n in ("y", "dx")}
    assert worst(joined, whole, ["y", "dx"]) <= 1e-5
    for one in found:
        assert worst(one, whole, SUMMED) <= 1e-5
        assert all(np.array_equal(one[n], found[0][n]) for n in SUMMED), "not equal on all ranks"


def test_groups_normalise_apart() -> None:
    found = on_ranks([2, 1, 3, 2], False, [0, 1, 0, 1])
    x = normal(8, 5, 6, 4, scale=3, shift=50, seed=0)
    for rank, members in enumerate([(0, 2), (1, 3), (0, 2), (1, 3)]):
        rows = np.concatenate([x[[0, 2, 3, 6][m] :][: [2, 1, 3, 2][m]] for m in members])
        mean = rows.astype(np.float64).mean(axis=(0, 2, 3))
        np.testing.assert_allclose(found[rank]["mean"], 0.9 * 2.0 + 0.1 * mean, rtol=1e-6)


def test_no_image_on_any_rank_leaves_the_running_values() -> None:
    for one in on_ranks([0, 0]):
        np.testing.assert_array_equal(one["mean"], np.full(5, 2.0, np.float32))
        np.testing.assert_array_equal(one["var"], np.full(5, 3.0, np.float32))


def test_moments_of_float64_merge_exactly() -> None:
    """Far means, unequal counts, an empty rank: Chan's formula against numpy on all values."""
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((n, 3)) * 2 + shift
             for n, shift in ((40, 1e4), (1, -3e3), (0, 0.0), (700, 2e4))]  # fmt: skip

    def program() -> list[Array]:
        own = parts[distributed.current().rank]
        mean = own.mean(axis=0) if len(own) else np.zeros(3)
        given = [np.full(1, float(len(own))), mean, np.square(own - mean).sum(axis=0)]
        inputs = [mb.placeholder(f"x{i}", a.shape, "float64") for i, a in enumerate(given)]
        merged = mb.compile(list(F.merge_moments(*inputs)))
        return list(merged(**{f"x{i}": a for i, a in enumerate(given)}).values())

    everything = np.concatenate(parts)
    mean = everything.mean(axis=0)
    m2 = np.square(everything - mean).sum(axis=0)
    for count, found_mean, found_m2 in distributed.run(program, len(parts)):
        assert count == len(everything)
        assert relative_error(found_mean, mean) <= 1e-12
        assert relative_error(found_m2, m2) <= 1e-12


@pytest.mark.parametrize(
    ("name", "shards", "steps"),
    [("convolutions", s, 3) for s in SHARDS] + [("resnet18", s, 1) for s in ((4, 4), (3, 0, 5))],
    ids=str,
)
def test_training_on_ranks_is_that_of_the_whole_batch(
    name: str, shards: tuple[int, ...], steps: int
) -> None:
    _compare(shards, lambda *given: train(name, steps, *given))


@pytest.mark.parametrize("shards", [(3, 3), (1, 5), (2, 2, 2)], ids=str)
def test_a_detectors_step_on_ranks_is_that_of_the_whole_batch(shards: tuple[int, ...]) -> None:
    """Normalisers count all ranks' anchors and boxes; drawing depends on the picture alone."""
    _compare(shards, detector)


def _compare(shards: Sequence[int], program: Callable[..., Arrays]) -> None:
    """Losses and gradients on ranks against those of one rank; equal on all ranks; repeated."""
    seed, whole, names, noise = _well_conditioned([sum(shards)], program)
    found = distributed.run(lambda: program(shards, seed), len(shards))
    again = distributed.run(lambda: program(shards, seed), len(shards))
    error = worst(found[0], whole, names)
    assert error <= 1e-3, f"{error:.1e}"
    assert error <= 5 * noise, f"{error:.1e}, by another order of images {noise:.1e}"
    for one, other in zip(found, again, strict=True):
        for n in whole:
            assert np.array_equal(one[n], found[0][n]), f"{n} is not equal on all ranks"
            assert np.array_equal(one[n], other[n]), f"{n} does not repeat"


def _well_conditioned(
    shards: Sequence[int], program: Callable[..., Arrays]
) -> tuple[int, Arrays, list[str], float]:
    """Images whose order does not decide on which side of 0 a ReLU's input lies.

    Their seed, what one rank makes of them, what to compare, and the difference that another order
    of the images makes: rounding.
    """
    for seed in range(10):
        whole, permuted = program(shards, seed), program(shards, seed, True)
        names = [n for n in whole if n.startswith(("loss", "d_"))]
        noise = worst(permuted, whole, names)
        if noise <= 1e-4:
            return seed, whole, names, noise
    raise AssertionError("every batch stands on a ReLU's edge")


def test_gradients_lie_in_one_piece() -> None:
    """Buckets: a single range of memory each, in place, one collective; no copies."""

    def program() -> mb.Function:
        x = mb.placeholder("x", (4, 30))
        net = nn.Sequential(*[nn.Linear(30, 30) for _ in range(6)])
        gradients = mb.gradients(F.sum(F.square(net(x))), net.parameters())
        summed = distributed.data_parallel(gradients, bucket_bytes=6000)
        return mb.compile({f"d{i}": g for i, g in enumerate(summed)})

    plan = distributed.run(program, 2)[0].plan
    assert not [i for i in plan.instructions if i.kernel in ("copy", "concat", "slice")]
    buckets = [i for i in plan.instructions if i.kernel == "all_reduce_later"]
    sizes = [sum(plan.slots[s].type.nbytes for s in bucket.inputs) for bucket in buckets]
    assert len(sizes) > 2
    assert min(sizes[:-1]) >= 6000
    assert sum(len(bucket.inputs) for bucket in buckets) == 12
    for bucket in buckets:
        slots = [plan.slots[s] for s in bucket.inputs]
        assert [plan.slots[s].offset for s in bucket.outputs] == [s.offset for s in slots]
        for one, following in itertools.pairwise(slots):
            assert following.offset == one.offset + -(-one.type.nbytes // 64) * 64
    order = [i.kernel for i in plan.instructions]
    first = order.index("all_reduce_later")
    assert any("matmul" in kernel or "linear" in kernel for kernel in order[first:]), (
        f"the first bucket starts before backward has ended: {order}"
    )


def test_average_is_the_sum_over_the_ranks() -> None:
    def program() -> tuple[Array, Array]:
        w = mb.Parameter(np.ones(3))
        rank = float(distributed.current().rank + 1)
        (g,) = mb.gradients(F.sum(w * rank), [w])
        both = [distributed.data_parallel([g], average=average)[0] for average in (False, True)]
        found = mb.compile(both)()
        return found["output0"], found["output1"]

    for total, mean in distributed.run(program, 3):
        np.testing.assert_array_equal(total, [6, 6, 6])
        np.testing.assert_allclose(mean, [2, 2, 2], rtol=1e-6)


def test_a_module_of_torch_names_is_converted_in_place() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4)))
    before = list(net.named_state())
    group = distributed.Group((0,))
    nn.sync_batch_norms(net, group, two_pass=True)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [(m.group, m.two_pass) for m in norms] == [(group, True)] * 2
    assert list(net.named_state()) == before


def test_a_group_of_one_needs_no_collective() -> None:
    def program() -> list[str]:
        x = mb.placeholder("x", (4, 3, 2, 2))
        norm = nn.BatchNorm2d(3, group=distributed.sharing_images(4, 4))
        with nn.train_mode() as updates:
            y = norm(x)
        return [i.kernel for i in mb.compile({"y": y}, updates=updates).plan.instructions]

    assert "merge_moments" not in distributed.run(program, 2)[0]


@pytest.mark.parametrize(
    ("images", "each", "message"),
    [(6, 4, "6 images are no whole number of ranks with 4 each"),
     (12, 4, "2 ranks cannot form groups of 3")],
)  # fmt: skip
def test_images_that_do_not_fit_the_ranks(images: int, each: int, message: str) -> None:
    with pytest.raises(mb.GraphError, match=message):
        distributed.run(lambda: distributed.sharing_images(images, each), 2)


def test_collectives_keep_the_order_of_the_graph() -> None:
    """The scheduler would put the small one first; all ranks must keep one order."""
    x = mb.placeholder("x", (1000,))
    alone = distributed.Group((0,))
    large, small = F.all_reduce(F.exp(x), group=alone), F.all_reduce(F.sum(x), group=alone)
    plan = mb.compile({"small": small, "large": large}).plan
    shapes = [plan.slots[i.inputs[0]].type.shape for i in plan.instructions if i.op.collective]
    assert shapes == [(1000,), ()]


def test_equal_collectives_are_not_merged() -> None:
    x = mb.placeholder("x", (3,))
    plan = mb.compile([F.all_reduce(x, group=distributed.Group((0,))) for _ in range(2)]).plan
    assert [i.kernel for i in plan.instructions].count("all_reduce") == 2


def test_collectives_of_constants_are_not_folded() -> None:
    def program() -> Array:
        y = F.all_reduce(mb.constant([1.0, 2.0]))
        return mb.compile(y)()["output"]

    for found in distributed.run(program, 3):
        np.testing.assert_array_equal(found, [3, 6])


def test_the_gradient_of_merged_moments_is_one_all_reduce() -> None:
    x = mb.placeholder("x", (4, 3, 2, 2))
    group = distributed.Group((0, 0))
    y = F.batch_norm(x, *[mb.Parameter(np.ones(3)) for _ in range(4)], training=True, group=group)
    dx = mb.gradients(F.sum(y[0]), [x])
    collectives = [n.op for n in mb.Graph({"dx": dx[0]}).nodes if n.op.collective]
    assert [type(op).__name__ for op in collectives] == [MergeMoments.__name__, "AllReduce"]


def test_alone_nothing_is_exchanged() -> None:
    x = mb.placeholder("x", (3,))
    same = [F.all_reduce(x), F.all_gather(x), F.reduce_scatter(x), F.broadcast(x)]
    assert all(y is x for y in [*same, *distributed.data_parallel([x])])


def test_counts_of_losses_are_those_of_all_ranks_in_training_only() -> None:
    def program() -> tuple[float, float]:
        rank = float(distributed.current().rank + 1)
        evaluated = nn.over_ranks(mb.constant(rank))
        with nn.train_mode():
            trained = nn.over_ranks(mb.constant(rank))
        found = mb.compile([evaluated, trained])()
        return float(found["output0"]), float(found["output1"])

    assert distributed.run(program, 3) == [(1, 6), (2, 6), (3, 6)]


def test_the_documented_program_runs() -> None:
    page = (Path(__file__).parent.parent / "docs" / "distributed.md").read_text()
    (text,) = re.findall(r"```python\n(def program.*?)```", page, re.DOTALL)
    last = "    return step(x=normal(8, 3, 32, 32), label=integers(8))"
    scope = {"mb": mb, "F": F, "nn": nn, "optim": optim, "distributed": distributed}
    scope |= {"resnet": resnet, "normal": normal, "integers": integers}
    exec(text.replace("224, 224", "32, 32") + last, scope)
    first, second = distributed.run(scope["program"], 2)
    assert np.isfinite(first["loss"])
    assert first == second


def test_own_parts_cover_the_batch() -> None:
    parts = distributed.run(lambda: own_part([3, 0, 5]), 3)
    assert [list(range(8))[part] for part in parts] == [[0, 1, 2], [], [3, 4, 5, 6, 7]]
