"""Examples of random values: a key for each row and one for all, both layouts, empty."""

import numpy as np

from megbrain_py import functional as F
from megbrain_py.op_testing import Case, ErrorCase, channels_last, integers, normal
from megbrain_py.random import keys


def _key(n: int) -> np.ndarray:
    return keys(7, 3, np.arange(n) * 5 - 2)


CASES = [
    Case(f"dropout_{kind}", lambda x, key, p=p: F.dropout(x, key, p, 3),
         {"x": normal(*shape), "key": _key(n)})
    for kind, shape, n, p in (
        ("rows", (3, 37), 3, 0.5), ("one_key", (3, 37), 1, 0.1), ("vector", (41,), 41, 0.9),
        ("long", (2, 30001), 2, 0.3), ("none", (3, 4), 3, 0.0), ("image", (2, 3, 4, 5), 2, 0.5),
        ("empty", (0, 4), 0, 0.5), ("scalar", (), 1, 0.5), ("single", (1, 1), 1, 0.5),
    )
]  # fmt: skip
CASES += [
    Case(f"dropout_channels_last_{n}", lambda x, key: F.dropout(channels_last(x), key, 0.5, 3),
         {"x": normal(2, 5, 4, 6), "key": _key(n)})
    for n in (1, 2)
]  # fmt: skip
CASES += [
    Case(f"{name}_{kind}", lambda key, f=f, shape=shape: f(shape, key, 9), {"key": _key(n)},
         grad=())
    for name, f in (("uniform", F.uniform), ("normal", F.normal))
    for kind, shape, n in (
        ("rows", (5, 33), 5), ("one_key", (5, 33), 1), ("long", (40001,), 1), ("scalar", (), 1),
        ("empty", (0, 3), 0),
    )
]  # fmt: skip

ERRORS = [
    ErrorCase("p", lambda x, key: F.dropout(x, key, 1.0), {"x": normal(3, 4), "key": _key(3)},
              "dropout: p must be in [0, 1), is 1.0"),
    ErrorCase("key count", F.dropout, {"x": normal(3, 4), "key": _key(2)},
              "dropout: key must be int64[1] or int64[3], one for each row, is int64[2]"),
    ErrorCase("key type", lambda key: F.uniform((3,), key), {"key": integers(1, dtype="int32")},
              "uniform: key must be int64[1] or int64[3]"),
    ErrorCase("integers", F.dropout, {"x": integers(3), "key": _key(1)},
              "dropout: x must be a float tensor, is int64"),
]  # fmt: skip
