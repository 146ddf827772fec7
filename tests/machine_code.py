"""The compiled module's machine code, kernel by kernel: what tests of instruction sets look at.

The module is stripped, so functions are found as the loader and the unwinder find them: the kernel
table through its relocations, the functions' bounds in .eh_frame_hdr.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path

_ISA = ("base", "v3", "v4")
_RELATIVE = 8  # R_X86_64_RELATIVE
_ADDRESS = re.compile(r"# ([0-9a-f]+)|^(?:call|j\w+)\s+([0-9a-f]+)")
_ARITHMETIC = re.compile(r"v(?:add|sub|mul|div|min|max|sqrt|cmp\w*|fn?m(?:add|sub)\d+)[ps][sd]\s")


@dataclass
class Function:
    """Widest registers in bits: of all instructions, of those that compute floats; references."""

    widest: int = 0
    arithmetic: int = 0
    refers: set[int] = field(default_factory=set)


class MachineCode:
    """Kernels by (name, level), and every function that they lead to."""

    def __init__(self, module: Path) -> None:
        self._data = module.read_bytes()
        self._sections = self._read_sections()
        self._pointers = self._read_relocations()
        self.kernels = self._read_table()
        self._starts = self._read_starts()
        self._functions = self._disassemble(module)

    def closure(self, name: str, isa: str) -> Function:
        """Everything that the kernel's functions reach by calls and by addresses they take."""
        whole = Function()
        stack = [self.kernels[name, isa]]
        seen: set[int] = set()
        while stack:
            start = stack.pop()
            if start in seen or start not in self._functions:
                continue
            seen.add(start)
            own = self._functions[start]
            whole.widest = max(whole.widest, own.widest)
            whole.arithmetic = max(whole.arithmetic, own.arithmetic)
            for target in own.refers:
                # A pair of function pointers (a std::function's) may be loaded as data.
                found = [self._pointers.get(target + 8 * i, 0) for i in range(2)]
                stack += [self._function_at(t) for t in (target, *found)]
        return whole

    def _function_at(self, address: int) -> int:
        text = self._sections[".text"]
        if not text[0] <= address < text[0] + text[2]:
            return 0
        return self._starts[bisect_right(self._starts, address) - 1]

    def _read_sections(self) -> dict[str, tuple[int, int, int]]:
        """Name -> (address, offset in the file, size)."""
        at, size, count, names = struct.unpack_from("<Q10xHHH", self._data, 0x28)
        rows = [struct.unpack_from("<IIQQQQ", self._data, at + i * size) for i in range(count)]
        strings = rows[names][4]
        found = {}
        for name, _, _, address, offset, length in rows:
            end = self._data.index(b"\0", strings + name)
            found[self._data[strings + name : end].decode()] = (address, offset, length)
        return found

    def _read_relocations(self) -> dict[int, int]:
        """Address of a pointer -> what it points to."""
        _, offset, size = self._sections[".rela.dyn"]
        rows = struct.iter_unpack("<QQq", self._data[offset : offset + size])
        return {place: target for place, kind, target in rows if kind == _RELATIVE}

    def _read_table(self) -> dict[tuple[str, str], int]:
        """mb::Registration: a name, the device, the level, `bind` or else `bind_asynchronous`."""
        address, _, size = self._sections["mb_kernels"]
        kernels = {}
        for entry in range(address, address + size, 8):
            row = self._pointers[entry]
            text = self._offset(self._pointers[row])
            name = self._data[text : self._data.index(b"\0", text)].decode()
            isa = self._data[self._offset(row) + 9]
            bind = self._pointers.get(row + 16) or self._pointers[row + 24]
            kernels[name, _ISA[isa]] = bind
        return kernels

    def _offset(self, address: int) -> int:
        for start, offset, size in self._sections.values():
            if start <= address < start + size:
                return address - start + offset
        raise ValueError(f"{address:#x} is in no section")

    def _read_starts(self) -> list[int]:
        """Where functions begin: the unwinder's sorted table."""
        address, offset, _ = self._sections[".eh_frame_hdr"]
        assert self._data[offset : offset + 4] == b"\x01\x1b\x03\x3b"
        (count,) = struct.unpack_from("<I", self._data, offset + 8)
        rows = struct.iter_unpack("<ii", self._data[offset + 12 : offset + 12 + 8 * count])
        return sorted(address + start for start, _ in rows)

    def _disassemble(self, module: Path) -> dict[int, Function]:
        command = ["objdump", "-d", "--no-show-raw-insn", "-j", ".text", str(module)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        functions = {start: Function() for start in self._starts}
        for line in listing.splitlines():
            place, colon, instruction = line.partition(":\t")
            if not colon:
                continue
            start = self._function_at(int(place, 16))
            if start not in functions:
                continue
            own = functions[start]
            width = 512 if "%zmm" in instruction else 256 if "%ymm" in instruction else 0
            own.widest = max(own.widest, width)
            if width > own.arithmetic and _ARITHMETIC.match(instruction):
                own.arithmetic = width
            for pair in _ADDRESS.findall(instruction):
                own.refers.add(int(pair[0] or pair[1], 16))
        return functions


def available() -> bool:
    """Is there a disassembler?"""
    return shutil.which("objdump") is not None
