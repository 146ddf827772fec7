"""Examples of sampling: too many and too few of either kind, ignored boxes, one shared key."""

from __future__ import annotations

from typing import Any

from megbrain_py import functional as F
from megbrain_py.op_testing import Case, ErrorCase, integers


def _sample(rows: int, fraction: float, salt: int = 3) -> Any:
    return lambda matches, key: F.sample(matches, key, rows, fraction, salt=salt)


def _matches(*shape: int, low: int = -2, high: int = 3, seed: int = 0) -> Any:
    return integers(*shape, low=low, high=high, seed=seed, dtype="int32")


_KEY = integers(3, low=-(2**62), high=2**62)
CASES = [
    Case("both", _sample(32, 0.5), {"matches": _matches(3, 501), "key": _KEY}, grad=()),
    Case("few_positives", _sample(64, 0.25),
         {"matches": _matches(3, 301, high=0), "key": _KEY}, grad=()),
    Case("few_negatives", _sample(64, 0.25),
         {"matches": _matches(3, 80, low=0), "key": _KEY}, grad=()),
    Case("all_ignored", _sample(8, 0.5),
         {"matches": _matches(3, 20, low=-2, high=-1), "key": _KEY}, grad=()),
    Case("fewer_than_rows", _sample(100, 0.5), {"matches": _matches(3, 20), "key": _KEY}, grad=()),
    Case("shared_key", _sample(10, 0.3), {"matches": _matches(3, 90), "key": _KEY[:1]}, grad=()),
    Case("only_negatives_wanted", _sample(10, 0.0),
         {"matches": _matches(3, 90), "key": _KEY}, grad=()),
    Case("no_boxes", _sample(4, 0.5), {"matches": _matches(3, 0), "key": _KEY}, grad=()),
    Case("no_images", _sample(4, 0.5), {"matches": _matches(0, 9), "key": _KEY[:0]}, grad=()),
]  # fmt: skip
ERRORS = [
    ErrorCase("key", _sample(4, 0.5), {"matches": _matches(2, 9), "key": _KEY},
              "sample: key must be int64[2] or int64[1]"),
    ErrorCase("fraction", _sample(4, 1.5), {"matches": _matches(3, 9), "key": _KEY},
              "sample: of 4 rows 6 cannot be positive"),
    ErrorCase("matches", _sample(4, 0.5), {"matches": integers(3, 9), "key": _KEY},
              "sample: matches must be int32 [N, A]"),
]  # fmt: skip
