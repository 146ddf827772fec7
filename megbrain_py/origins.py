"""Where nodes come from: the user's line, the place in program order, whether in a gradient."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

_HERE = Path(__file__).parent  # as Python was told to find it, and where it really is
_framework = tuple(f"{p}{os.sep}" for p in (_HERE, _HERE.resolve(), _HERE.resolve().parent / "ops"))
_MODELS = tuple(f"{p / 'models'}{os.sep}" for p in (_HERE, _HERE.resolve()))
_serial = itertools.count()
# While a pass rebuilds a node: that node's place; while a gradient is made: its line. Each thread
# builds its own graphs.
_replaced_order: ContextVar[int | None] = ContextVar("megbrain_py_replaced_order", default=None)
_origin_override: ContextVar[str | None] = ContextVar("megbrain_py_origin", default=None)
_backward: ContextVar[bool] = ContextVar("megbrain_py_backward", default=False)


class Made(Protocol):
    """What a node says about where it comes from."""

    origin: str
    order: tuple[int, int]
    backward: bool


@contextmanager
def origin_of(node: Made) -> Iterator[None]:
    """Nodes made inside inherit this node's origin (gradients, passes)."""
    token = _origin_override.set(node.origin)
    try:
        yield
    finally:
        _origin_override.reset(token)


@contextmanager
def gradient_of(node: Made) -> Iterator[None]:
    """Nodes made inside are parts of this node's gradient, and inherit its origin."""
    token = _backward.set(True)
    try:
        with origin_of(node):
            yield
    finally:
        _backward.reset(token)


@contextmanager
def taking_place_of(node: Made) -> Iterator[None]:
    """Nodes made inside stand in program order where that node stands (passes)."""
    tokens = _replaced_order.set(node.order[0]), _backward.set(node.backward)
    try:
        yield
    finally:
        _replaced_order.reset(tokens[0])
        _backward.reset(tokens[1])


def in_gradient() -> bool:
    """Are the nodes that are made now parts of a gradient?"""
    return _backward.get()


def next_order(inputs: Iterable[Made]) -> tuple[int, int]:
    """Program order of a node that is made now: after its inputs.

    A node that a pass makes takes the place of the node it replaces.
    """
    serial = next(_serial)
    replaced = _replaced_order.get()
    if replaced is None:
        return serial, serial
    return max([replaced, *(node.order[0] for node in inputs)]), serial


def user_origin() -> str:
    """file:line of the nearest caller outside the framework's own files (models count as users)."""
    inherited = _origin_override.get()
    if inherited is not None:
        return inherited
    frame = sys._getframe(1)
    while frame.f_back is not None:
        path = frame.f_code.co_filename
        if not path.startswith(_framework) or path.startswith(_MODELS):
            break
        frame = frame.f_back
    return f"{_short(frame.f_code.co_filename)}:{frame.f_lineno}"


def add_framework_folder(folder: Path) -> None:
    """Count a room outside of the tree as the framework's: the user's line is above its files."""
    global _framework  # noqa: PLW0603  (grows by a folder for each loaded room)
    prefix = f"{folder}{os.sep}"
    if prefix not in _framework:
        _framework = (*_framework, prefix)


def _short(path: str) -> str:
    """The last three parts of a path: enough to find the file, short enough for a line."""
    return "/".join(part for part in Path(path).parts[-3:] if part != "/")
