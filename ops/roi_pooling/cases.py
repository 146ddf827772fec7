"""Examples of every pooling of boxes: several levels, unfilled rows, boxes of strange kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.graph import Var
from megbrain_py.op_testing import Benchmark, Case, ErrorCase, integers, normal


def boxes(images: int, rows: int, size: float, seed: int = 0) -> Array:
    """Random boxes x1, y1, x2, y2; some reach over the border of the image."""
    rng = np.random.default_rng([seed, images, rows])
    first = rng.uniform(-0.2, 0.8, (images, rows, 2)) * size
    extent = np.exp(rng.uniform(-3.5, 0.0, (images, rows, 2))) * size
    return np.concatenate([first, first + extent], -1).astype(np.float32)


def _pool(
    pooling: Callable[..., Var], scales: tuple[float, ...], size: int | tuple[int, int],
    **options: Any,
) -> Callable[..., Var]:  # fmt: skip
    def build(rois: Var, count: Var, level: Var | None = None, **features: Var) -> Var:
        return pooling(list(features.values()), rois, count, size, scales, level=level, **options)

    return build


def _inputs(
    images: int, rows: int, channels: int, sizes: list[tuple[int, int]], count: list[int]
) -> dict[str, Array]:
    maps = {f"p{i}": normal(images, channels, *s, seed=i) for i, s in enumerate(sizes)}
    extent = 4.0 * max(max(s) for s in sizes)
    return {
        "rois": boxes(images, rows, extent), "count": np.array(count, np.int32), **maps,
    }  # fmt: skip


def _case(
    name: str, pooling: Callable[..., Var], inputs: dict[str, Array], *, moves: bool = False,
    **options: Any,
) -> Case:  # fmt: skip
    """moves: the boxes have a gradient, and none that jumps."""
    scales = options.pop("scales", (0.25, 0.125, 0.0625))
    build = _pool(pooling, scales, options.pop("size", 7), **options)
    grad = [n for n in inputs if n.startswith("p") or (moves and n == "rois")]
    return Case(name, build, inputs, grad=grad)


_THREE = [(32, 24), (16, 12), (8, 6)]
_ONE: dict[str, Any] = {"scales": (0.25,)}


def _general(
    name: str, pooling: Callable[..., Var], *, moves: bool = False, **more: Any
) -> list[Case]:
    """What each operator must get right: levels, widths of vectors, masks, empty lists."""
    levels = _inputs(2, 4, 5, _THREE, [4, 3])
    levels["level"] = np.array([[0, 1, 2, -1], [3, 0, -5, 2]], np.int32)

    def case(kind: str, inputs: dict[str, Array], **options: Any) -> Case:
        return _case(f"{name}_{kind}", pooling, inputs, moves=moves, **more, **options)

    return [
        case("three_levels", _inputs(2, 5, 19, _THREE, [5, 3]), canonical_scale=56),
        case("every_width", _inputs(1, 4, 64 + 16 + 3, _THREE, [4]), canonical_scale=56),
        case("wide_channels", _inputs(1, 6, 64, _THREE, [6]), canonical_scale=56),
        case("given_levels", levels, size=(2, 3)),
        case("uneven_scale", _inputs(1, 5, 4, [(11, 13)], [5]), scales=(0.3,), size=4),
        case("one_level", _inputs(1, 4, 8, [(16, 16)], [4]), **_ONE, size=(3, 5)),
        case("one_pixel", _inputs(2, 3, 1, [(1, 1)], [3, 1]), **_ONE, size=1),
        case("no_rois", _inputs(2, 0, 3, [(8, 8)], [0, 0]), **_ONE, size=2),
        case("nothing_valid", _inputs(2, 3, 3, [(8, 8)], [0, -1]), **_ONE, size=2),
        case("no_images", _inputs(0, 3, 3, [(8, 8)], []), **_ONE, size=2),
    ]


# Outside, beside, over the whole map, far larger, half outside, inside one cell, on whole pixels.
_PLACED: list[list[float]] = [
    [-90, -90, -40, -40], [64.5, 3, 70, 30], [0, 0, 64, 64], [-500, -500, 600, 600],
    [28, 28, 64.5, 70], [-9, 10, 7, 21], [21.1, 9.2, 22.9, 11.4], [8, 12, 24, 28],
    [-4e6, -3e6, 5e6, 6e6], [17.25, 3, 17.26, 60],
]  # fmt: skip
_NAN, _INF = np.nan, np.inf
_BROKEN: list[list[float]] = [
    [4, 4, 4, 4], [30, 30, 10, 10], [10, 30, 30, 10], [12, 4, 12, 40], [_NAN, 0, 9, 9],
    [0, 0, 9, _NAN], [_NAN, _NAN, _NAN, _NAN], [0, 0, _INF, 9], [-_INF, 0, _INF, 9],
    [_INF, _INF, _INF, _INF], [0, 0, 3e38, 3e38],
]  # fmt: skip


def _strange(listed: list[list[float]]) -> dict[str, Array]:
    rois = np.array([listed], np.float32)
    count = np.array([len(listed)], np.int32)
    return {"rois": rois, "count": count, "p0": normal(1, 6, 16, 16)}


def _placed(name: str, pooling: Callable[..., Var], *, moves: bool = False, **more: Any) -> Case:
    return _case(f"{name}_placed", pooling, _strange(_PLACED), moves=moves, **_ONE, **more)


def _broken(name: str, pooling: Callable[..., Var], **more: Any) -> list[Case]:
    """Boxes that are none, alone and, on two levels, between others."""
    two = {**_strange(_BROKEN + _PLACED), "p1": normal(1, 6, 8, 9)}
    return [
        _case(f"{name}_broken", pooling, _strange(_BROKEN), **_ONE, **more),
        _case(f"{name}_broken_two_levels", pooling, two, scales=(0.25, 0.125), size=(3, 2), **more),
    ]


CASES = [
    *_general("align", F.roi_align),
    _case("aligned", F.roi_align, _inputs(2, 4, 5, _THREE, [4, 4]), canonical_scale=56,
          aligned=True),
    _case("adaptive", F.roi_align, _inputs(2, 4, 5, _THREE, [2, 4]), canonical_scale=56,
          sampling_ratio=0),
    _case("adaptive_aligned", F.roi_align, _inputs(1, 6, 3, _THREE, [6]), canonical_scale=40,
          sampling_ratio=-1, aligned=True),
    _case("many_samples", F.roi_align, _inputs(1, 3, 17, [(16, 20)], [3]), **_ONE,
          sampling_ratio=5),
    _case("adaptive_beyond", F.roi_align, _strange([[-700, -300, 900, 500], [-9, 9, 90, 30]]),
          **_ONE, sampling_ratio=0),
    _case("zero_border", F.roi_align, _inputs(2, 5, 5, _THREE, [4, 5]), canonical_scale=56,
          border="zero"),
    _case("zero_border_adaptive", F.roi_align, _inputs(1, 5, 5, [(16, 9)], [5]), **_ONE,
          border="zero", sampling_ratio=0, aligned=True),
]  # fmt: skip
for _aligned in (False, True):
    for _border in ("replicate", "zero"):
        _options: dict[str, Any] = {"aligned": _aligned, "border": _border}
        _name = f"align_{_border}" + "_shifted" * _aligned
        CASES.append(_placed(_name, F.roi_align, **_options))
        CASES += _broken(_name, F.roi_align, **_options)
for _mode in ("max", "avg", "deck_avg"):
    CASES += _general(_mode, F.roi_pool, mode=_mode)
    CASES.append(_placed(_mode, F.roi_pool, mode=_mode))
    CASES += _broken(_mode, F.roi_pool, mode=_mode)

# --- whole pixels --------------------------------------------------------------------------------


def _special() -> dict[str, Array]:
    """Ties, and values that cannot win."""
    x = integers(1, 3, 12, 12, high=3).astype(np.float32)
    x[0, 1, :5] = np.nan
    x[0, 2, 6:] = -np.inf
    return {"rois": boxes(1, 5, 48.0), "count": np.array([5], np.int32), "p0": x}


def _halves() -> dict[str, Array]:
    """Corners that are halves of pixels, of both signs, and bins that end on whole pixels."""
    listed = [[-2, -6, 10, 14], [2, 6, 22, 34], [0, 0, 27, 19], [-10, -14, 58, 66], [6, 10, 6, 10]]
    return _strange([[float(v) for v in box] for box in listed])


def _levels(side: float) -> Callable[..., Var]:
    return lambda rois: F.roi_levels(rois, (0.25, 0.125), canonical_scale=side)


CASES += [
    Case("max_ties_and_nan", _pool(F.roi_pool, (0.25,), 3), _special(), grad=()),
    _case("max_halves", F.roi_pool, _halves(), **_ONE),
    _case("avg_halves", F.roi_pool, _halves(), **_ONE, mode="avg", size=5),
    _case("deck_halves", F.roi_pool, _halves(), **_ONE, mode="deck_avg", size=5),
    *[Case(f"levels_{side}", _levels(side), {"rois": np.array(_BROKEN + _PLACED, np.float32)},
           grad=())
      for side in (10.0, 56.0, 224.0)],
    Case("levels_of_nothing", lambda rois: F.roi_levels(rois, (0.25,)), {"rois": normal(2, 0, 4)},
         grad=()),
]  # fmt: skip

# --- Precise RoI Pooling -------------------------------------------------------------------------


def _tiny() -> dict[str, Array]:
    """Boxes far smaller than a pixel, on pixels, between them and over the border."""
    corner = np.array([[9.3, 17.7], [40.0, 8.0], [0.001, 30], [-3.9, 63.9], [22, 22]])
    side = np.array([[0.3, 0.02], [1e-3, 4e-3], [0.01, 5], [0.2, 0.3], [60, 1e-4]])
    return _strange(np.concatenate([corner, corner + side], 1).tolist())


def _unpool(size: int | tuple[int, int]) -> Callable[..., Var]:
    return lambda grid, boxes, count: F.prroi_unpool(grid, boxes, count, size)


def _windows(
    listed: list[list[float]], images: int, channels: int, grid: tuple[int, int], count: list[int]
) -> dict[str, Array]:
    rois = np.array(listed, np.float32).reshape(images, len(listed) // max(images, 1), 4)
    filled = normal(images * rois.shape[1], channels, *grid)
    return {"grid": filled, "boxes": rois, "count": np.array(count, np.int32)}


_IN_WINDOWS: list[list[float]] = [
    [1.3, 0.2, 14.8, 11.9], [0, 0, 16, 16], [-3, 4.4, 9, 30], [5.2, 5.3, 5.6, 5.9],
    [2, 3, 12, 13], [-40, -40, 50, 50], [20, 3, 30, 9], [7.5, 1, 8, 15],
]  # fmt: skip
CASES += [
    *_general("prroi", F.prroi_pool, moves=True),
    _placed("prroi", F.prroi_pool, moves=True),
    *_broken("prroi", F.prroi_pool),
    _case("prroi_tiny", F.prroi_pool, _tiny(), **_ONE, size=(3, 4)),
    # Steps of the difference must be far below the boxes' sides.
    _case("prroi_tiny_moves", F.prroi_pool, _strange(_tiny()["rois"][0, [0, 3]].tolist()), **_ONE,
          size=2, moves=True),
    _case("prroi_scale_of_one", F.prroi_pool, _inputs(1, 6, 33, [(30, 40)], [6]), scales=(1.0,),
          size=(2, 9), moves=True),
    Case("unpool", _unpool(16), _windows(_IN_WINDOWS, 2, 19, (5, 5), [4, 3]), grad=("grid",)),
    Case("unpool_finer", _unpool((16, 14)), _windows(_IN_WINDOWS, 1, 3, (14, 28), [8]),
         grad=("grid",)),
    Case("unpool_coarser", _unpool((33, 40)), _windows(_IN_WINDOWS, 4, 8, (2, 3), [2, 2, 0, 1]),
         grad=("grid",)),
    Case("unpool_one_pixel", _unpool(1),
         _windows([[0, 0, 0.5, 1], [-1, 0, 1, 1]], 1, 2, (1, 3), [2]), grad=("grid",)),
    Case("unpool_broken", _unpool(8), _windows(_BROKEN, 1, 4, (3, 3), [11]), grad=("grid",)),
    Case("unpool_nothing", _unpool(4), _windows([], 0, 3, (2, 2), []), grad=("grid",)),
]  # fmt: skip

# --- errors --------------------------------------------------------------------------------------


def _error(
    name: str, pooling: Callable[..., Var], message: str, scales: tuple[float, ...] = (0.25,),
    **changed: Any,
) -> ErrorCase:  # fmt: skip
    options = {
        k: changed.pop(k) for k in ("border", "mode", "size", "canonical_scale") & changed.keys()
    }
    inputs = _inputs(1, 3, 4, [(8, 8)], [3]) | changed
    return ErrorCase(
        name, _pool(pooling, scales, options.pop("size", 2), **options), inputs, message
    )


ERRORS = [
    _error("scales", F.roi_align, "roi_align: 1 feature maps, 2 scales", (0.25, 0.125)),
    _error("no_scale", F.prroi_pool, "prroi_pool: scales must be positive", (0.0,)),
    _error("rois", F.roi_align, "roi_align: rois must be [1, R, 4]", rois=normal(3, 4)),
    _error("count", F.roi_pool, "roi_max_pool: count must be int32[1]", count=integers(1)),
    _error("level", F.prroi_pool, "prroi_pool: level must be int32[1, 3], is int32[3]",
           level=integers(3, dtype="int32")),
    _error("map", F.prroi_pool, "prroi_pool: feature maps must be [N, C, H, W]", p0=normal(8, 8)),
    _error("whole_numbers", F.roi_pool, "must have one float type", p0=integers(1, 4, 8, 8)),
    _error("size", F.prroi_pool, "prroi_pool: the output must be at least 1x1, is (0, 2)",
           size=(0, 2)),
    _error("sizes", F.prroi_pool, "prroi_pool: size must be an integer or a pair", size=(1, 2, 3)),
    _error("border", F.roi_align, "roi_align: border must be 'replicate' or 'zero', is 'wrap'",
           border="wrap"),
    _error("mode", F.roi_pool, "roi_pool: mode must be 'max', 'avg' or 'deck_avg', is 'sum'",
           mode="sum"),
    _error("canonical", F.roi_align, "roi_align: canonical_scale must be positive, is 0.0",
           canonical_scale=0),
    ErrorCase("grid", _unpool(4), {"grid": normal(3, 4), "boxes": normal(1, 3, 4),
                                   "count": integers(1, dtype="int32")},
              "prroi_unpool: grid must be [N * R, C, h, w], is float32[3,4]"),
    ErrorCase("boxes", _unpool(4), {"grid": normal(3, 4, 2, 2), "boxes": normal(1, 2, 4),
                                    "count": integers(1, dtype="int32")},
              "prroi_unpool: boxes must be [N, R, 4] with N * R = 3"),
    ErrorCase("no_levels", lambda rois: F.roi_levels(rois, ()), {"rois": normal(3, 4)},
              "roi_levels: at least one scale is needed"),
    ErrorCase("no_boxes", lambda rois: F.roi_levels(rois, (1.0,)), {"rois": normal(3, 5)},
              "roi_levels: rois must be float [..., 4], is float32[3,5]"),
]  # fmt: skip

# --- sizes that matter ---------------------------------------------------------------------------


def _benchmarks(
    name: str, pooling: Callable[..., Var], more: Sequence[str] = (), **options: Any
) -> list[Benchmark]:
    scales = (0.25, 0.125, 0.0625, 0.03125)
    maps = [(128, 128), (64, 64), (32, 32), (16, 16)]
    return [
        Benchmark(f"{name}_one_map", _pool(pooling, scales[:1], 7, **options),
                  lambda: _inputs(1, 512, 256, maps[:1], [512]), ("p0", *more)),
        Benchmark(f"{name}_pyramid", _pool(pooling, scales, 7, **options),
                  lambda: _inputs(2, 512, 256, maps, [512, 512]), ("p0", "p1", "p2", "p3", *more)),
    ]  # fmt: skip


def _equal_boxes(box: list[float]) -> Callable[[], dict[str, Array]]:
    """64 times one box, on a map of an image of 512 pixels."""
    rois = np.tile(np.array(box, np.float32), (1, 64, 1))
    return lambda: {**_inputs(1, 64, 256, [(128, 128)], [64]), "rois": rois}


# No box costs more than the first.
_LARGE: dict[str, list[float]] = {
    "whole": [0, 0, 508, 508],
    "beyond": [-1e4, -1e4, 1e4, 1e4],
    "huge": [-1e8, -1e8, 1e8, 1e8],
}
BENCHMARKS = [
    *[Benchmark(f"prroi_{name}", _pool(F.prroi_pool, (0.25,), 7), _equal_boxes(box), ("p0", "rois"))
      for name, box in _LARGE.items()],
    *_benchmarks("align", F.roi_align),
    *_benchmarks("max", F.roi_pool),
    *_benchmarks("avg", F.roi_pool, mode="avg"),
    *_benchmarks("prroi", F.prroi_pool, ("rois",)),
    Benchmark("unpool_masks", _unpool(32), lambda: _windows(
        (boxes(1, 128, 24.0)[0] + 2).tolist(), 1, 256, (14, 14), [128]), ("grid",)),
]  # fmt: skip
