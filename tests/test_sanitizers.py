"""The engine gives back all memory; and what the sanitizers watch over is really watched.

The second half runs under `make sanitize` and `make sanitize-thread` only: a planted mistake must
be seen there.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import engine
from megbrain_py import functional as F

ROOT = Path(__file__).resolve().parent.parent
PRELOADED = os.environ.get("LD_PRELOAD", "")
LOADS = 200


class _MallocInfo(ctypes.Structure):
    """glibc's struct mallinfo2; `used` is its uordblks."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "b1", "b2", "b3", "b4", "b5", "b6", "used", "free", "top")
    ]


def allocated_bytes() -> Callable[[], int]:
    """A function that counts the bytes that malloc has given out, AddressSanitizer's or glibc's."""
    library = ctypes.CDLL(None)
    if hasattr(library, "__sanitizer_get_current_allocated_bytes"):
        count = library.__sanitizer_get_current_allocated_bytes
        count.restype = ctypes.c_size_t
        return lambda: int(count())
    if not hasattr(library, "mallinfo2"):
        pytest.skip("this C library does not count what malloc has given out")
    library.mallinfo2.restype = _MallocInfo
    return lambda: int(library.mallinfo2().used)


@pytest.mark.skipif("libtsan" in PRELOADED, reason="each run's threads leave some of TSan's bytes")
def test_loading_running_and_dropping_plans_leaks_nothing() -> None:
    x, w = mb.placeholder("x", (2, 3, 8, 8)), mb.Parameter(np.ones((16, 3, 3, 3), np.float32))
    y = F.softmax(F.mean(F.relu(F.conv2d(x, w, padding=1)), (2, 3)))
    plan = mb.compile({"y": y, "top": F.top_k(y, 4)[1]}).plan
    feeds = {"x": np.ones((2, 3, 8, 8), np.float32)}
    out = {"y": np.empty((2, 16), np.float32), "top": np.empty((2, 4), np.int64)}

    def load(times: int) -> None:
        for _ in range(times):
            engine.Executable(plan).run(feeds, out)
            with pytest.raises(mb.EngineError, match="was not fed"):
                engine.Executable(plan).run({}, out)
        gc.collect()

    count = allocated_bytes()
    load(LOADS)  # caches fill, CPython's own too
    before = count()
    load(LOADS)
    grown = (count() - before) / LOADS
    assert grown < 100, f"each load leaves {grown} bytes; a plan of one instruction takes more"
    one = mb.compile(mb.placeholder("a", (4,)) * 2.0).plan
    before = count()
    kept = [engine.Executable(one) for _ in range(LOADS)]  # the control: it would be seen
    assert (count() - before) / len(kept) > 500


@pytest.mark.skipif("libasan" not in PRELOADED, reason="for `make sanitize`")
def test_a_kernel_that_leaves_its_slot_is_seen() -> None:
    code = (
        "from megbrain_py import _engine\n"
        "from megbrain_py.plan import Instruction, Plan, Slot\n"
        "import megbrain_py as mb, numpy as np\n"
        "slots = tuple(Slot(mb.TensorType((n,), mb.DType.float32), 'scratch', at, 0, 0)\n"
        "              for n, at in ((16, 0), (8, 64), (8, 128)))\n"
        "step = Instruction('copy', (0,), (1,), {}, 'planted.py:1')\n"  # 16 numbers into 8
        "plan = Plan(slots, (step,), {'x': 0}, {}, (), 192, 192)\n"
        "from megbrain_py import engine, ranks\n"
        "loaded = _engine.Executable(plan, [], ranks.current().communicator)\n"
        "loaded.run({'x': np.zeros(16, 'f')}, {}, False, False, None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "AddressSanitizer: use-after-poison" in done.stderr, done.stderr
    assert done.returncode != 0


@pytest.mark.skipif("libtsan" not in PRELOADED, reason="for `make sanitize-thread`")
@pytest.mark.parametrize("racy", [True, False])
def test_a_race_between_pieces_is_seen(tmp_path: Path, racy: bool) -> None:
    source = tmp_path / "planted.cpp"
    source.write_text(
        '#include "mb/parallel.h"\n'
        "int main() {\n"
        "  mb::set_num_threads(2);\n"
        "  long sums[3] = {0, 0, 0};\n"
        "  mb::parallel_for(1000, 1, [&](std::int64_t begin, std::int64_t end) {\n"
        f"    for (auto i = begin; i < end; ++i) sums[{'2' if racy else 'begin > 0'}] += i;\n"
        "  });\n"
        "  mb::parallel_for(2, 1, [&](std::int64_t begin, std::int64_t) { sums[begin] += 1; });\n"
        "  return sums[0] + sums[1] + sums[2] == 0;\n"
        "}\n"
    )
    program = tmp_path / "planted"
    command = [
        os.environ.get("CXX", "c++"), "-std=c++20", "-g", "-O1", "-fopenmp", "-fsanitize=thread",
        "-DMB_PLAIN_THREADS", f"-I{ROOT}/engine/include", str(source),
        str(ROOT / "engine" / "src" / "parallel.cpp"), "-o", str(program),
    ]  # fmt: skip
    plain = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "TSAN_OPTIONS")}
    subprocess.run(command, env=plain, check=True)
    done = subprocess.run([str(program)], env=plain, capture_output=True, text=True, check=False)
    assert ("WARNING: ThreadSanitizer: data race" in done.stderr) is racy, done.stderr
    assert (done.returncode != 0) is racy
