"""Examples of the movement room: odd sizes, both layouts, every element size, empty parts."""

import numpy as np

from megbrain_py import functional as F
from megbrain_py.op_testing import Case, ErrorCase, channels_last, integers, normal

_TYPES = ("int32", "int64", "uint8", "bool")

CASES = [
    Case("reshape", lambda x: F.reshape(x, (4, -1)) * 2, {"x": normal(2, 6, 3)}),
    Case("reshape_scalar", lambda x: F.reshape(x, ()), {"x": normal(1, 1)}),
    Case("reshape_twice", lambda x: F.reshape(F.reshape(x, (6, 4)), (3, 8)), {"x": normal(24)}),
    Case("reshape_back", lambda x: F.reshape(F.reshape(x, (6, 4)), (24,)), {"x": normal(24)}),
    Case(
        "reshape_channels_last",
        lambda x: F.reshape(channels_last(x), (2, -1)),
        {"x": normal(2, 3, 4, 5)},
    ),
    Case(
        "flatten",
        lambda x: (F.flatten(x), F.flatten(x, 1), F.flatten(x, 1, 2)),
        {"x": normal(2, 3, 4, 5)},
    ),
    Case(
        "expand_squeeze",
        lambda x: (F.expand_dims(x, -1), F.squeeze(x), F.squeeze(x, (0, 2))),
        {"x": normal(1, 3, 1)},
    ),
]

_PERMS = {
    "matrix": ((37, 50), (1, 0)),
    "tiles": ((64, 48), (1, 0)),
    "column": ((1, 33), (1, 0)),
    "batch": ((3, 17, 33), (0, 2, 1)),
    "outer": ((5, 4, 33), (1, 0, 2)),
    "reverse": ((5, 19, 18), (2, 1, 0)),
    "to_last": ((2, 5, 6, 7), (0, 2, 3, 1)),
    "to_first": ((2, 6, 7, 5), (0, 3, 1, 2)),
    "heads": ((2, 9, 4, 16), (0, 2, 1, 3)),
    "four": ((3, 4, 5, 6), (3, 1, 0, 2)),
    "empty": ((0, 3), (1, 0)),
    "same": ((3, 4), (0, 1)),
    "scalar": ((), ()),
}
CASES += [
    Case(f"transpose_{kind}", lambda x, perm=perm: F.transpose(x, perm), {"x": normal(*shape)})
    for kind, (shape, perm) in _PERMS.items()
]
CASES += [
    Case(
        f"transpose_{dtype}",
        lambda x: F.transpose(x, (2, 0, 1)),
        {"x": integers(5, 33, 18, high=2, dtype=dtype)},
        grad=(),
    )
    for dtype in _TYPES
]
CASES += [
    Case(
        "transpose_view",
        lambda x: F.reshape(F.transpose(channels_last(x), (0, 2, 3, 1)), (-1, 5)),
        {"x": normal(2, 5, 4, 3)},
    ),
    Case(
        "transpose_other_channels_last",
        lambda x: F.transpose(channels_last(x), (1, 0, 3, 2)),
        {"x": normal(2, 5, 4, 3)},
    ),
    Case(
        "transpose_twice",
        lambda x: F.transpose(F.transpose(x, (1, 2, 0)), (1, 0, 2)),
        {"x": normal(2, 5, 4)},
    ),
    Case("swap_axes", lambda x: F.swap_axes(x, 0, -1), {"x": normal(3, 4, 5)}),
]

CASES += [
    Case("concat_first", lambda a, b: F.concat([a, b, a]), {"a": normal(3, 5), "b": normal(2, 5)}),
    Case("concat_last", lambda a, b: F.concat([a, b], -1), {"a": normal(3, 5), "b": normal(3, 1)}),
    Case(
        "concat_middle",
        lambda a, b: F.concat([b, a], 1),
        {"a": normal(3, 5, 4), "b": normal(3, 2, 4)},
    ),
    Case("concat_empty", lambda a, b: F.concat([a, b], 1), {"a": normal(3, 0), "b": normal(3, 2)}),
    Case(
        "concat_nothing", lambda a, b: F.concat([a, b], 1), {"a": normal(0, 4), "b": normal(0, 2)}
    ),
    Case("concat_long", lambda a, b: F.concat([a, b]), {"a": normal(70001), "b": normal(3)}),
    Case(
        "stack",
        lambda a, b: (F.stack([a, b], 1), F.stack([a, b], -1)),
        {"a": normal(3, 5), "b": normal(3, 5, seed=1)},
    ),
    Case("split", lambda x: F.split(x, [2, 0, 3], 1), {"x": normal(3, 5)}, grad=()),
    Case("split_grad", lambda x: F.split(x, [2, 3], 1), {"x": normal(3, 5)}),
]
CASES += [
    Case(
        f"concat_channels_last_{axis}",
        lambda a, b, axis=axis: F.concat([channels_last(a), channels_last(b), b], axis),
        {"a": normal(2, 3, 4, 5), "b": normal(2, 3, 4, 5, seed=1)},
    )
    for axis in range(4)
]
CASES += [
    Case(
        f"concat_{dtype}",
        lambda a, b: F.concat([a, b], 1),
        {"a": integers(5, 3, high=2, dtype=dtype), "b": integers(5, 8, high=2, dtype=dtype)},
        grad=(),
    )
    for dtype in _TYPES
]

_INDICES = {
    "int": np.s_[1],
    "negative": np.s_[-1, ..., -2],
    "slices": np.s_[1:3, :, 2:],
    "steps": np.s_[::2, 1::3, ::-1],
    "backwards": np.s_[::-2, ::-1, 4:0:-2],
    "dots": np.s_[..., 1:4],
    "new_axes": np.s_[None, 1:, ..., None],
    "everything": np.s_[:],
    "empty": np.s_[2:2],
    "beyond": np.s_[-100:100, 5:100],
}
CASES += [
    Case(f"getitem_{kind}", lambda x, index=index: x[index], {"x": normal(5, 7, 6)})
    for kind, index in _INDICES.items()
]
CASES += [
    Case(
        f"getitem_channels_last_{kind}",
        lambda x, index=index: channels_last(x)[index],
        {"x": normal(3, 5, 7, 6)},
    )
    for kind, index in {
        "crop": np.s_[:, :, 1:5, 2:6],
        "channels": np.s_[:, 1:4],
        "all": np.s_[1:, ::2, ::-1, ::3],
        "channel": np.s_[:, 2],
    }.items()
]
CASES += [
    Case(
        f"slice_{dtype}",
        lambda x: (x[1:, ::3], F.pad(x, [(1, 2), (0, 3)], 1)),
        {"x": integers(5, 33, high=2, dtype=dtype)},
        grad=(),
    )
    for dtype in _TYPES
]
CASES += [
    Case("slice_function", lambda x: F.slice(x, (0, -3), (2, -1)), {"x": normal(3, 5)}),
    Case("slice_long", lambda x: x[1:-1] * 2, {"x": normal(60001)}),
    Case("slice_scalar", lambda x: x[...], {"x": normal()}),
    Case("flip", lambda x: (F.flip(x, 0), F.flip(x, (0, -1))), {"x": normal(3, 4, 5)}),
]

_WIDTHS = {
    "last": ((4, 5), [(0, 0), (2, 1)]),
    "first": ((4, 5), [(1, 2), (0, 0)]),
    "both": ((4, 5, 6), [(1, 0), (0, 3), (2, 2)]),
    "image": ((2, 3, 5, 4), [(0, 0), (0, 0), (1, 2), (3, 0)]),
    "nothing": ((4, 5), [(0, 0), (0, 0)]),
    "of_empty": ((0, 5), [(1, 1), (0, 1)]),
}
CASES += [
    Case(f"pad_{kind}", lambda x, widths=widths: F.pad(x, widths, -1.5), {"x": normal(*shape)})
    for kind, (shape, widths) in _WIDTHS.items()
]
CASES += [
    Case(
        f"pad_channels_last_{kind}",
        lambda x, widths=widths: F.pad(channels_last(x), widths, -1.5),
        {"x": normal(2, 3, 5, 4)},
    )
    for kind, widths in {
        "image": [(0, 0), (0, 0), (1, 2), (3, 0)],
        "channels": [(0, 0), (1, 2), (0, 0), (0, 0)],
        "all": [(1, 1), (1, 2), (2, 0), (0, 2)],
    }.items()
]
CASES += [
    Case("pad_rank_8", lambda x: F.pad(x, [(1, 0), (0, 1)] * 4), {"x": normal(*[2] * 8)}),
    Case("tile", lambda x: F.tile(x, (2, 3)), {"x": normal(3, 4)}),
    Case("tile_none", lambda x: F.tile(x, (0, 3)), {"x": normal(3, 4)}),
    Case("repeat", lambda x: (F.repeat(x, 3, 0), F.repeat(x, 2, -1)), {"x": normal(3, 4)}),
]

ERRORS = [
    ErrorCase(
        "reshape",
        lambda x: F.reshape(x, (5, 2)),
        {"x": normal(3, 4)},
        "reshape: 12 elements of shape (3, 4) do not fit shape (5, 2)",
    ),
    ErrorCase(
        "squeeze",
        lambda x: F.squeeze(x, 0),
        {"x": normal(3, 4)},
        "squeeze: axis 0 has size 3, not 1",
    ),
    ErrorCase(
        "expand_dims",
        lambda x: F.expand_dims(x, 4),
        {"x": normal(3, 4)},
        "expand_dims: axis 4 of a value of rank 3",
    ),
    ErrorCase(
        "transpose",
        lambda x: F.transpose(x, (0, 0)),
        {"x": normal(3, 4)},
        "transpose: (0, 0) is no order of the 2 axes",
    ),
    ErrorCase(
        "concat shapes",
        lambda a, b: F.concat([a, b], 1),
        {"a": normal(3, 4), "b": normal(2, 4)},
        "concat: shapes (3, 4) and (2, 4) differ outside of axis 1",
    ),
    ErrorCase(
        "concat ranks",
        lambda a, b: F.concat([a, b]),
        {"a": normal(3, 4), "b": normal(3)},
        "concat: shapes (3, 4) and (3,) differ",
    ),
    ErrorCase(
        "concat types",
        lambda a, b: F.concat([a, b]),
        {"a": normal(3), "b": integers(3)},
        "concat: element types differ: float32, int64",
    ),
    ErrorCase(
        "split",
        lambda x: F.split(x, [1, 1]),
        {"x": normal(3)},
        "split: sizes [1, 1] of an axis of size 3",
    ),
    ErrorCase(
        "index", lambda x: x[3], {"x": normal(3)}, "getitem: index 3 of axis 0, which has size 3"
    ),
    ErrorCase(
        "indices", lambda x: x[0, 0], {"x": normal(3)}, "getitem: 2 indices of a value of rank 1"
    ),
    ErrorCase("index type", lambda x: x["a"], {"x": normal(3)}, "getitem: str is no index"),
    ErrorCase("index var", lambda x: x[x], {"x": normal(3)}, "getitem: Var is no index"),
    ErrorCase(
        "pad",
        lambda x: F.pad(x, [(1, -1)]),
        {"x": normal(3)},
        "pad: widths must be 1 pairs of numbers >= 0",
    ),
    ErrorCase(
        "pad value",
        lambda x: F.pad(x, [(1, 1)], 0.5),
        {"x": integers(3)},
        "place: value 0.5 of int64 must be a whole number",
    ),
    ErrorCase(
        "tile", lambda x: F.tile(x, (1,)), {"x": normal(3, 4)}, "tile: counts must be 2 numbers"
    ),
]
