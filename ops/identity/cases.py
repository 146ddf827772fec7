"""Examples of values as they are: named, printed, in both layouts."""

from megbrain_py import functional as F
from megbrain_py.op_testing import Case, ErrorCase, channels_last, integers, normal

CASES = [
    Case("name", lambda x: F.exp(F.name(F.exp(x), "inner")), {"x": normal(3, 4)}),
    Case("name_of_input", lambda x: F.name(x, "inner"), {"x": normal(3, 4)}),
    Case("name_channels_last", lambda x: F.name(channels_last(x), "inner") * 2,
         {"x": normal(2, 3, 4, 5)}),
    Case("print", lambda x: F.print_value(F.exp(x), "exp") + 1, {"x": normal(3, 4)}),
    Case("print_used_twice", lambda x: F.print_value(x, "x") * x, {"x": normal(3, 4)}),
    Case("print_channels_last", lambda x: F.print_value(channels_last(x)),
         {"x": normal(2, 3, 4, 5)}),
    Case("print_empty", F.print_value, {"x": normal(0, 4)}),
    Case("hint", lambda x: F.exp(F.recompute_hint(F.exp(x))), {"x": normal(3, 4)}),
    Case("hint_keep_channels_last",
         lambda x: F.recompute_hint(channels_last(F.exp(x)), keep=True) * 2,
         {"x": normal(2, 3, 4, 5)}),
    Case("print_scalar", F.print_value, {"x": normal()}),
]  # fmt: skip
CASES += [
    Case(f"print_{dtype}", lambda x: F.print_value(x, "value"),
         {"x": integers(3, 2, high=2, dtype=dtype)}, grad=())
    for dtype in ("int32", "int64", "uint8", "bool")
]  # fmt: skip

ERRORS = [
    ErrorCase("no name", lambda x: F.name(x, ""), {"x": normal(3)},
              "name: the name must not be empty"),
    ErrorCase("hint for an input", F.recompute_hint, {"x": normal(3)},
              "recompute_hint: expected a value that is computed"),
]  # fmt: skip
