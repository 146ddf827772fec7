"""PTX text -> kernels: parameters, registers, shared arrays, instructions with resolved labels."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np


@dataclass(frozen=True)
class Register:
    name: str


@dataclass(frozen=True)
class Immediate:
    """A number as it is written: an integer, or a float as the bits after 0f or 0d."""

    text: str

    def value(self, dtype: np.dtype) -> np.generic:
        if self.text[:2] in ("0f", "0d"):
            bits, as_float = (
                (np.uint32, np.float32) if self.text[1] == "f" else (np.uint64, np.float64)
            )
            return np.array(int(self.text[2:], 16), bits).view(as_float)[()]
        width = 1 if dtype.kind == "b" else 8 * dtype.itemsize
        number = int(self.text, 0) % (1 << width)
        return np.array(number, f"u{dtype.itemsize}").view(dtype)[()]


@dataclass(frozen=True)
class Symbol:
    """The address of a parameter or a shared array in its own space."""

    address: int


Operand: TypeAlias = "Register | Immediate | Symbol"


@dataclass(frozen=True)
class Address:
    base: Operand
    offset: int


@dataclass(frozen=True)
class Instruction:
    opcode: str  # "ld.global.f32"
    operands: tuple[Operand | Address | int, ...]  # int: the instruction that a branch goes to
    guard: str  # the predicate's register, or ""
    negated: bool
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass
class Kernel:
    name: str
    parameters: list[tuple[int, int]] = field(default_factory=list)  # (offset, bytes)
    parameter_bytes: int = 0
    shared_bytes: int = 0
    registers: dict[str, np.dtype] = field(default_factory=dict)  # by prefix: "%rd"
    code: list[Instruction] = field(default_factory=list)


_WIDTHS = {"pred": "bool", "16": "u2", "32": "u4", "64": "u8"}
_ENTRY = re.compile(r"\.entry\s+(\w+)\s*\(([^)]*)\)[^{]*\{(.*?)\n\}", re.S)
_ARRAY = re.compile(r"\.align (\d+) \.b8 (\w+)\[(\d+)\]")
_SCALAR = re.compile(r"\.param \.[busf](\d+) (\w+)")
_REGISTERS = re.compile(r"\.reg \.(?:[buf])?(\w+)\s+(%\w+)<\d+>")


def kernels_of(ptx: str) -> dict[str, Kernel]:
    """All kernels of a PTX module by name."""
    text = re.sub(r"//[^\n]*", "", ptx)
    return {name: _kernel(name, head, body) for name, head, body in _ENTRY.findall(text)}


def _kernel(name: str, head: str, body: str) -> Kernel:
    kernel = Kernel(name)
    symbols: dict[str, int] = {}
    for line in head.split(","):
        if not line.strip():
            continue
        array, scalar = _ARRAY.search(line), _SCALAR.search(line)
        if array:
            align, symbol, size = int(array[1]), array[2], int(array[3])
        elif scalar:
            symbol, size = scalar[2], int(scalar[1]) // 8
            align = size
        else:
            raise SyntaxError(f"{name}: unknown parameter {line.strip()}")
        offset = _round_up(kernel.parameter_bytes, align)
        symbols[symbol] = offset
        kernel.parameters.append((offset, size))
        kernel.parameter_bytes = offset + size

    labels: dict[str, int] = {}
    lines: list[str] = []
    for line in filter(None, (part.strip() for part in re.split(r"[;\n]", body))):
        registers, array = _REGISTERS.match(line), _ARRAY.search(line)
        if registers:
            kernel.registers[registers[2]] = np.dtype(_WIDTHS[registers[1]])
        elif line.startswith(".shared") and array:
            offset = _round_up(kernel.shared_bytes, int(array[1]))
            symbols[array[2]] = offset
            kernel.shared_bytes = offset + int(array[3])
        elif line.endswith(":"):
            labels[line[:-1]] = len(lines)
        elif line.startswith(".pragma"):
            continue
        elif line.startswith("."):
            raise SyntaxError(f"{name}: unknown declaration {line}")
        else:
            lines.append(line)
    kernel.code = [_instruction(line, symbols, labels) for line in lines]
    return kernel


def _round_up(value: int, unit: int) -> int:
    return (value + unit - 1) // unit * unit


def _instruction(line: str, symbols: dict[str, int], labels: dict[str, int]) -> Instruction:
    guard, negated, rest = "", False, line
    if line.startswith("@"):
        word, rest = line.split(None, 1)
        negated = word[1] == "!"
        guard = word.lstrip("@!")
    opcode, _, tail = rest.strip().partition(" ")
    opcode, _, more = opcode.partition("\t")
    words = [w.strip() for w in (more + " " + tail).split(",") if w.strip()]
    operands = tuple(labels[w] if w in labels else _operand(w, symbols) for w in words)
    return Instruction(opcode, operands, guard, negated, " ".join(line.split()))


def _operand(word: str, symbols: dict[str, int]) -> Operand | Address:
    if word.startswith("["):
        base, _, offset = word[1:-1].partition("+")
        inner = _operand(base.strip(), symbols)
        assert not isinstance(inner, Address)
        return Address(inner, int(offset or 0))
    if word.startswith("%"):
        return Register(word)
    if word in symbols:
        return Symbol(symbols[word])
    if re.fullmatch(r"-?\d+|0[fd][0-9A-Fa-f]+|0x[0-9A-Fa-f]+", word):
        return Immediate(word)
    raise SyntaxError(f"unknown operand {word}")
