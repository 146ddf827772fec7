"""Examples of the losses: masks, ignored rows, explicit counts, large values, kinks, layouts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.graph import Var
from megbrain_py.op_testing import Case, ErrorCase, integers, normal

_REDUCTIONS = ("none", "sum", "mean")


def _labels(n: int, classes: int, dtype: str = "int64", ignored: int | None = None) -> Array:
    labels = integers(n, high=classes, dtype=dtype)
    if ignored is not None:
        labels[::3] = ignored
    return labels


def _mask(*shape: int) -> Array:
    return (integers(*shape, high=3, seed=9) > 0).astype(np.float32)


def _counted(loss: Callable[..., Var]) -> Callable[..., Var]:
    def build(x: Var, t: Var, w: Var, n: Var) -> Var:
        return loss(x, t, w, reduction="mean", count=n)

    return build


CASES = [
    Case(f"cross_entropy_{kind}_{dtype}",
         lambda x, t, kind=kind: F.cross_entropy(x, t, reduction=kind),
         {"x": normal(7, 11, scale=4.0), "t": _labels(7, 11, dtype)})
    for kind in _REDUCTIONS for dtype in ("int32", "int64")
]  # fmt: skip
CASES += [
    Case("cross_entropy_ignored", lambda x, t: F.cross_entropy(x, t, ignore_index=-1),
         {"x": normal(9, 5), "t": _labels(9, 5, ignored=-1)}),
    Case("cross_entropy_all_ignored", lambda x, t: F.cross_entropy(x, t, ignore_index=-1),
         {"x": normal(3, 5), "t": np.full(3, -1)}),
    Case("cross_entropy_mask", F.cross_entropy,
         {"logits": normal(9, 5), "labels": _labels(9, 5), "weight": _mask(9)}),
    Case("cross_entropy_count", _counted(F.cross_entropy),
         {"x": normal(9, 21), "t": _labels(9, 21), "w": _mask(9), "n": np.array(4, np.float32)},
         grad=("x", "w")),
    Case("cross_entropy_large", lambda x, t: F.cross_entropy(x, t, reduction="none"),
         {"x": normal(8, 6, scale=1e4), "t": _labels(8, 6)}, grad=()),
    Case("cross_entropy_one_class", lambda x, t: F.cross_entropy(x, t, reduction="none"),
         {"x": normal(4, 1), "t": np.zeros(4, np.int32)}),
    Case("cross_entropy_empty", F.cross_entropy,
         {"logits": normal(0, 4), "labels": _labels(0, 4)}, grad=()),
    Case("cross_entropy_many", F.cross_entropy,
         {"logits": normal(3000, 21), "labels": _labels(3000, 21, "int32")}),
]  # fmt: skip
for _name, _loss in {
    "sigmoid": F.binary_cross_entropy_with_logits,
    "smooth_l1": F.smooth_l1,
}.items():
    CASES += [
        Case(f"{_name}_{kind}", lambda x, t, f=_loss, kind=kind: f(x, t, reduction=kind),
             {"x": normal(5, 7, scale=2.0), "t": np.abs(normal(5, 7, seed=1)) % 1})
        for kind in _REDUCTIONS
    ]  # fmt: skip
    CASES += [
        Case(f"{_name}_count", _counted(_loss),
             {"x": normal(6, 4), "t": _mask(6, 4), "w": _mask(6, 1), "n": np.array(7, np.float32)},
             grad=("x", "w")),
        Case(f"{_name}_empty", lambda x, t, f=_loss: f(x, t, reduction="sum"),
             {"x": normal(0, 4), "t": normal(0, 4)}, grad=()),
        Case(f"{_name}_large", lambda x, t, f=_loss: f(x, t, reduction="none"),
             {"x": normal(50, 7, scale=1e3), "t": _mask(50, 7)}, grad=()),
        Case(f"{_name}_image",
             lambda x, t, v, f=_loss: f(F.normalise(x, v, v * v, v, v), t, reduction="none"),
             {"x": normal(2, 3, 5, 4), "t": normal(2, 3, 5, 4, seed=1), "v": normal(3, shift=3.0)},
             grad=("x", "t")),
    ]  # fmt: skip
CASES += [
    Case("sigmoid_tails", lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="none"),
         {"x": np.linspace(-30, 30, 61).astype(np.float32), "t": np.zeros(61, np.float32)}),
    Case("smooth_l1_beta", lambda x, t: F.smooth_l1(x, t, beta=1 / 9, reduction="sum"),
         {"x": normal(5, 7, scale=0.2), "t": normal(5, 7, scale=0.1, seed=1)}),
    Case("smooth_l1_beta_0", lambda x, t: F.smooth_l1(x, t, beta=0, reduction="sum"),
         {"x": normal(5, 7), "t": normal(5, 7, seed=1)}),
    Case("smooth_l1_equal", lambda x: F.smooth_l1(x, x, beta=0, reduction="none"),
         {"x": normal(5)}, grad=()),
]  # fmt: skip

ERRORS = [
    ErrorCase("rank", F.cross_entropy, {"logits": normal(2, 3, 4), "labels": integers(2)},
              "cross_entropy: logits must be a float tensor [N, C], is float32[2,3,4]"),
    ErrorCase("labels", F.cross_entropy, {"logits": normal(2, 3), "labels": normal(2)},
              "cross_entropy: labels must be int32 or int64 [2], is float32[2]"),
    ErrorCase("reduction",
              lambda x, t: F.smooth_l1(x, t, reduction="average"),  # type: ignore[arg-type]
              {"x": normal(2), "t": normal(2)},
              "smooth_l1: reduction must be none, sum or mean, is 'average'"),
    ErrorCase("shapes", F.smooth_l1, {"x": normal(2), "target": normal(3)},
              "smooth_l1: target must be float32[2], is float32[3]"),
    ErrorCase("beta", lambda x, t: F.smooth_l1(x, t, beta=-1.0),
              {"x": normal(2), "t": normal(2)}, "smooth_l1: beta must not be negative, is -1.0"),
]  # fmt: skip
