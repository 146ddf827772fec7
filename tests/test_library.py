"""Operators outside of the tree, end to end: built by the command, loaded, tested, trained with.

Every program runs in a process and a folder of its own, as a user's would.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import megbrain_py as mb
from megbrain_py import engine, library
from megbrain_py.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(mb.__file__).parent.parent  # of the tree or installed: the one that is tested
THROWS = """
#include <stdexcept>

#include "mb/kernel.h"
#include "ops/unary/functors.h"  // headers of rooms are shipped, too

namespace mb::MB_ISA {
namespace {

Launch bind_throws(const Call& call) {
  const int what = int(call.attrs.integer("what"));
  if (what == 0) fail("refused while loading, with ", num_threads(), " threads");
  return [=](Stream&) {
    parallel_for(1 << 20, 1, [=](std::int64_t begin, std::int64_t) {
      if (begin > 0) return;
      if (what == 1) fail("thrown by a thread");
      if (what == 2) throw std::logic_error("a strange exception");
      throw 3;
    });
  };
}

}  // namespace

MB_KERNEL("throws", Device::kCpu, bind_throws)

}  // namespace mb::MB_ISA
"""
THROWS_ROOM = """
from dataclasses import dataclass

import megbrain_py as mb


@dataclass(frozen=True)
class Throws(mb.Operator, kernel="throws"):
    what: int

    def infer(self, x):
        mb.errors.require(x.rank == 1, "x must be a vector")
        return x
"""
RUN_THROWS = """
import numpy as np
import megbrain_py as mb

throws = mb.load_library("throws")
assert mb.load_library("throws") is throws  # again: nothing happens
import throws as imported
assert imported is throws
x = mb.placeholder("x", (3,))
for what in range(4):
    try:
        mb.compile(throws.Throws(what)(x))(x=np.zeros(3))
    except mb.EngineError as error:
        print(error)
try:
    throws.Throws(0)(mb.placeholder("m", (2, 2)))
except mb.GraphError as error:
    print(error)
"""

LOAD = """
import megbrain_py as mb
mb.load_library("throws")
"""


def _python(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False,
        timeout=300, env={**os.environ, "PYTHONPATH": str(PACKAGE), **environment},
    )  # fmt: skip


def _program(folder: Path, text: str, **environment: str) -> str:
    """Output of a Python program; of one that ends by an exception, that one's message."""
    done = _python(folder, "-c", text, **environment)
    return done.stdout if done.returncode == 0 else done.stderr


def _megbrain(folder: Path, *words: str, **environment: str) -> str:
    """Output of a command that succeeds."""
    done = _python(folder, "-m", "megbrain_py", *words, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _refused(folder: Path, *words: str, **environment: str) -> str:
    """Message of a command that the user got wrong."""
    done = _python(folder, "-m", "megbrain_py", *words, **environment)
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with the example and a room whose kernels throw, both built."""
    folder = tmp_path_factory.mktemp("user")
    ignore = shutil.ignore_patterns("build", "__pycache__")
    shutil.copytree(ROOT / "examples" / "own_operator", folder, dirs_exist_ok=True, ignore=ignore)
    _write_throws(folder / "throws")
    printed = _megbrain(folder, "build-op", "soft_clip", "throws")
    levels = ", ".join(engine.build_record().levels)
    assert re.findall(r"^(\S+): (.*) in ", printed, re.MULTILINE) == [
        ("soft_clip/build/soft_clip.so", levels), ("throws/build/throws.so", levels),
    ]  # fmt: skip
    return folder


def _write_throws(room: Path) -> None:
    room.mkdir()
    (room / "throws.py").write_text(THROWS_ROOM)
    (room / "throws_cpu.cpp").write_text(THROWS)


def _copy(home: Path, name: str, folder: Path) -> Path:
    """A copy of a built room that a test may spoil."""
    return Path(shutil.copytree(home / name, folder / name))


def test_the_engine_knows_its_headers() -> None:
    """Fails when a header was changed and the engine not built again."""
    assert library.headers_digest() == engine.build_record().headers


def test_documented_commands_run(home: Path) -> None:
    text = (ROOT / "docs" / "add_an_operator.md").read_text()
    section = text.split("## Outside the tree", 1)[1]
    block = re.search(r"```\n(cd examples/own_operator\n.*?)```", section, re.DOTALL)
    assert block is not None
    commands = [line.split("#")[0].split() for line in block[1].splitlines()[1:]]
    assert [words[0] for words in commands] == ["megbrain", "megbrain", "python"]
    printed = [_command(home, words) for words in commands]
    assert printed[0] == "soft_clip/build/soft_clip.so: up to date\n"
    assert "FAILED" not in printed[1] and re.search(r"channels_last +ok +ok ", printed[1])
    assert printed[1].endswith("14 checks passed, 0 failed\n")
    assert "loss 0.0" in printed[2] and "100.0% of the points" in printed[2]


def _command(folder: Path, words: Sequence[str]) -> str:
    if words[0] == "megbrain":
        return _megbrain(folder, *words[1:])
    done = _python(folder, *words[1:])
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("isa", ["base", "v3"])
def test_lower_levels_pass_the_cases(home: Path, isa: str) -> None:
    if isa not in engine.build_record().levels:
        pytest.skip(f"{isa} is not in this build")
    assert "14 checks passed" in _megbrain(home, "test-op", "./soft_clip", MB_ISA=isa)


def test_a_kernel_unlike_its_reference_fails(home: Path, tmp_path: Path) -> None:
    room = _copy(home, "soft_clip", tmp_path)
    source = (room / "soft_clip.py").read_text()
    (room / "soft_clip.py").write_text(source.replace("return limit *", "return 2 * limit *"))
    done = _python(tmp_path, "-m", "megbrain_py", "test-op", "soft_clip")
    assert done.returncode == 1
    assert re.search(r"odd +FAILED", done.stdout)
    assert "y0: relative error 5.00e-01 of the kernel" in done.stdout


def test_exceptions_arrive_with_the_users_line(home: Path) -> None:
    printed = _program(home, RUN_THROWS, MB_NUM_THREADS="2")
    at = "throws at <string>:12"
    assert re.fullmatch(
        rf"load: {at}: refused while loading, with 2 threads\n"
        rf"{at}: thrown by a thread\n{at}: a strange exception\n"
        rf"{at}: an exception without a message\n"
        r"throws: x must be a vector\n.*\n  at <string>:16\n",
        printed,
    ), printed


def test_a_name_that_exists_is_refused(home: Path, tmp_path: Path) -> None:
    other = _copy(home, "throws", tmp_path)
    message = _program(home, LOAD + f"mb.load_library({str(other)!r})")
    assert f"exists already, in {home / 'throws/build/throws.so'}" in message
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "json.py").write_text("")
    message = _program(tmp_path, "import megbrain_py as mb; mb.load_library('json')")
    assert "load_library: a module json exists already, " in message


def test_a_new_build_needs_a_new_start(home: Path, tmp_path: Path) -> None:
    room = _copy(home, "throws", tmp_path)
    program = f"""
import shutil
import megbrain_py as mb
built = {str(room / "build" / "throws.so")!r}
mb.load_library(built)
shutil.copy(built, built + ".new")
shutil.move(built + ".new", built)
mb.load_library(built)
"""
    assert "was built again while it was open: start the program" in _program(tmp_path, program)


def test_another_engines_library_is_refused(home: Path, tmp_path: Path) -> None:
    built = _copy(home, "throws", tmp_path) / "build" / "throws.so"
    digest = engine.build_record().headers.encode()
    content = built.read_bytes()
    assert content.count(digest) == 1
    built.write_bytes(content.replace(digest, b"0123456789abcdef"))
    message = _program(tmp_path, LOAD)
    assert f"load_library: {built} was built for another engine\n" in message
    assert "\n  the library: headers 0123456789abcdef, lib" in message
    assert message.endswith("\n  run: megbrain build-op throws\n")
    alone = _program(tmp_path, f"import megbrain_py as mb; mb.load_library({str(built)!r})")
    assert "was built for another engine" in alone


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(mb.EngineError, match=r"load_library: there is no file .*/none\.so"):
        mb.load_library(tmp_path / "none.so")
    with pytest.raises(mb.EngineError, match="load_library: there is no folder"):
        mb.load_library(tmp_path / "none")
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(mb.EngineError, match=r"text\.so cannot be opened: .*(ELF|short|header)"):
        mb.load_library(tmp_path / "text.so")
    with pytest.raises(mb.EngineError, match="is no library of kernels"):
        mb.load_library(Path(engine.__file__).parent / Path(mb.engine._engine.__file__).name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(mb.EngineError, match=r"neither __init__\.py nor empty\.py"):
        mb.load_library(tmp_path / "empty")


def test_building_is_asked_for(tmp_path: Path) -> None:
    room = tmp_path / "throws"
    _write_throws(room)
    with pytest.raises(mb.EngineError, match=r"has C\+\+ that is not built; run: megbrain"):
        mb.load_library(room)
    assert "is not built; run: megbrain build-op throws" in _refused(tmp_path, "test-op", "throws")


def test_changed_sources_are_not_run_in_silence(home: Path, tmp_path: Path) -> None:
    room = _copy(home, "throws", tmp_path)
    (room / "throws_cpu.cpp").write_text(THROWS + "// changed\n")
    with pytest.raises(mb.EngineError, match="has changed since it was built; run: megbrain build"):
        mb.load_library(room)


def test_compiler_errors_are_shown(tmp_path: Path) -> None:
    room = tmp_path / "throws"
    _write_throws(room)
    (room / "throws_cpu.cpp").write_text(THROWS.replace("int(call", "int(cal"))
    message = _refused(tmp_path, "build-op", "throws")
    assert message.startswith("megbrain build-op: throws/throws_cpu.cpp does not compile\n")
    assert len(re.findall(r"throws/throws_cpu\.cpp:11:\d+: error: .*\bcal\b", message)) == 1
    (room / "throws_cpu.cpp").write_text(THROWS.replace("fail(", "set_num_threads(2); fail(", 1))
    message = _refused(tmp_path, "build-op", "throws")
    assert message.startswith("megbrain build-op: throws does not link\n")
    assert "set_num_threads" in message
    assert "no C++ compiler: nonesuch not found" in _refused(
        tmp_path, "build-op", "throws", CXX="nonesuch"
    )
    (room / "throws_cpu.cpp").unlink()
    assert "has no *_cpu.cpp: nothing to build" in _refused(tmp_path, "build-op", "throws")


def test_a_room_in_python_alone(tmp_path: Path) -> None:
    room = tmp_path / "thrice"
    room.mkdir()
    (room / "__init__.py").write_text("def thrice(x):\n    return x * 3.0\n")
    thrice = mb.load_library(room)
    compiled = mb.compile(thrice.thrice(mb.placeholder("x", ())))
    assert compiled(x=2.0)["output"] == 6.0
    assert "thrice has no cases.py" in _refused(tmp_path, "test-op", "./thrice")


def test_new_op_passes_its_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-op", str(tmp_path / "leaky_square")]) == 0
    assert main(["new-op", str(tmp_path / "leaky_square")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["new-op", str(tmp_path / "leaky-square")]) == 2
    assert "'leaky-square' is no name for an operator" in capsys.readouterr().err
    _megbrain(tmp_path, "build-op", "leaky_square")
    assert "8 checks passed, 0 failed" in _megbrain(tmp_path, "test-op", "leaky_square")


def test_headers_are_shipped() -> None:
    folder = mb.include_dir() / "mb"
    assert {"kernel.h", "elementwise.h", "library_entry.h"} <= {h.name for h in folder.iterdir()}
    assert (mb.include_dir().parent / "ops" / "unary" / "functors.h").exists()
