"""Builds the kernels of a room outside of the tree into one shared object, as the engine's are."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from megbrain_py import debug, engine
from megbrain_py.errors import EngineError
from megbrain_py.library import Room, find_room, headers_digest, include_dir

_ENTRY = '#include "mb/library_entry.h"\n'


@dataclass(frozen=True)
class Built:
    """A library that fits its sources and this engine. made: it was compiled just now."""

    library: Path
    levels: tuple[str, ...]
    made: bool
    warnings: str


def build(folder: str | Path) -> Built:
    """Compile a room's `*_cpu.cpp` once for each instruction set and link `build/NAME.so`.

    Does nothing when neither sources, engine nor compiler have changed. Raises EngineError with
    the compiler's messages, when there is no compiler, and when there is nothing to compile.
    """
    room = find_room(folder)
    if not room.kernel_files:
        raise EngineError(f"{folder} has no *_cpu.cpp: nothing to build, load_library imports it")
    record = engine.build_record()
    if headers_digest() != record.headers:
        raise EngineError("the headers have changed since the engine was built: install it again")
    compiler = _compiler(record.compiler)
    flags = (*record.flags, f'-DMB_HEADERS="{record.headers}"', *_include_flags())
    levels = tuple(record.levels)
    command = json.dumps([compiler, flags, dict(record.levels)])
    key = {
        "sources": room.source_digest(),
        "command": hashlib.sha256(command.encode()).hexdigest(),
    }
    if room.library.exists() and room.key() == key:
        return Built(room.library, levels, made=False, warnings="")
    with tempfile.TemporaryDirectory(prefix="megbrain_build_") as temporary:
        units = _units(room, Path(temporary), record.levels)
        warnings = _compile_all(compiler, flags, units)
        room.key_file.unlink(missing_ok=True)  # from here on it would not tell the truth
        _link(compiler, flags, units, room)
    room.key_file.write_text(json.dumps(key) + "\n")
    return Built(room.library, levels, made=True, warnings=warnings)


def _include_flags() -> list[str]:
    """For "mb/..." and for the headers of rooms in the tree, "ops/unary/functors.h"."""
    return [f"-I{include_dir()}", "-iquote", str(include_dir().parent)]


def _compiler(built_with: str) -> list[str]:
    """CXX, or the compiler of the engine, or what this machine has; a command's words."""
    named = debug.compiler()
    wanted = [named] if named else [built_with, "c++", "g++", "clang++"]
    for name in wanted:
        words = shlex.split(name)
        if shutil.which(words[0]) is not None:
            return words
    raise EngineError(
        f"no C++ compiler: {', '.join(wanted)} not found; install GCC >= 11 or Clang >= 14, "
        "or name one: CXX=g++-12 megbrain build-op ..."
    )


@dataclass(frozen=True)
class _Unit:
    """One run of the compiler."""

    source: Path
    flags: tuple[str, ...]
    object: Path


def _units(room: Room, temporary: Path, levels: Mapping[str, tuple[str, ...]]) -> list[_Unit]:
    """In the order in which they are linked, the lowest level first: of an inline function that

    several files hold, the first one's is kept, and it must run on every processor.
    """
    entry = temporary / "entry.cpp"
    entry.write_text(_ENTRY)
    units: list[_Unit] = []
    for level, more in levels.items():
        flags = (*more, f"-DMB_ISA={level}", f'-DMB_ISA_NAME="{level}"')
        for source in room.kernel_files if units else [entry, *room.kernel_files]:
            units.append(_Unit(source, flags, temporary / f"{source.stem}.{level}.o"))
    return units


def _compile_all(compiler: Sequence[str], flags: Sequence[str], units: Sequence[_Unit]) -> str:
    """Run the compiler, several at a time, until one fails (the other levels would only repeat

    its errors, which EngineError holds); the warnings of each file.
    """

    def compile_one(unit: _Unit) -> subprocess.CompletedProcess[str]:
        words = [*flags, *unit.flags, "-c", str(unit.source), "-o", str(unit.object)]
        return _run(compiler, words)

    warnings: dict[Path, str] = {}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for unit, process in zip(units, pool.map(compile_one, units), strict=True):
            if process.returncode != 0:
                pool.shutdown(cancel_futures=True)
                raise EngineError(f"{unit.source} does not compile\n{process.stderr.rstrip()}")
            warnings[unit.source] = process.stderr
    return "".join(warnings.values())


def _link(
    compiler: Sequence[str], flags: Sequence[str], units: Sequence[_Unit], room: Room
) -> None:
    """Into a new file that takes the old one's place: a running program may have that open."""
    room.library.parent.mkdir(exist_ok=True)
    new = room.library.with_suffix(f".{os.getpid()}.new")
    # What is missing shall be seen here and not when it is opened (a sanitizer's are, there).
    complete = [] if any("-fsanitize" in flag for flag in flags) else ["-Wl,-z,defs"]
    objects = [str(unit.object) for unit in units]
    words = [*flags, "-shared", *objects, *complete, "-o", str(new)]
    process = _run(compiler, words)
    if process.returncode != 0:
        raise EngineError(f"{room.folder} does not link\n{process.stderr.rstrip()}")
    new.replace(room.library)


def _run(compiler: Sequence[str], words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*compiler, *words], capture_output=True, text=True, check=False)
