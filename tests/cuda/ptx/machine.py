"""Runs a kernel: all threads of the grid at once, the lowest instruction first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arithmetic import BINARY, COMPARE, IGNORED, TERNARY, TYPES, UNARY, Lanes, convert
from .memory import Access, Fault, GlobalMemory, SharedMemory
from .parse import Address, Immediate, Instruction, Kernel, Operand, Register, Symbol

_MOST_STEPS = 1_000_000  # more is an endless loop


@dataclass(frozen=True)
class Grid:
    blocks: tuple[int, int, int]
    threads: tuple[int, int, int]  # of a block


def run(kernel: Kernel, grid: Grid, parameters: bytes, memory: GlobalMemory) -> None:
    """Execute the launch; Fault says kernel, thread and instruction of what is not permitted."""
    machine = _Machine(kernel, grid, parameters, memory)
    with np.errstate(all="ignore"):
        machine.run()


class _Machine:
    """Groups of threads by the instruction that they come to next; registers are arrays."""

    def __init__(self, kernel: Kernel, grid: Grid, parameters: bytes, memory: GlobalMemory) -> None:
        self.kernel = kernel
        self.grid = grid
        self.block_size = int(np.prod(grid.threads))
        blocks = int(np.prod(grid.blocks))
        self.count = blocks * self.block_size
        self.block = np.arange(self.count) // self.block_size
        self.epoch = np.zeros(blocks, np.int64)
        self.parameters = np.frombuffer(parameters, np.uint8)
        self.memory = memory
        self.shared = SharedMemory(blocks, kernel.shared_bytes)
        self.registers: dict[str, Lanes] = {}
        self.special = self._special_registers()
        self.ready: dict[int, Lanes] = {0: np.arange(self.count)}
        self.waiting: dict[int, Lanes] = {}  # at barriers

    def _special_registers(self) -> dict[str, Lanes]:
        values: dict[str, Lanes] = {}
        inside = np.arange(self.count) % self.block_size
        for number, sizes, names in (
            (inside, self.grid.threads, ("%tid", "%ntid")),
            (self.block, self.grid.blocks, ("%ctaid", "%nctaid")),
        ):
            rest = number
            for axis, size in zip("xyz", sizes, strict=True):
                values[f"{names[0]}.{axis}"] = (rest % size).astype(np.uint32)
                values[f"{names[1]}.{axis}"] = np.full(self.count, size, np.uint32)
                rest = rest // size
        return values

    # --- control ---

    def run(self) -> None:
        for _ in range(_MOST_STEPS):
            if not self.ready:
                if not self.waiting:
                    return
                self._open_barriers()
            at = min(self.ready)
            lanes = self.ready.pop(at)
            try:
                self._step(at, lanes)
            except Fault as fault:
                raise Fault(self._describe(fault, self.kernel.code[at])) from None
            except (ArithmeticError, NotImplementedError) as error:
                raise Fault(self._describe(Fault(str(error)), self.kernel.code[at])) from None
        raise Fault(f"kernel {self.kernel.name}: more than {_MOST_STEPS} steps")

    def _describe(self, fault: Fault, instruction: Instruction) -> str:
        who = ""
        if fault.thread is not None:
            at = {name: int(v[fault.thread]) for name, v in self.special.items()}
            block, thread = (
                tuple(at[f"%{name}.{axis}"] for axis in "xyz") for name in ("ctaid", "tid")
            )
            who = f", block {block}, thread {thread}"
        return f"kernel {self.kernel.name}{who}, at `{instruction}`: {fault}"

    def _go(self, at: int, lanes: Lanes) -> None:
        if lanes.size:
            others = self.ready.get(at)
            self.ready[at] = lanes if others is None else np.union1d(others, lanes)

    def _step(self, at: int, lanes: Lanes) -> None:
        instruction = self.kernel.code[at]
        if instruction.guard:
            taken = self.registers[instruction.guard][lanes] != instruction.negated
            self._go(at + 1, lanes[~taken])
            lanes = lanes[taken]
            if not lanes.size:
                return
        operation, *modifiers = instruction.opcode.split(".")
        if operation == "bra":
            self._go(self._target(instruction), lanes)
        elif operation == "bar":
            if modifiers != ["sync"] or instruction.operands != (Immediate("0"),):
                raise NotImplementedError(f"unknown barrier {instruction}")
            self.waiting[at] = np.union1d(self.waiting.get(at, lanes), lanes)
        elif operation != "ret":
            self._compute(operation, modifiers, instruction, lanes)
            self._go(at + 1, lanes)

    @staticmethod
    def _target(instruction: Instruction) -> int:
        (target,) = instruction.operands
        assert isinstance(target, int)
        return target

    def _open_barriers(self) -> None:
        """Nobody can run: every block must stand complete at one barrier."""
        for at, lanes in self.waiting.items():
            blocks, arrived = np.unique(self.block[lanes], return_counts=True)
            short = arrived < self.block_size
            if short.any():
                block, here = int(blocks[short][0]), int(arrived[short][0])
                raise Fault(
                    f"kernel {self.kernel.name}, block #{block}: {here} of {self.block_size} "
                    f"threads wait at `{self.kernel.code[at]}` (instruction {at}), the others "
                    "have returned or wait at another barrier"
                )
            self.epoch[blocks] += 1
        waiting, self.waiting = self.waiting, {}
        for at, lanes in waiting.items():
            self._go(at + 1, lanes)

    # --- values ---

    def _read(self, operand: Operand | Address | int, dtype: np.dtype, lanes: Lanes) -> Lanes:
        if isinstance(operand, Immediate):
            return np.full(lanes.size, operand.value(dtype), dtype)
        if isinstance(operand, Symbol):
            return np.full(lanes.size, operand.address, dtype)
        assert isinstance(operand, Register), operand
        if operand.name in self.special:
            values = self.special[operand.name][lanes]
        elif operand.name in self.registers:
            values = self.registers[operand.name][lanes]
        else:
            raise Fault(f"register {operand.name} is read before it is written")
        if values.dtype.itemsize == dtype.itemsize:
            return values.view(dtype)
        return values.astype(f"u{dtype.itemsize}").view(dtype)  # the low bits

    def _write(self, operand: Operand | Address | int, values: Lanes, lanes: Lanes) -> None:
        assert isinstance(operand, Register), operand
        if operand.name not in self.registers:
            own = self.kernel.registers[operand.name.rstrip("0123456789")]
            self.registers[operand.name] = np.zeros(self.count, own)
        register = self.registers[operand.name]
        if values.dtype.itemsize != register.dtype.itemsize:  # extended by the value's own sign
            values = values.astype(f"{values.dtype.kind}{register.dtype.itemsize}")
        register[lanes] = values.view(register.dtype)

    def _compute(
        self, operation: str, modifiers: list[str], instruction: Instruction, lanes: Lanes
    ) -> None:
        if operation in ("ld", "st"):
            self._access(operation, modifiers, instruction, lanes)
            return
        to, *sources = instruction.operands
        dtype = TYPES[modifiers[-1]]
        if operation == "cvt":
            rounding, into = [m for m in ["", *modifiers[:-1]] if m not in ("ftz", "sat")][-2:]
            values = convert(self._read(sources[0], dtype, lanes), TYPES[into], rounding)
        elif operation == "selp":
            a, b = (self._read(s, dtype, lanes) for s in sources[:2])
            values = np.where(self._read(sources[2], np.dtype(bool), lanes), a, b)
        elif operation == "setp":
            compare, *rest = modifiers[:-1]
            _refuse_unknown(rest, instruction)
            values = COMPARE[compare](*(self._read(s, dtype, lanes) for s in sources))
        elif operation == "cvta":
            values = self._read(sources[0], dtype, lanes)
        else:
            values = self._arithmetic(operation, modifiers[:-1], dtype, instruction, lanes)
        self._write(to, values, lanes)

    def _arithmetic(
        self, operation: str, modifiers: list[str], dtype: np.dtype, instruction: Instruction,
        lanes: Lanes,
    ) -> Lanes:  # fmt: skip
        sources = instruction.operands[1:]
        wide = "wide" in modifiers
        _refuse_unknown([m for m in modifiers if m not in ("wide", "lo")], instruction)
        types = [dtype] * len(sources)
        if operation in ("shl", "shr"):
            types[1] = np.dtype(np.uint32)
        if wide and operation == "mad":
            types[2] = np.dtype(f"{dtype.kind}{2 * dtype.itemsize}")
        values = [self._read(s, t, lanes) for s, t in zip(sources, types, strict=True)]
        if wide:
            values = [v.astype(f"{dtype.kind}{2 * dtype.itemsize}") for v in values]
        table = {1: UNARY, 2: BINARY, 3: TERNARY}[len(sources)]
        if operation not in table:
            raise NotImplementedError(f"unknown opcode {instruction.opcode}")
        result: Lanes = table[operation](*values)
        return result

    def _access(
        self, operation: str, modifiers: list[str], instruction: Instruction, lanes: Lanes
    ) -> None:
        if len(modifiers) != 2 or modifiers[0] not in ("param", "global", "shared"):
            raise NotImplementedError(f"unknown opcode {instruction.opcode}")
        space, dtype = modifiers[0], TYPES[modifiers[1]]
        load = operation == "ld"
        target, where = instruction.operands if load else instruction.operands[::-1]
        assert isinstance(where, Address)
        base = self._read(where.base, np.dtype(np.uint64), lanes)
        addresses = base + np.array(where.offset % 2**64, np.uint64)
        block = self.block[lanes]
        access = Access(addresses, dtype, lanes, block, self.epoch[block])
        if space == "param":
            access.refuse(addresses + np.uint64(dtype.itemsize) > self.parameters.size,
                          "read beyond the parameters, at byte {address}")  # fmt: skip
            at = addresses.astype(np.int64)[:, None] + np.arange(dtype.itemsize)
            self._write(target, self.parameters[at].view(dtype)[:, 0], lanes)
            return
        memory = self.memory if space == "global" else self.shared
        if load:
            self._write(target, memory.load(access), lanes)
        else:
            memory.store(access, self._read(target, dtype, lanes))


def _refuse_unknown(modifiers: list[str], instruction: Instruction) -> None:
    unknown = set(modifiers) - IGNORED
    if unknown:
        raise NotImplementedError(f"unknown modifier {', '.join(unknown)} of {instruction.opcode}")
