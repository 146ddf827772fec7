"""What each arithmetic opcode computes, on numpy arrays of one lane a thread.

Rounding is numpy's, to nearest even. Two deviations: a float32 fma goes through float64 (in rare
cases rounded twice), a float64 fma through long double; `approx` is computed exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Lanes: TypeAlias = "np.ndarray[Any, Any]"

TYPES = {
    **{f"{kind}{bits}": np.dtype(f"{code}{bits // 8}")
       for kind, code in (("u", "u"), ("s", "i"), ("b", "u")) for bits in (8, 16, 32, 64)},
    "f32": np.dtype("f4"), "f64": np.dtype("f8"), "pred": np.dtype(bool),
}  # fmt: skip


def _divide(a: Lanes, b: Lanes) -> Lanes:
    if a.dtype.kind == "f":
        return a / b
    if (b == 0).any():
        raise ArithmeticError("an integer is divided by 0")
    quotient = a // b
    return quotient + ((quotient * b != a) & ((a < 0) != (b < 0)))  # towards 0


def _fma(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    wide = np.float64 if a.dtype == np.float32 else np.longdouble
    return (a.astype(wide) * b.astype(wide) + c.astype(wide)).astype(a.dtype)


def _shift(left: bool) -> Callable[[Lanes, Lanes], Lanes]:
    def shift(a: Lanes, count: Lanes) -> Lanes:
        bits = 8 * a.dtype.itemsize
        inside = np.minimum(count, bits - 1).astype(a.dtype)
        shifted = a << inside if left else a >> inside
        if a.dtype.kind == "i" and not left:
            return shifted  # fills with the sign
        return np.where(count >= bits, a.dtype.type(0), shifted)

    return shift


BINARY: dict[str, Callable[[Lanes, Lanes], Lanes]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": _divide,
    "min": np.fmin, "max": np.fmax,  # of a number and a NaN: the number
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "shl": _shift(left=True), "shr": _shift(left=False),
}  # fmt: skip
UNARY: dict[str, Callable[[Lanes], Lanes]] = {
    "mov": lambda a: a, "neg": np.negative, "abs": np.abs, "not": np.invert,
    "rcp": lambda a: a.dtype.type(1) / a,
}  # fmt: skip
TERNARY: dict[str, Callable[[Lanes, Lanes, Lanes], Lanes]] = {
    "fma": _fma, "mad": lambda a, b, c: a * b + c,
}  # fmt: skip


def _any_nan(a: Lanes, b: Lanes) -> Lanes:
    return np.isnan(a) | np.isnan(b)


COMPARE: dict[str, Callable[[Lanes, Lanes], Lanes]] = {
    "eq": np.equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "ne": lambda a, b: (a != b) & ~_any_nan(a, b),  # ordered: false for a NaN
    "equ": lambda a, b: ~((a < b) | (a > b)), "neu": np.not_equal,
    "ltu": lambda a, b: ~(a >= b), "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b), "geu": lambda a, b: ~(a < b),
    "nan": _any_nan, "num": lambda a, b: ~_any_nan(a, b),
}  # fmt: skip
_ROUND = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def convert(a: Lanes, to: np.dtype, rounding: str) -> Lanes:
    """cvt: integers wrap; floats become integers by their rounding, clamped, a NaN becomes 0."""
    if rounding in _ROUND:
        a = _ROUND[rounding](a)
    elif rounding not in ("", "rn"):
        raise NotImplementedError(f"rounding {rounding}")
    if a.dtype.kind == "f" and to.kind in "iu":
        limits = np.iinfo(to)
        inside = np.clip(np.where(np.isnan(a), 0, a).astype(np.longdouble), limits.min, limits.max)
        return inside.astype(to)
    return a.astype(to)


# Modifiers that change nothing here: rounding to nearest, uniform branches, approximations.
IGNORED = frozenset({"rn", "approx", "ftz", "uni", "to", "global"})
