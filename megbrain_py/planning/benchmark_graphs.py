"""Training graphs to measure the planner with: ResNets with roofline costs, random ones, chains."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from megbrain_py.planning.memplan import MemoryGraph, Task

# The roof of the costs, a data-centre GPU of 2018 in float32; costs are nanoseconds.
FLOPS_PER_NS = 14_000
BYTES_PER_NS = 800
ELEMENT = 4  # bytes


@dataclass
class _Builder:
    """Collects tensors and tasks; `add` returns the new task's outputs."""

    sizes: list[int] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    base: list[int] = field(default_factory=list)
    keep: list[int] = field(default_factory=list)
    backward: bool = False

    def parameter(self, size: int) -> int:
        self.sizes.append(size)
        self.base.append(len(self.sizes) - 1)
        return self.base[-1]

    def add(
        self,
        name: str,
        inputs: tuple[int, ...],
        sizes: tuple[int, ...],
        flops: float = 0,
        workspace: int = 0,
        over: int | None = None,
    ) -> tuple[int, ...]:
        """`over`: an input that the first output may take in place."""
        outputs = tuple(range(len(self.sizes), len(self.sizes) + len(sizes)))
        self.sizes.extend(sizes)
        moved = sum(self.sizes[t] for t in (*inputs, *outputs))
        cost = max(1, round(max(flops / FLOPS_PER_NS, moved / BYTES_PER_NS)))
        permits = () if over is None else ((outputs[0], over),)
        self.tasks.append(Task(name, cost, inputs, outputs, workspace, permits, self.backward))
        return outputs

    def graph(self, name: str) -> MemoryGraph:
        return MemoryGraph(
            name, tuple(self.sizes), frozenset(self.base), frozenset(self.keep), tuple(self.tasks)
        )


@dataclass(frozen=True)
class _Convolution:
    """One pre-activation layer of the forward pass: normalise, ReLU, convolve."""

    x: int
    statistics: int
    active: int  # what the convolution reads
    weight: int
    flops: float
    name: str


def resnet(layers: int = 1001, batch: int = 32) -> MemoryGraph:
    """A pre-activation bottleneck ResNet (He et al. 2016) on 224-pixel images, and its gradients.

    About `layers`: 9 n + 2, in three stages of n units. Each convolution has two gradients.
    """
    units = (layers - 2) // 9
    if units < 1:
        raise ValueError(f"a bottleneck ResNet has at least 11 layers, not {layers}")
    build = _Builder()
    image = build.parameter(batch * 3 * 224 * 224 * ELEMENT)
    stem = build.parameter(64 * 3 * 49 * ELEMENT)
    pixels = 56 * 56
    (x,) = build.add(
        "stem", (image, stem), (batch * 64 * pixels * ELEMENT,), 2 * 147 * batch * 64 * pixels
    )
    forward: list[list[_Convolution]] = []
    channels = 64
    for stage in range(3):
        width = 64 << stage
        for unit in range(units):
            shrink = stage > 0 and unit == 0
            name = f"s{stage}.u{unit}"
            x, convolutions, pixels = _unit(build, x, name, batch, pixels, channels, width, shrink)
            forward.append(convolutions)
            channels = 4 * width
    (loss, g) = build.add("loss", (x,), (ELEMENT, build.sizes[x]))
    build.backward = True
    build.keep.append(loss)
    for convolutions in reversed(forward):
        g = _unit_gradient(build, g, convolutions)
    build.keep.extend(build.add("stem.wgrad", (g, image), (build.sizes[stem],), 2 * 147 * batch))
    return build.graph(f"resnet{layers}")


def _unit(
    build: _Builder, x: int, name: str, batch: int, pixels: int, inputs: int, width: int,
    shrink: bool,
) -> tuple[int, list[_Convolution], int]:  # fmt: skip
    """One unit; its shortcut pools and repeats channels where shapes change, within `add`."""
    convolutions = []
    y = x
    for i, (before, after, kernel) in enumerate(
        ((inputs, width, 1), (width, width, 3), (width, 4 * width, 1))
    ):
        if shrink and i == 1:
            pixels //= 4
        normal, statistics = build.add(
            f"{name}.bn{i}", (y,), (build.sizes[y], 2 * before * ELEMENT)
        )
        (active,) = build.add(f"{name}.relu{i}", (normal,), (build.sizes[y],), over=normal)
        weight = build.parameter(before * after * kernel * kernel * ELEMENT)
        flops = 2.0 * batch * pixels * before * after * kernel * kernel
        size = batch * after * pixels * ELEMENT
        (z,) = build.add(f"{name}.conv{i}", (active, weight), (size,), flops)
        convolutions.append(_Convolution(y, statistics, active, weight, flops, f"{name}.{i}"))
        y = z
    (total,) = build.add(f"{name}.add", (y, x), (build.sizes[y],), over=y)
    return total, convolutions, pixels


def _unit_gradient(build: _Builder, g: int, convolutions: list[_Convolution]) -> int:
    shortcut = g
    for c in reversed(convolutions):
        size = build.sizes[c.active]
        build.keep.extend(
            build.add(f"{c.name}.wgrad", (g, c.active), (build.sizes[c.weight],), c.flops)
        )
        (g,) = build.add(f"{c.name}.dgrad", (g, c.weight), (size,), c.flops)
        (g,) = build.add(f"{c.name}.relu_grad", (g, c.active), (size,), over=g)
        (g,) = build.add(f"{c.name}.bn_grad", (g, c.x, c.statistics), (size,), over=g)
    (g,) = build.add("add_grad", (g, shortcut), (build.sizes[g],), over=g)
    return g


def random_training(ops: int, seed: int = 0) -> MemoryGraph:
    """About `ops` tasks: a random network with skips, branches, in-place tasks, and its gradients.

    A gradient reads its forward task's output gradient and a choice of its inputs and outputs.
    """
    rng = random.Random(seed)
    build = _Builder()
    recent = [build.parameter(rng.randint(1, 64) << 10)]
    forward: list[tuple[tuple[int, ...], int, int | None]] = []
    scale = 64
    while len(forward) * 2.94 < ops:  # tasks per forward task, its gradients included
        if rng.random() < 0.02:
            scale = max(4, min(256, scale + rng.choice((-16, 16))))
        count = 1 if rng.random() < 0.7 else 2
        inputs = tuple({recent[-1], *rng.sample(recent, min(count - 1, len(recent)))})
        weight = build.parameter(rng.randint(1, 8) << 10) if rng.random() < 0.5 else None
        size = max(1, round(scale * rng.choice((0.25, 0.5, 1, 1, 1, 2)))) << 10
        flops = size * rng.choice((10, 100, 1000)) if weight is not None else 0
        made = [t for t in inputs if t not in build.base and build.sizes[t] == size]
        (out,) = build.add(
            "f", inputs + ((weight,) if weight is not None else ()), (size,), flops,
            workspace=rng.choice((0, 0, 0, size // 2)),
            over=made[0] if made and rng.random() < 0.5 else None,
        )  # fmt: skip
        forward.append((inputs, out, weight))
        recent = [*recent, out][-rng.choice((2, 3, 4, 12)) :]
    _random_gradients(build, forward, rng)
    return build.graph(f"random{ops}_{seed}")


def _random_gradients(
    build: _Builder, forward: list[tuple[tuple[int, ...], int, int | None]], rng: random.Random
) -> None:
    read = {t for inputs, _, _ in forward for t in inputs}
    leaves = tuple(out for _, out, _ in forward if out not in read)
    loss, *seeds = build.add("loss", leaves, (ELEMENT, *(build.sizes[t] for t in leaves)))
    build.keep.append(loss)
    build.backward = True
    gradient = dict(zip(leaves, seeds, strict=True))
    for inputs, out, weight in reversed(forward):
        g = gradient.pop(out)
        saved = rng.choice(((out,), inputs, inputs, ()))
        if weight is not None:
            build.keep.extend(build.add("wgrad", (g, *inputs), (build.sizes[weight],)))
        for t in inputs:
            if t in build.base:
                continue
            extra = (weight,) if weight is not None else ()
            reads = tuple(dict.fromkeys((g, *saved, *extra)))
            (new,) = build.add("dgrad", reads, (build.sizes[t],))
            if t in gradient:
                old = gradient[t]
                (new,) = build.add("sum", (new, old), (build.sizes[t],), over=new)
            gradient[t] = new


def never_again(graph: MemoryGraph, share: float, seed: int = 0) -> MemoryGraph:
    """The graph with a share of its tasks, chosen at random, that may not run a second time."""
    rng = random.Random(seed)
    tasks = tuple(replace(task, once=rng.random() < share) for task in graph.tasks)
    return replace(graph, tasks=tasks)


def unit_chain(length: int) -> MemoryGraph:
    """The homogeneous chain of Griewank and Walther: backward i reads forward i - 1."""
    tasks = [Task("f0", 1, (), (0,))]
    tasks += [Task(f"f{i}", 1, (i - 1,), (i,)) for i in range(1, length)]
    tasks.append(Task("loss", 1, (length - 1,), (length,)))
    for i in reversed(range(length)):
        made = 2 * length - i
        reads = (i - 1, made - 1) if i > 0 else (made - 1,)
        tasks.append(Task(f"b{i}", 2, reads, (made,), backward=True))
    count = 2 * length + 1
    return MemoryGraph(
        f"chain{length}", (1,) * count, frozenset(), frozenset([count - 1]), tuple(tasks)
    )
