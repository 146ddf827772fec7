"""What benchmarks/kernels.py measures: one line for each kernel and size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.graph import Var
from megbrain_py.ops.optimizer import AdamWUpdate, SgdUpdate
from megbrain_py.ops.relayout import Relayout

Inputs = Mapping[str, Array]


@dataclass(frozen=True)
class KernelCase:
    """A kernel, how to build a node that runs it, and what to feed.

    bytes: the fewest that must move; 0: every input and output once. flop: operations.
    """

    name: str
    kernel: str
    build: Callable[..., Any]
    inputs: Callable[[], Inputs]
    bytes: float = 0
    flop: float = 0
    in_place: bool = False


def random_boxes(
    rng: np.random.Generator, count: int, *, extent: float, side: float | None = None
) -> Array:
    """Boxes between two uniform points, or of uniform sides up to `side`, in a square picture."""
    first = rng.uniform(0, extent, (count, 2))
    second = rng.uniform(0, extent, (count, 2)) if side is None else None
    if second is None:
        second = first + rng.uniform(0.1 * (side or 0), side or 0, (count, 2))
    corners = np.minimum(first, second), np.maximum(first, second)
    return np.concatenate(corners, 1).astype(np.float32)


def clustered_boxes(rng: np.random.Generator, count: int, *, objects: int = 40) -> Array:
    """What a detector proposes: boxes jittered around a few objects in an 800 x 800 picture."""
    true = random_boxes(rng, objects, extent=700, side=200)[rng.integers(0, objects, count)]
    sides = np.tile(true[:, 2:] - true[:, :2], 2)
    return (true + rng.normal(0, 0.12, (count, 4)) * sides).astype(np.float32)


def _numbers(**shapes: tuple[int, ...]) -> Callable[[], Inputs]:
    def make() -> Inputs:
        rng = np.random.default_rng(0)
        return {n: rng.standard_normal(s, np.float32) for n, s in shapes.items()}

    return make


def gradient_of(build: Callable[..., Var]) -> Callable[..., Any]:
    """The gradient of sum(build(...) * dy) for the first input; dy is the last."""

    def made(*inputs: Var) -> Any:
        *given, dy = inputs
        return mb.gradients(F.sum(build(*given) * dy), given[:1])

    return made


# --- the detector's operators --------------------------------------------------------------------


def _roi_inputs(images: int, rows: int, sides: list[int], image: float) -> Callable[[], Inputs]:
    def make() -> Inputs:
        rng = np.random.default_rng(0)
        maps = {
            f"p{i}": rng.standard_normal((images, 256, s, s), np.float32)
            for i, s in enumerate(sides)
        }
        boxes = [random_boxes(rng, rows, extent=image) for _ in range(images)]
        dy = rng.standard_normal((images * rows, 256, 7, 7), np.float32)
        return {**maps, "rois": np.stack(boxes), "count": np.full(images, rows, np.int32), "dy": dy}

    return make


def _pool(*inputs: Var) -> Var:
    *maps, rois, count = inputs
    scales = [1 / 2 ** (2 + i) for i in range(len(maps))]
    return F.roi_align(maps, rois, count, 7, scales)


def _roi_cases() -> list[KernelCase]:
    sizes = {
        "512 on 1x256x128x128": (1, 512, [128], 512.0),
        "2 x 512 on four levels": (2, 512, [128, 64, 32, 16], 512.0),
    }
    found = []
    for name, (images, rows, sides, image) in sizes.items():
        make = _roi_inputs(images, rows, sides, image)
        # A bin reads up to 16 pixels of 256 channels: a product and a sum for each.
        work = images * rows * 49 * 16 * 256 * 2.0
        found += [
            KernelCase(f"roi_align {name}", "roi_align", lambda *i: _pool(*i[:-1]), make,
                       flop=work),
            KernelCase(f"roi_align backward {name}", "roi_align_backward", gradient_of(_pool), make,
                       flop=work),
        ]  # fmt: skip
    return found


def _nms_case(
    name: str, boxes: Callable[[np.random.Generator], Array], rows: int, threshold: float,
    classes: int = 1,
) -> KernelCase:  # fmt: skip
    def make() -> Inputs:
        rng = np.random.default_rng(1)
        made = boxes(rng)
        return {
            "boxes": made[None],
            "scores": rng.standard_normal((1, len(made)), np.float32),
            "classes": rng.integers(0, classes, (1, len(made))).astype(np.int32),
        }

    def build(boxes: Var, scores: Var, classes: Var) -> Any:
        return F.nms(boxes, scores, classes, rows=rows, iou_threshold=threshold)

    return KernelCase(f"nms {name}", "nms", build, make)


_NMS = [
    _nms_case("12000 random, all rows", lambda r: random_boxes(r, 12000, extent=1000, side=100),
              12000, 0.5),
    _nms_case("12000 sparse, all rows", lambda r: random_boxes(r, 12000, extent=8000, side=100),
              12000, 0.5),
    _nms_case("2000 random, all rows", lambda r: random_boxes(r, 2000, extent=1000, side=100),
              2000, 0.5),
    _nms_case("12000 clustered, 2000 rows", lambda r: clustered_boxes(r, 12000), 2000, 0.7),
    _nms_case("8000 clustered, 5 levels, 1000 rows", lambda r: clustered_boxes(r, 8000), 1000, 0.7,
              classes=5),
    _nms_case("20000 clustered, 80 classes, 100 rows", lambda r: clustered_boxes(r, 20000), 100,
              0.5, classes=80),
    _nms_case("20000 clustered, 80 classes, all rows", lambda r: clustered_boxes(r, 20000), 20000,
              0.5, classes=80),
]  # fmt: skip


def _match_case(boxes: int) -> KernelCase:
    def make() -> Inputs:
        rng = np.random.default_rng(2)
        return {
            "truth": random_boxes(rng, 2 * boxes, extent=1000, side=300).reshape(2, boxes, 4),
            "count": np.full(2, boxes, np.int32),
        }

    def build(truth: Var, count: Var) -> Any:
        levels = [(s, 1024 // s * 8) for s in (128, 64, 32, 16, 8)]
        anchors = F.concat([F.anchors((s, s), (1024, 1024), [size]) for s, size in levels])
        return F.match_boxes(anchors, truth, count, high=0.7, low=0.3, allow_low_quality=True)

    # Twice 12 operations a pair: the low-quality matches need every largest overlap first.
    return KernelCase(f"match_boxes 2 x 65472 anchors, {boxes} boxes", "match_boxes", build, make,
                      flop=2 * 65472 * boxes * 24.0)  # fmt: skip


def _sample_inputs() -> Inputs:
    rng = np.random.default_rng(3)
    matches = rng.choice(np.array([-2, -1, -1, -1, -1, -1, 0], np.int32), (2, 65536))
    return {"matches": matches, "key": np.array([1, 2])}


_BOXES = [
    *_roi_cases(),
    *_NMS,
    KernelCase("top_k 2 x 49152 -> 2000", "top_k", lambda x: F.top_k(x, 2000)[0],
               _numbers(x=(2, 49152))),
    KernelCase("top_k 16 x 196608 -> 1000", "top_k", lambda x: F.top_k(x, 1000)[0],
               _numbers(x=(16, 196608))),
    KernelCase("sort 1000000", "top_k", lambda x: F.sort(x)[0], _numbers(x=(1000000,))),
    *[_match_case(n) for n in (8, 64, 256)],
    KernelCase("sample 2 x 65536 -> 256", "sample",
               lambda *i: F.sample(*i, 256, 0.5, salt=1), _sample_inputs),
    KernelCase("decode_boxes 2 x 65536", "decode_boxes", F.decode_boxes,
               _numbers(offsets=(2, 65536, 4), boxes=(2, 65536, 4))),
    KernelCase("encode_boxes 2 x 65536", "encode_boxes", F.encode_boxes,
               lambda: {n: random_boxes(np.random.default_rng(4 + i), 131072, extent=800)
                        for i, n in enumerate(("target", "boxes"))}),
]  # fmt: skip

# --- maps ----------------------------------------------------------------------------------------


def _resize_cases() -> list[KernelCase]:
    found = []
    for mode in ("nearest", "bilinear"):

        def build(x: Var, mode: str = mode) -> Var:
            return F.resize(x, (128, 128), mode=mode)  # type: ignore[arg-type]

        shapes = _numbers(x=(2, 256, 64, 64), dy=(2, 256, 128, 128))
        name = f"2x256x64x64 -> 128x128 {mode}"
        found += [
            KernelCase(f"resize {name}", "resize", lambda x, dy, b=build: b(x), shapes),
            KernelCase(f"resize backward {name}", "resize", gradient_of(build), shapes),
        ]
    return found  # fmt: skip


def _pool_max(x: Var) -> Var:
    return F.max_pool2d(x, 3, stride=2, padding=1)


def _pool_average(x: Var) -> Var:
    return F.avg_pool2d(x, 2)


_STEM = _numbers(x=(16, 64, 112, 112), dy=(16, 64, 56, 56))
_LAST = _numbers(x=(64, 2048, 7, 7), dy=(64, 2048, 1, 1))
_MAPS = [
    *_resize_cases(),
    KernelCase("max_pool 3x3/2 16x64x112x112", "max_pool2d", lambda x, dy: _pool_max(x), _STEM),
    KernelCase("max_pool backward", "max_pool2d_backward", gradient_of(_pool_max), _STEM),
    KernelCase("max_pool 1x1/2 2x256x64x64", "max_pool2d",
               lambda x: F.max_pool2d(x, 1, stride=2), _numbers(x=(2, 256, 64, 64)),
               bytes=2 * 256 * 32 * 32 * 9),
    KernelCase("avg_pool 2x2 16x64x112x112", "avg_pool2d", lambda x, dy: _pool_average(x), _STEM),
    KernelCase("avg_pool backward", "avg_pool2d", gradient_of(_pool_average), _STEM),
    KernelCase("global pool 64x2048x7x7", "adaptive_avg_pool2d",
               lambda x, dy: F.global_avg_pool2d(x), _LAST),
    KernelCase("global pool backward", "adaptive_avg_pool2d", gradient_of(F.global_avg_pool2d),
               _LAST),
]  # fmt: skip

# --- arithmetic and movement ----------------------------------------------------------------------

_MILLIONS = 25_000_000


def _optimizer(states: int, scalars: tuple[float, ...]) -> Callable[[], Inputs]:
    def make() -> Inputs:
        rng = np.random.default_rng(5)
        full = {f"x{i}": rng.random(_MILLIONS, np.float32) for i in range(2 + states)}
        return full | {f"s{i}": np.float32(s) for i, s in enumerate(scalars)}  # type: ignore[dict-item]

    return make


def _labels(rows: int, classes: int) -> Callable[[], Inputs]:
    def make() -> Inputs:
        rng = np.random.default_rng(6)
        return {
            "x": rng.standard_normal((rows, classes), np.float32),
            "label": rng.integers(0, classes, rows),
        }

    return make


def _rows_and_index(rows: int, width: int, taken: int) -> Callable[[], Inputs]:
    def make() -> Inputs:
        rng = np.random.default_rng(7)
        return {
            "x": rng.standard_normal((rows, width), np.float32),
            "index": rng.integers(0, rows, taken),
            "dy": rng.standard_normal((taken, width), np.float32),
        }

    return make


_MAP = _numbers(x=(16, 64, 112, 112))
_LONG = _numbers(x=(131072, 128), t=(131072, 128))
_OTHERS = [
    KernelCase("sgd, momentum, 25 M", "sgd_update", SgdUpdate(False),
               _optimizer(1, (0.01, 0.9, 1e-4)), bytes=_MILLIONS * 20, in_place=True),
    KernelCase("adamw, 25 M", "adamw_update",
               AdamWUpdate(0.9, 0.999, 1e-8),
               _optimizer(2, (1e-3, 1e-2, 1.0)), bytes=_MILLIONS * 28, in_place=True),
    KernelCase("softmax 131072x128", "softmax", lambda x, t: F.softmax(x), _LONG),
    KernelCase("softmax 131072x81", "softmax", F.softmax, _numbers(x=(131072, 81))),
    KernelCase("log_softmax 131072x128", "log_softmax", lambda x, t: F.log_softmax(x), _LONG),
    KernelCase("softmax, axis 1 of 64x128x56x56", "softmax", lambda x: F.softmax(x, 1),
               _numbers(x=(64, 128, 56, 56))),
    KernelCase("cross_entropy 16384x1000", "cross_entropy",
               F.cross_entropy, _labels(16384, 1000)),
    KernelCase("cross_entropy gradient 16384x1000", "cross_entropy_grad",
               lambda x, label: mb.gradients(F.cross_entropy(x, label), [x]), _labels(16384, 1000)),
    KernelCase("sigmoid_cross_entropy 16 M", "sigmoid_cross_entropy",
               F.binary_cross_entropy_with_logits, _LONG),
    KernelCase("smooth_l1 16 M", "smooth_l1", F.smooth_l1, _LONG),
    KernelCase("smooth_l1 gradient 16 M", "smooth_l1_grad",
               lambda x, t: mb.gradients(F.smooth_l1(x, t, reduction="sum"), [x]), _LONG),
    KernelCase("gather 65536 rows of 256", "gather", lambda x, index, dy: F.gather(x, index),
               _rows_and_index(65536, 256, 65536), bytes=65536 * (256 * 8 + 8)),
    KernelCase("gather 4096 rows of 4 of 262144", "gather",
               lambda x, index, dy: F.gather(x, index),
               _rows_and_index(262144, 4, 4096), bytes=4096 * 40),
    KernelCase("scatter_add 4096 rows of 4 into 262144", "scatter_add",
               gradient_of(F.gather), _rows_and_index(262144, 4, 4096),
               bytes=4096 * 24 + 262144 * 16),
    KernelCase("scatter_add 65536 rows of 256", "scatter_add",
               gradient_of(F.gather), _rows_and_index(65536, 256, 65536)),
    KernelCase("relayout 16x64x112x112 -> NHWC", "relayout", Relayout("channels_last"),
               _MAP),
    KernelCase("relayout pictures 16x3x224x224", "relayout",
               Relayout("channels_last"), _numbers(x=(16, 3, 224, 224))),
    KernelCase("transpose 16x64x12544 -> NHWC", "transpose", lambda x: F.transpose(x, (0, 2, 1)),
               _numbers(x=(16, 64, 12544))),
    KernelCase("transpose 4096x4096", "transpose", F.transpose, _numbers(x=(4096, 4096))),
    KernelCase("concat of two, axis 1", "concat", lambda a, b: F.concat([a, b], 1),
               _numbers(a=(4096, 2048), b=(4096, 1024))),
    KernelCase("concat of two, axis 0", "concat", lambda a, b: F.concat([a, b], 0),
               _numbers(a=(4096, 2048), b=(2048, 2048))),
    KernelCase("slice of columns", "slice", lambda x: x[:, 100:1500], _numbers(x=(8192, 2048)),
               bytes=8192 * 1400 * 8),
    KernelCase("slice, every second", "slice", lambda x: x[::2], _numbers(x=(16384, 1024)),
               bytes=8192 * 1024 * 8),
    KernelCase("place (slice backward)", "place",
               lambda x: mb.gradients(F.sum(F.square(x[:, 100:1500])), [x]),
               _numbers(x=(8192, 2048)), bytes=8192 * (1400 + 2048) * 4),
    KernelCase("broadcast_to 1x64 -> 200704x64", "broadcast_to",
               lambda x: F.broadcast_to(x, (200704, 64)), _numbers(x=(1, 64))),
    KernelCase("sum of all, 16 M", "sum", lambda x, t: F.sum(x), _LONG),
    KernelCase("sum over rows 131072x128", "sum", lambda x, t: F.sum(x, 0), _LONG),
    KernelCase("max over columns 131072x128", "max", lambda x, t: F.max(x, 1), _LONG),
    KernelCase("argmax over columns 131072x128", "argmax", lambda x, t: F.argmax(x, 1), _LONG),
    KernelCase("where 16 M", "where", lambda x, t: F.where(F.less(x, t), x, t), _LONG),
    KernelCase("cast float32 -> int32, 16 M", "cast", lambda x, t: F.cast(x, "int32"), _LONG),
]  # fmt: skip

CASES = (*_BOXES, *_MAPS, *_OTHERS)
