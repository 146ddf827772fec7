"""Reads the pickles with which torch.save describes tensors; nothing in them is ever executed.

A pickle is a program for a stack machine. This machine knows the opcodes that torch.save writes
(protocol 2) and the names in `STORAGES` and `_CALLS`; they make plain values and TensorViews. Any
other opcode or name is refused, with its name.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from megbrain_py.weights.tensor import Refused

MOST_BYTES = 4 << 20  # of a pickle: room for the descriptions of 30,000 tensors
_MOST_NESTED = 100  # tuples and lists inside each other while they are made
_MOST_NAME = 256  # bytes of a module's or a class's name
_MOST_AXES = 32

STORAGES = {
    ("torch", "DoubleStorage"): "float64",
    ("torch", "FloatStorage"): "float32",
    ("torch", "HalfStorage"): "float16",
    ("torch", "BFloat16Storage"): "bfloat16",
    ("torch", "LongStorage"): "int64",
    ("torch", "IntStorage"): "int32",
    ("torch", "ShortStorage"): "int16",
    ("torch", "CharStorage"): "int8",
    ("torch", "ByteStorage"): "uint8",
    ("torch", "BoolStorage"): "bool",
}


@dataclass(frozen=True)
class Storage:
    """`count` elements of the file, found under `key`."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class TensorView:
    """A tensor: elements of a storage by offset, shape and strides, all counted in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class _Global:
    """A name of the closed set, on the stack."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Unpickled:
    """A pickle's value, the storages that it names, and where the next byte after it is."""

    value: Any
    storages: dict[str, Storage]
    end: int


def unpickle(data: bytes, start: int = 0) -> Unpickled:
    """The value of the pickle that begins at `start`: None, bool, int, float, str, tuple, list,
    dict, Storage, TensorView. Raises Refused for everything else and for a damaged pickle.
    """
    machine = _Machine(data, start)
    if machine.take(2) != b"\x80\x02":
        raise Refused("its pickle is not of protocol 2, which torch.save writes")
    while True:
        code = machine.take(1)
        if code == b".":
            return Unpickled(machine.result(), machine.storages, machine.at)
        if code not in _STEPS:
            raise Refused(f"pickle opcode {_opcode(code)} at byte {machine.at - 1} is not allowed")
        _STEPS[code](machine)


def _opcode(code: bytes) -> str:
    names = {op.code: op.name for op in pickletools.opcodes}
    return names.get(code.decode("latin-1"), f"0x{code.hex()} (unknown)")


class _Machine:
    """The stack, the values remembered by number, and the place in the pickle."""

    def __init__(self, data: bytes, start: int) -> None:
        self.data = data
        self.at = start
        self.most = start + MOST_BYTES
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []  # the stacks below each MARK
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def take(self, count: int) -> bytes:
        """The next bytes."""
        piece = self.data[self.at : min(self.at + count, self.most)]
        if len(piece) < count:
            too_long = self.at + len(piece) == self.most
            more = f"has more than {MOST_BYTES:,} bytes" if too_long else "ends too early"
            raise Refused(f"its pickle {more}")
        self.at += count
        return piece

    def number(self, kind: str) -> int:
        """The next whole number, in the struct module's little-endian format."""
        (value,) = struct.unpack(f"<{kind}", self.take(struct.calcsize(kind)))
        return int(value)

    def line(self) -> str:
        """A name that ends with the line; what is not ASCII is escaped."""
        end = self.data.find(b"\n", self.at, self.at + _MOST_NAME)
        if end < 0:
            raise Refused(f"its pickle has a name without end at byte {self.at}")
        piece = self.take(end + 1 - self.at)[:-1]
        return ascii(piece.decode("latin-1"))[1:-1]

    def pop(self) -> Any:
        if not self.stack:
            raise Refused(f"its pickle takes from an empty stack at byte {self.at}")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise Refused(f"its pickle looks at an empty stack at byte {self.at}")
        return self.stack[-1]

    def mark(self) -> None:
        if len(self.marked) >= _MOST_NESTED:
            raise Refused(f"its pickle is nested more than {_MOST_NESTED} deep")
        self.marked.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        """The values since the last MARK."""
        if not self.marked:
            raise Refused(f"its pickle has no mark before byte {self.at}")
        found, self.stack = self.stack, self.marked.pop()
        return found

    def result(self) -> Any:
        if self.marked or len(self.stack) != 1:
            raise Refused(f"its pickle stops unfinished at byte {self.at - 1}")
        return self.stack[0]


def _text(machine: _Machine) -> None:
    piece = machine.take(machine.number("I"))
    try:
        machine.stack.append(piece.decode("utf-8"))
    except UnicodeDecodeError:
        raise Refused(f"its pickle has a text that is not UTF-8 before byte {machine.at}") from None


def _long(machine: _Machine) -> None:
    size = machine.number("B")
    if size > 8:
        raise Refused(f"its pickle has a whole number of {size} bytes, expected at most 8")
    machine.stack.append(int.from_bytes(machine.take(size), "little", signed=True))


def _real(machine: _Machine) -> None:
    machine.stack.append(struct.unpack(">d", machine.take(8))[0])


def _tuple(count: int) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.stack.append(tuple(reversed(items)))

    return step


def _marked_tuple(machine: _Machine) -> None:
    items = machine.pop_mark()  # it changes the stack that the next line appends to
    machine.stack.append(tuple(items))


def _get(kind: str) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        index = machine.number(kind)
        if index not in machine.memo:
            raise Refused(f"its pickle asks for the value {index}, which it never kept")
        machine.stack.append(machine.memo[index])

    return step


def _put(kind: str) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        machine.memo[machine.number(kind)] = machine.top()

    return step


def _append(machine: _Machine, items: list[Any]) -> None:
    target = machine.top()
    if type(target) is not list:
        raise Refused(f"its pickle appends to {_kind(target)} before byte {machine.at}")
    target.extend(items)


def _set_items(machine: _Machine, items: list[Any]) -> None:
    target = machine.top()
    if type(target) is not dict or len(items) % 2:
        raise Refused(f"its pickle sets items of {_kind(target)} before byte {machine.at}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Other keys have hashes that a file can make collide: filling a dict would take hours.
        if type(key) is not str and not (type(key) is int and abs(key) < 1 << 32):
            raise Refused(f"its pickle has {_kind(key)} for a key, expected a text")
        if key in target:
            raise Refused(f"its pickle has the name {key!r:.99} twice")
        target[key] = value


def _set_item(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _set_items(machine, [key, value])


def _build(machine: _Machine) -> None:
    """Attributes: those of a state dict (`_metadata`: versions of its modules) are passed over."""
    state, target = machine.pop(), machine.top()
    if type(target) is not dict or type(state) is not dict:
        raise Refused(f"its pickle sets attributes of {_kind(target)} before byte {machine.at}")


def _global(machine: _Machine) -> None:
    named = _Global(machine.line(), machine.line())
    pair = (named.module, named.name)
    if pair not in _CALLS and pair not in STORAGES:
        raise Refused(f"its pickle asks for {named}, which is not allowed")
    machine.stack.append(named)


def _reduce(machine: _Machine) -> None:
    arguments, named = machine.pop(), machine.pop()
    call = _CALLS.get((named.module, named.name)) if isinstance(named, _Global) else None
    if call is None or not isinstance(arguments, tuple):
        raise Refused(f"its pickle calls {_kind(named)} before byte {machine.at}: not allowed")
    machine.stack.append(call(arguments))


def _persistent(machine: _Machine) -> None:
    """("storage", type, key, device, count[, None before torch 1.6]) -> Storage."""
    found = machine.pop()
    wrong = Refused(f"its pickle describes no storage before byte {machine.at}")
    if not isinstance(found, tuple) or len(found) not in (5, 6) or found[0] != "storage":
        raise wrong
    _, named, key, device, count = found[:5]
    if found[5:] not in ((), (None,)):
        raise Refused("its pickle has a storage that is part of another: not allowed")
    dtype = STORAGES.get((named.module, named.name)) if isinstance(named, _Global) else None
    if dtype is None or not isinstance(key, str) or not isinstance(device, str):
        raise wrong
    if type(count) is not int or count < 0:
        raise wrong
    storage = Storage(key, dtype, count)
    if machine.storages.setdefault(key, storage) != storage:
        raise Refused(f"its storage {key!a:.99} is described in two ways")
    machine.stack.append(storage)


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise Refused("its pickle fills an OrderedDict by a call, expected an empty one")
    return {}


def _tensor(arguments: tuple[Any, ...]) -> TensorView:
    """Of storage, offset, shape, strides, requires_grad, hooks and perhaps metadata."""
    if len(arguments) not in (6, 7) or not isinstance(arguments[0], Storage):
        raise Refused("its pickle describes a tensor without storage")
    storage, offset, shape, strides = arguments[:4]
    hooks, metadata = arguments[5], arguments[6] if len(arguments) == 7 else None
    if hooks or metadata:
        raise Refused("its pickle has a tensor with hooks or lazy negation: not allowed")
    if not (_whole((offset,)) and _whole(shape) and _whole(strides) and len(shape) == len(strides)):
        raise Refused("its pickle describes a tensor without proper sizes")
    view = TensorView(storage, offset, shape, strides)
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if offset > storage.count or (view.count and last >= storage.count):
        raise Refused(
            f"a tensor of shape {shape} (strides {strides}, offset {offset}) lies outside of its "
            f"storage of {storage.count} elements"
        )
    return view


def _whole(values: Any) -> bool:
    """A short tuple of whole numbers from 0 on?"""
    if type(values) is not tuple or len(values) > _MOST_AXES:
        return False
    return all(type(value) is int and value >= 0 for value in values)


def _parameter(arguments: tuple[Any, ...]) -> TensorView:
    if len(arguments) != 3 or not isinstance(arguments[0], TensorView) or arguments[2]:
        raise Refused("its pickle describes a parameter that is no plain tensor")
    return arguments[0]


def _kind(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, _Global):
        return str(value)
    return f"an {kind}" if kind == "int" else f"a {kind}"


_CALLS: dict[tuple[str, str], Callable[[tuple[Any, ...]], Any]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}

_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"(": _Machine.mark,
    b"N": lambda m: m.stack.append(None),
    b"\x88": lambda m: m.stack.append(True),
    b"\x89": lambda m: m.stack.append(False),
    b"J": lambda m: m.stack.append(m.number("i")),
    b"K": lambda m: m.stack.append(m.number("B")),
    b"M": lambda m: m.stack.append(m.number("H")),
    b"\x8a": _long,
    b"G": _real,
    b"X": _text,
    b")": lambda m: m.stack.append(()),
    b"]": lambda m: m.stack.append([]),
    b"}": lambda m: m.stack.append({}),
    b"t": _marked_tuple,
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"a": lambda m: _append(m, [m.pop()]),
    b"e": lambda m: _append(m, m.pop_mark()),
    b"s": _set_item,
    b"u": lambda m: _set_items(m, m.pop_mark()),
    b"b": _build,
    b"c": _global,
    b"R": _reduce,
    b"Q": _persistent,
    b"h": _get("B"),
    b"j": _get("I"),
    b"q": _put("B"),
    b"r": _put("I"),
}
