"""Builds the engine with CMake and maps the three source trees into one package."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from setuptools import Extension, find_namespace_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
ONEDNN_WHEELS = ("onednn-devel-cpu-gomp", "onednn-cpu-gomp")


def wheel_files(distribution_name: str) -> list[Path]:
    """Absolute paths of an installed wheel's files; empty when it is not installed.

    In an isolated build the headers are not under `sys.prefix`: only the distribution knows.
    """
    try:
        files = distribution(distribution_name).files or []
    except PackageNotFoundError:
        return []
    return [Path(os.path.realpath(str(f.locate()))) for f in files]


def onednn_options() -> list[str]:
    """CMake options that point to the pinned oneDNN wheel, or none to search the system."""
    if os.environ.get("MB_SYSTEM_ONEDNN") == "1":
        return ["-DMB_SYSTEM_ONEDNN=ON"]
    files = [f for name in ONEDNN_WHEELS for f in wheel_files(name)]
    headers = [f for f in files if f.name == "dnnl.hpp" and f.parent.name == "include"]
    libraries = [f for f in files if f.name.startswith("libdnnl.so.") and f.is_file()]
    if not headers or not libraries:
        return ["-DMB_SYSTEM_ONEDNN=ON"]
    library = min(libraries, key=lambda path: len(path.name))  # libdnnl.so.3
    return [f"-DMB_ONEDNN_INCLUDE={headers[0].parent}", f"-DMB_ONEDNN_LIBRARY={library}"]


class CMakeBuild(build_ext):
    """Configures and builds the modules `_engine` and `_planner`, in one run of CMake."""

    def copy_extensions_to_source(self) -> None:
        """For editable installs; libraries of the build must lie beside the module there too."""
        super().copy_extensions_to_source()
        for ext in self.extensions:
            built = Path(self.build_lib) / self.get_ext_filename(self.get_ext_fullname(ext.name))
            home = ROOT / ext.name.split(".")[0]
            (home / "libmb_cuda.so").unlink(missing_ok=True)  # of an earlier build
            for library in [*built.parent.glob("libdnnl.so*"), *built.parent.glob("libmb_*.so")]:
                shutil.copy2(library, home / library.name)

    def build_extensions(self) -> None:
        import pybind11  # a build requirement; not needed to read metadata

        # Editable installs build into the source tree, wheels into build_lib: same relative place.
        target = Path(self.get_ext_fullpath(self.extensions[0].name)).resolve().parent
        build = Path(self.build_temp).resolve() / "cmake"
        build.mkdir(parents=True, exist_ok=True)
        ninja = shutil.which("ninja")
        configure = [
            self.cmake(),
            "-S",
            str(ROOT),
            "-B",
            str(build),
            # By its path: in a build folder that is used again, the last one is gone with pip's
            # environment.
            *(["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []),
            f"-DCMAKE_BUILD_TYPE={os.environ.get('MB_BUILD_TYPE', 'Release')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DMB_OUTPUT_DIR={target}",
            *onednn_options(),
            *shlex.split(os.environ.get("MB_CMAKE_ARGS", "")),
        ]
        subprocess.run(configure, check=True)
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or len(os.sched_getaffinity(0))
        subprocess.run([self.cmake(), "--build", str(build), "--parallel", str(jobs)], check=True)

    @staticmethod
    def cmake() -> str:
        # Without build isolation it may stand beside a Python whose folder is not on the PATH.
        found = shutil.which("cmake") or shutil.which("cmake", path=Path(sys.executable).parent)
        if found is None:
            raise RuntimeError("cmake >= 3.20 is needed to build; `pip install cmake` brings it")
        return found


def packages() -> list[str]:
    """megbrain_py with `ops`, `models` and the headers as sub-packages; no link is followed."""
    core = find_namespace_packages(
        str(ROOT),
        include=["megbrain_py", "megbrain_py.*"],
        exclude=[
            "megbrain_py.ops",
            "megbrain_py.ops.*",
            "megbrain_py.models",
            "megbrain_py.models.*",
            "megbrain_py.include",
            "megbrain_py.include.*",
        ],
    )
    rooms = [f"megbrain_py.{top}" for top in ("ops", "models")]
    for top in ("ops", "models"):
        rooms += [f"megbrain_py.{top}.{name}" for name in find_namespace_packages(str(ROOT / top))]
    return [*core, *rooms, "megbrain_py.include.mb"]


setup(
    packages=packages(),
    package_dir={
        "megbrain_py": "megbrain_py",
        "megbrain_py.ops": "ops",
        "megbrain_py.models": "models",
        "megbrain_py.include.mb": "engine/include/mb",
    },
    # Headers, those of the rooms too: operators outside of the tree are compiled against them.
    package_data={"megbrain_py": ["py.typed", "*.pyi"], "": ["*.h"]},
    ext_modules=[Extension(f"megbrain_py.{name}", sources=[]) for name in ("_engine", "_planner")],
    cmdclass={"build_ext": CMakeBuild},
    zip_safe=False,
)
