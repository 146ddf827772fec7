"""Examples of RoI Align: several levels, unfilled rows, boxes over the border, both options."""

from __future__ import annotations

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


def _pool(scales: tuple[float, ...], size: int | tuple[int, int], **options: float) -> object:
    def build(rois: Var, count: Var, **features: Var) -> Var:
        return F.roi_align(list(features.values()), rois, count, size, scales, **options)  # type: ignore[arg-type]

    return build


def _inputs(
    images: int, rows: int, channels: int, sizes: list[tuple[int, int]], count: list[int]
) -> dict[str, Array]:
    maps = {f"p{i}": normal(images, channels, *s, seed=i) for i, s in enumerate(sizes)}
    extent = 4.0 * max(max(s) for s in sizes)
    return {
        "rois": boxes(images, rows, extent), "count": np.array(count, np.int32), **maps,
    }  # fmt: skip


def _case(name: str, inputs: dict[str, Array], **options: object) -> Case:
    scales = options.pop("scales", (0.25, 0.125, 0.0625))
    size = options.pop("size", 7)
    build = _pool(scales, size, **options)  # type: ignore[arg-type]
    return Case(name, build, inputs, grad=[n for n in inputs if n.startswith("p")])  # type: ignore[arg-type]


_THREE = [(32, 24), (16, 12), (8, 6)]
CASES = [
    _case("three_levels", _inputs(2, 5, 19, _THREE, [5, 3]), canonical_scale=56),
    _case("every_width", _inputs(1, 4, 64 + 16 + 3, _THREE, [4]), canonical_scale=56),
    _case("wide_channels", _inputs(1, 6, 64, _THREE, [6]), canonical_scale=56),
    _case("aligned", _inputs(2, 4, 5, _THREE, [4, 4]), canonical_scale=56, aligned=True),
    _case("adaptive", _inputs(2, 4, 5, _THREE, [2, 4]), canonical_scale=56, sampling_ratio=0),
    _case("adaptive_aligned", _inputs(1, 6, 3, _THREE, [6]), canonical_scale=40,
          sampling_ratio=-1, aligned=True),
    _case("one_level", _inputs(1, 4, 8, [(16, 16)], [4]), scales=(0.25,), size=(3, 5)),
    _case("one_pixel", _inputs(2, 3, 1, [(1, 1)], [3, 1]), scales=(0.25,), size=1),
    _case("no_rois", _inputs(2, 0, 3, [(8, 8)], [0, 0]), scales=(0.25,), size=2),
    _case("nothing_valid", _inputs(2, 3, 3, [(8, 8)], [0, 0]), scales=(0.25,), size=2),
    _case("no_images", _inputs(0, 3, 3, [(8, 8)], []), scales=(0.25,), size=2),
    _case("many_samples", _inputs(1, 3, 17, [(16, 20)], [3]), scales=(0.25,), sampling_ratio=5),
]  # fmt: skip
_STRANGE = np.array([[[4, 4, 4, 4], [30, 30, 10, 10], [-90, -90, -40, -40], [0, 0, 64, 64],
                      [-500, -500, 600, 600], [28, 28, 64.5, 70]]], np.float32)  # fmt: skip
CASES += [
    _case(f"strange_boxes_{aligned}",
          {"rois": _STRANGE, "count": np.array([6], np.int32), "p0": normal(1, 6, 16, 16)},
          scales=(0.25,), aligned=aligned)
    for aligned in (False, True)
]  # fmt: skip


def _error(name: str, message: str, scales: tuple[float, ...], **changed: Array) -> ErrorCase:
    inputs = _inputs(1, 3, 4, [(8, 8)], [3]) | changed
    return ErrorCase(name, _pool(scales, 2), inputs, message)  # type: ignore[arg-type]


ERRORS = [
    _error("scales", "roi_align: 1 feature maps, 2 scales", (0.25, 0.125)),
    _error("rois", "roi_align: rois must be [1, R, 4]", (0.25,), rois=normal(3, 4)),
    _error("count", "roi_align: count must be int32[1]", (0.25,), count=integers(1)),
]

BENCHMARKS = [
    Benchmark("one_map", _pool((0.25,), 7),  # type: ignore[arg-type]
              lambda: _inputs(1, 512, 256, [(128, 128)], [512]), ("p0",)),
    Benchmark("pyramid", _pool((0.25, 0.125, 0.0625, 0.03125), 7),  # type: ignore[arg-type]
              lambda: _inputs(2, 512, 256, [(128, 128), (64, 64), (32, 32), (16, 16)], [512, 512]),
              ("p0", "p1", "p2", "p3")),
]  # fmt: skip
