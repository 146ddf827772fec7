"""The CUDA backend without a GPU: its host code and PTX on a stand-in runtime (docs/devices.md).

Each test runs child.py in a process of its own, where the stand-in takes the real library's place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import megbrain_py

HERE = Path(__file__).resolve().parent
PACKAGE = Path(megbrain_py.__file__).resolve().parent
BACKEND = PACKAGE / "libmb_cuda.so"
INCLUDE = HERE.parent.parent / "engine" / "include"
NVCC = shutil.which("nvcc")

pytestmark = pytest.mark.cuda
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="nvcc was not found")
needs_backend = pytest.mark.skipif(
    NVCC is None or not BACKEND.exists(), reason="this build has no CUDA backend: make test-cuda"
)


def _nvcc(*arguments: str) -> None:
    command = [
        str(NVCC), "-std=c++20", "-shared", "-Xcompiler=-fPIC,-Wall,-Wextra,-Werror", *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in runtime, under the name that nvcc's release gives the real one."""
    said = subprocess.run([str(NVCC), "--version"], capture_output=True, text=True, check=True)
    release = re.search(r"release (\d+)\.", said.stdout)
    assert release, said.stdout
    name = f"libcudart.so.{release[1]}"
    folder = tmp_path_factory.mktemp("stand_in")
    versions = folder / "versions"  # the real library's symbols have this version
    versions.write_text(f"{name} {{ global: cuda*; __cuda*; standin_*; local: *; }};\n")
    linker = f"-Xlinker=-soname={name},--version-script={versions}"
    _nvcc("-cudart", "none", linker, "-o", str(folder / name), str(HERE / "cudart.cpp"))
    return folder / name


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of kernels with planted bugs."""
    library = tmp_path_factory.mktemp("planted") / "planted.so"
    host = "-Xcompiler=-fvisibility=hidden,-fopenmp"
    _nvcc("-arch=sm_75", "-no-compress", "-cudart", "shared", host, f"-I{INCLUDE}",
          "-o", str(library), str(HERE / "planted.cu"))  # fmt: skip
    return library


def _child(stand_in: Path, library: Path, *task: str) -> Any:
    command = [sys.executable, str(HERE / "child.py"), str(stand_in), str(library), *task]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- a plan from end to end ---


@needs_backend
def test_two_operators_agree_with_the_cpu(stand_in: Path) -> None:
    found = _child(stand_in, BACKEND, "plan")
    image = ["mul", "relayout", "channel_moments"]
    assert [run["kernels"] for run in found] == [image, image, image[::2], image[::2]]
    for run in found:
        assert run["device"] == "cuda:0"
        assert run["launches"] == 2 * (len(run["kernels"]) + 1)  # two runs; moments launch twice
        assert run["error"] < 1e-5
        assert run["repeats"]


@needs_backend
def test_cases_of_the_rooms(stand_in: Path) -> None:
    found = _child(stand_in, BACKEND, "cases")
    assert found["failed"] == {}
    lacking = {line.split(" at ")[0].strip() for text in found["lacking"].values()
               for line in text.splitlines()[1:]}  # fmt: skip
    assert lacking <= {
        "cast", "channel_normalise", "channel_normalise_sums", "channel_scale", "channel_affine",
        "channel_affine_sum", "channel_normalise_joined", "channel_relu_normalise_sums",
        "channel_relu_affine_sum", "all_reduce", "square", "sum",
    }  # fmt: skip
    assert len(found["done"]) > 80
    assert {"binary-pow_both", "batch_norm-moments_far_mean"} <= set(found["done"])


@needs_backend
def test_parameters_live_on_the_host_between_runs(stand_in: Path) -> None:
    found = _child(stand_in, BACKEND, "update")
    assert found == {"fetched": [True] * 3, "updated": True, "set": [0.0] * 6}


@needs_backend
def test_scratch_is_shared_and_given_back(stand_in: Path) -> None:
    found = _child(stand_in, BACKEND, "memory")
    small, large = found["peaks"]
    assert found["sizes"]["small"] == [small, 4]  # 4: the constant 1
    assert found["sizes"]["all"] == [small, 4, large, 4, 4]  # the third plan fits into `large`
    assert found["sizes"]["none"] == []
    assert found["right"] == [True] * 4


# --- errors ---


@needs_backend
def test_a_refused_launch_names_its_instruction(stand_in: Path) -> None:
    found = _child(stand_in, BACKEND, "launch_failure")
    pattern = r"EngineError: \w+ at \S*child.py:\d+: cudaLaunchKernel: invalid configuration"
    assert re.match(pattern, found["message"]), found["message"]
    assert found["then"] == [2.0] * 8


@needs_backend
@pytest.mark.parametrize(
    ("mode", "title"),
    [
        ([], r"one of 3 instructions failed \(MB_POISON=1 says which\)"),
        (["poison"], r"(add|mul) at \S*child.py:\d+"),
    ],
)
def test_a_kernel_fault_is_an_engine_error(stand_in: Path, mode: list[str], title: str) -> None:
    found = _child(stand_in, BACKEND, "kernel_fault", *mode)
    assert re.fullmatch(
        f"EngineError: {title}: cudaStreamSynchronize: an illegal memory access was encountered "
        r"\(cudaErrorIllegalAddress\)",
        found["message"],
    )
    assert len(found["faults"]) == 1
    assert re.search(r"kernel \w+binary_kernel\w+, block .* out of bounds", found["faults"][0])


@needs_backend
def test_missing_kernels_are_listed_at_load(stand_in: Path) -> None:
    message = _child(stand_in, BACKEND, "missing_kernels")
    first, *lines = message.splitlines()
    assert first == (
        "EngineError: load: no kernel on cuda:0 for 2 operator(s) of the plan: their files are "
        "missing from the build"
    )
    assert [line.split(" at ")[0] for line in lines] == ["  exp", "  softmax"]
    assert all("child.py:" in line for line in lines)


@needs_backend
def test_no_gpu(stand_in: Path) -> None:
    none, second, then = _child(stand_in, BACKEND, "no_device")
    assert none == (
        "EngineError: device cuda:0: no GPU can be used: no CUDA-capable device is detected "
        "(cudaErrorNoDevice); an NVIDIA GPU and its driver are needed"
    )
    assert second.endswith("device cuda:1: this machine has 1 CUDA device(s), numbered from 0")
    assert then == [2.0] * 4


_COMPILE = (
    "import megbrain_py as mb\n"
    "try: mb.compile(mb.placeholder('x', (4,)) + 1.0, device='cuda:0')\n"
    "except mb.EngineError as error: print(error)\n"
)


def _copy_of_the_package(folder: Path) -> Path:
    """The package by links, without the backend."""
    copy = folder / "megbrain_py"
    copy.mkdir()
    for entry in PACKAGE.iterdir():
        if entry.name not in (BACKEND.name, "__pycache__"):
            (copy / entry.name).symlink_to(entry.resolve())
    return copy


def _compile_in(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE], cwd=folder, capture_output=True, text=True, check=False,
        timeout=120, env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_build_without_the_backend_says_so(tmp_path: Path) -> None:
    _copy_of_the_package(tmp_path)
    assert _compile_in(tmp_path) == (
        "device cuda:0: this build has no CUDA backend; install nvcc and build again with "
        "MB_CMAKE_ARGS=-DMB_CUDA=ON"
    )


@needs_backend
def test_a_missing_runtime_library_is_named(tmp_path: Path) -> None:
    copy = _copy_of_the_package(tmp_path)
    wanted = re.search(rb"libcudart\.so\.\d\d\0", BACKEND.read_bytes())
    assert wanted
    nowhere = wanted[0][:-3] + b"00\0"  # a release that does not exist
    (copy / BACKEND.name).write_bytes(BACKEND.read_bytes().replace(wanted[0], nowhere))
    said = _compile_in(tmp_path)
    assert said.startswith("device cuda:0: libcudart.so.00: cannot open shared object file")
    assert "pip install nvidia-cuda-runtime" in said


@needs_backend
def test_the_real_runtime_library_without_a_gpu() -> None:
    """Not the stand-in: NVIDIA's own library loads, and says why no GPU can be used."""
    said = _compile_in(HERE)
    if "cannot open shared object file" in said:
        pytest.skip("the real CUDA runtime library is not here")
    if not said:
        pytest.skip("this machine has a GPU")
    assert re.match(
        "device cuda:0: no GPU can be used: (CUDA driver version is insufficient|no CUDA-capable)",
        said,
    )


# --- what the interpreter finds ---


@needs_nvcc
@pytest.mark.parametrize(
    ("kernel", "fault"),
    [
        (
            "out_of_bounds",
            "block (1, 0, 0), thread (252, 0, 0), at `st.global.*`: write out of bounds, at byte "
            "2048 of an allocation of 2048 bytes",
        ),
        ("missing_barrier", "thread (0, 0, 0), at `ld.shared.*`: race in shared memory, byte 512"),
        ("same_place", "at `st.global.*`: race in global memory, byte 0"),
        (
            "unwritten_shared",
            "block (0, 0, 0), thread (100, 0, 0), at `ld.shared.*`: read of shared memory that "
            "nobody has written, at byte 400",
        ),
        ("early_return", "block #0: 255 of 256 threads wait at `bar.sync 0`"),
    ],
)
def test_planted_bugs_are_found(stand_in: Path, planted: Path, kernel: str, fault: str) -> None:
    found = _child(stand_in, planted, "planted", kernel)
    assert "illegal memory access" in found["message"]
    assert len(found["faults"]) == 1
    assert kernel in found["faults"][0] or kernel == "missing_barrier"
    pattern = re.escape(fault).replace(r"\*", ".*")
    assert re.search(pattern, found["faults"][0]), found["faults"][0]


@needs_nvcc
def test_a_right_kernel_is_not_accused(stand_in: Path, planted: Path) -> None:
    assert _child(stand_in, planted, "planted", "right") == {"message": "", "faults": []}


@needs_nvcc
def test_a_missing_wait_shows(stand_in: Path, planted: Path) -> None:
    found = _child(stand_in, planted, "planted", "missing_wait")
    assert re.fullmatch("read -?nan before the wait and 0 after it", found["message"])


@needs_nvcc
def test_a_block_of_2048_threads_is_refused(stand_in: Path, planted: Path) -> None:
    found = _child(stand_in, planted, "planted", "large_block")
    assert found["message"].startswith("cudaLaunchKernel: invalid configuration argument")
