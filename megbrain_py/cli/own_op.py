"""`megbrain build-op` and `new-op`: compile and begin operators outside of the package."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from megbrain_py.errors import DataError


def build_op(folders: Sequence[str]) -> int:
    """Build each room's library; the compiler's warnings go to stderr."""
    from megbrain_py.building import build

    for folder in folders:
        started = time.perf_counter()
        built = build(folder)
        sys.stderr.write(built.warnings)
        seconds = time.perf_counter() - started
        how = f"{', '.join(built.levels)} in {seconds:.1f} s" if built.made else "up to date"
        print(f"{built.library}: {how}")
    return 0


def new_op(folder: str) -> int:
    """Write a room that builds and passes its cases, to be changed into one's own."""
    home = Path(folder)
    name = home.name
    if not name.isidentifier() or name != name.lower():
        raise DataError(f"{name!r} is no name for an operator: expected one such as soft_clip")
    if home.exists():
        raise DataError(f"{folder} exists already")
    home.mkdir(parents=True)
    words = {"NAME": name, "CLASS": name.title().replace("_", "")}
    for file, text in _SKELETON.items():
        for token, word in words.items():
            file, text = file.replace(token, word), text.replace(token, word)  # noqa: PLW2901
        (home / file).write_text(text)
    print(f"{folder}: now megbrain build-op {folder}; megbrain test-op {folder}")
    return 0


_SKELETON = {
    "NAME.py": '''"""y = scale * x^2: change this into your own (docs/add_an_operator.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import megbrain_py as mb
from megbrain_py.dtypes import Array
from megbrain_py.errors import require


@dataclass(frozen=True)
class CLASS(mb.Operator, kernel="NAME"):
    """scale * x^2 of each element."""

    scale: float
    elementwise: ClassVar[bool] = True

    def infer(self, x: mb.TensorType) -> mb.TensorType:
        require(x.dtype.is_float, f"x must be a float tensor, is {x.dtype}")
        return x

    def grad(self, node: mb.Node, *dy: Any) -> Sequence[mb.Var | None]:
        return [dy[0] * node.inputs[0] * (2 * self.scale)]

    def reference(self, x: Array) -> Array:
        return x.dtype.type(self.scale) * x * x


def NAME(x: mb.Var, scale: float = 1.0) -> mb.Var:
    """scale * x^2. float, any shape."""
    y: mb.Var = CLASS(float(scale))(x)
    return y
''',
    "NAME_cpu.cpp": """// y = scale * x^2.
#include "mb/elementwise.h"
#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

Launch bind_NAME(const Call& call) {
  const Loop<2> loop = make_loop<2>({call.out(), call.in(0)});
  float* y = call.out().data<float>();
  const float* x = call.in(0).data<float>();
  const float scale = float(call.attrs.real("scale"));
  return [=](Stream&) {
    run_loop(loop, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
      map_row(y + at[0], x + at[1], n, loop.step[1], [=](float v) { return scale * v * v; });
    });
  };
}

}  // namespace

MB_KERNEL("NAME", Device::kCpu, bind_NAME)

}  // namespace mb::MB_ISA
""",
    "cases.py": '''"""Examples: odd sizes, empty, a scalar; what must be refused."""

from megbrain_py.op_testing import Case, ErrorCase, integers, normal

from NAME import NAME

CASES = [
    Case("odd", NAME, {"x": normal(3, 5, 7)}),
    Case("scaled", lambda x: NAME(x, -0.5), {"x": normal(40001)}),
    Case("empty", NAME, {"x": normal(0, 4)}),
    Case("scalar", NAME, {"x": normal()}),
]
ERRORS = [
    ErrorCase("integers", NAME, {"x": integers(3)}, "x must be a float tensor, is int64"),
]
''',
}
