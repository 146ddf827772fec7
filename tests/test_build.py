"""The compiled module: levels of the instruction set, no code at load, one bundled library."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from megbrain_py import _engine, engine  # noqa: TID251

_LEVELS = ("base", "v3", "v4")
_PROGRAM = """
import json
import numpy as np
import megbrain_py as mb
from megbrain_py import engine, functional as F
rng = np.random.default_rng(0)
x = mb.placeholder("x", (5, 19))
w = mb.Parameter(rng.standard_normal((7, 19)))
y = F.softmax(F.exp(F.linear(x, w) * 0.1) + 1.0)
loss = F.sum(y * y)
(dw,) = mb.gradients(loss, [w])
found = mb.compile({"y": y, "dw": dw})(x=rng.standard_normal((5, 19)))
values = [*found["y"].ravel().tolist(), *found["dw"].ravel().tolist()]
print(json.dumps({"isa": engine.instruction_set(), "values": values}))
"""


def _run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "MB_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def _values(isa: str) -> np.ndarray:
    done = _run(_PROGRAM, MB_ISA=isa)
    if done.returncode != 0 and "is not available" in done.stderr:
        pytest.skip(f"this CPU has no {isa}")
    if done.returncode != 0 and "was not built for" in done.stderr:
        pytest.skip(f"{isa} is not in this build")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["isa"] == isa
    return np.array(found["values"])


@pytest.mark.parametrize("isa", _LEVELS)
def test_levels_agree(isa: str) -> None:
    best = _values(engine.instruction_set())
    np.testing.assert_allclose(_values(isa), best, rtol=1e-5, atol=1e-6)


def test_unknown_level_is_refused() -> None:
    done = _run("import megbrain_py", MB_ISA="v9")
    assert "MB_ISA=v9: unknown instruction set v9; known: base, v3, v4" in done.stderr


def test_the_engine_names_no_operator() -> None:
    """Kernels are found by the names in plans; "copy" moves what lowering adds."""
    names = set(engine.kernel_names())
    root = Path(__file__).parent.parent / "engine"
    for file in [
        *(root / "src").glob("*"),
        *(root / "include").rglob("*.h"),
        root / "bindings.cpp",
    ]:
        named = names & set(re.findall(r'"(\w+)"', file.read_text()))
        if file.name == "kernel.h":
            named -= {"gelu", "conv2d"}  # how a kernel file is written, in a comment
        if file.name == "communicator.h":
            named -= {"sum", "max", "min"}  # what a reduction does
        assert not named, f"{file.name} names {named}"


def test_import_is_fast() -> None:
    """Median of five, without the interpreter's and numpy's own start; processor time, which a
    machine that does other work too does not change much."""
    program = (
        "import time, numpy; start = time.process_time(); import megbrain_py;"
        "print(time.process_time() - start)"
    )
    times = sorted(float(_run(program).stdout) for _ in range(5))
    assert times[2] < 0.5


def test_import_loads_no_heavy_package() -> None:
    heavy = "{'matplotlib', 'networkx', 'PIL', 'pycocotools', 'rich', 'safetensors', 'sklearn'}"
    done = _run(f"import sys, megbrain_py; print(sorted({heavy} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr


def test_onednn_is_new_enough() -> None:
    assert tuple(map(int, engine.onednn_version().split(".")[:2])) >= (3, 2)


def test_bundled_library_lies_there_once() -> None:
    beside = sorted(p.name for p in Path(_engine.__file__).parent.glob("libdnnl*"))
    assert beside in ([], ["libdnnl.so.3"])  # none with MB_SYSTEM_ONEDNN=1


def _readelf(option: str) -> str:
    try:
        return subprocess.run(
            ["readelf", option, _engine.__file__], capture_output=True, text=True, check=True
        ).stdout
    except FileNotFoundError:
        pytest.skip("no readelf here")


def test_library_is_found_beside_the_module() -> None:
    paths = re.findall(r"(?:RUNPATH|RPATH).*\[(.*)\]", _readelf("-dW"))
    assert len(paths) == 1 and paths[0].split(":")[0] == "$ORIGIN"


def test_kernel_table_is_data() -> None:
    """A kernel file has no code that runs at load, where the level is not yet chosen: the module

    has at most as many initialisers as engine and bindings have files, however many kernels.
    """
    sections = dict(re.findall(r"\] (\S+)\s+\S+\s+\S+ \S+ (\S+)", _readelf("-SW")))
    entries = int(sections["mb_kernels"], 16) // 8
    assert entries >= len(engine.kernel_names())
    root = Path(__file__).resolve().parent.parent / "engine"
    sources = len(list(root.glob("*.cpp")) + list(root.glob("src/*.cpp")))
    assert int(sections[".init_array"], 16) // 8 <= sources + 1  # 1: the compiler's own
