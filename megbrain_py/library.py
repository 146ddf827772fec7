"""Operators from outside of the tree: finds a room's folder, opens its kernels, imports it."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from megbrain_py import engine
from megbrain_py.errors import EngineError
from megbrain_py.origins import add_framework_folder

_SOURCE_KINDS = ("*.cpp", "*.h", "*.hpp")


@dataclass(frozen=True)
class Room:
    """A folder with an operator: NAME.py or __init__.py, perhaps NAME_cpu.cpp and cases.py."""

    folder: Path  # as the user wrote it, for messages

    @property
    def name(self) -> str:
        """The folder's name: its module in Python and its library."""
        return self.folder.resolve().name

    @property
    def module_file(self) -> Path:
        """What is imported."""
        whole = self.folder / "__init__.py"
        return whole if whole.exists() else self.folder / f"{self.name}.py"

    @property
    def kernel_files(self) -> list[Path]:
        """The C++ files that are compiled."""
        return sorted(self.folder.glob("*_cpu.cpp"))

    @property
    def library(self) -> Path:
        """The shared object that `megbrain build-op` makes."""
        return self.folder / "build" / f"{self.name}.so"

    @property
    def key_file(self) -> Path:
        """What the library was made of."""
        return self.library.with_suffix(".key")

    def source_digest(self) -> str:
        """Of all C++ files in the folder."""
        import hashlib  # 10 ms, which programs without rooms of their own are spared

        files = {f for kind in _SOURCE_KINDS for f in self.folder.rglob(kind)}
        digest = hashlib.sha256()
        for file in sorted(files):
            digest.update(f"{file.relative_to(self.folder)}\n".encode())
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def key(self) -> dict[str, str]:
        """Contents of the key file; empty when there is none."""
        if not self.key_file.exists():
            return {}
        found: dict[str, str] = json.loads(self.key_file.read_text())
        return found


def find_room(folder: str | Path) -> Room:
    """The room in this folder; EngineError when it is none."""
    room = Room(Path(folder))
    if not room.folder.is_dir():
        raise EngineError(f"there is no folder {folder}")
    if not room.name.isidentifier():
        raise EngineError(f"{folder} is no room: its name must be a name in Python")
    if not room.module_file.exists():
        raise EngineError(f"{folder} is no room: it has neither __init__.py nor {room.name}.py")
    return room


def include_dir() -> Path:
    """The folder of the headers `mb/*.h`, against which kernels are compiled."""
    return Path(__file__).parent / "include"


def headers_digest() -> str:
    """Of the headers in `include_dir`; CMakeLists.txt makes the same of those it compiles."""
    import hashlib

    headers = sorted((include_dir() / "mb").glob("*.h"))
    digests = "".join(hashlib.sha256(h.read_bytes()).hexdigest() for h in headers)
    return hashlib.sha256(digests.encode()).hexdigest()[:16]


def load_library(path: str | Path) -> Any:
    """Make the operators of a room outside of the tree usable (docs/add_an_operator.md).

    path: a room's folder; one with C++ has been built by `megbrain build-op FOLDER`. Gives its
    module, which can also be imported by the folder's name from now on. Or a shared object
    with kernels alone; gives None. Loading again does nothing.

    Raises EngineError when it is missing, not built, built from other sources or for another
    engine, or when a kernel or module of this name exists already.
    """
    path = Path(path)
    try:
        if path.suffix == ".so":
            if not path.exists():
                raise EngineError(f"there is no file {path}")
            engine.open_library(path)
            return None
        room = find_room(path)
        _open_kernels(room)
        return _imported(room)
    except EngineError as error:
        raise EngineError(f"load_library: {error}") from None


def _open_kernels(room: Room) -> None:
    build = f"run: megbrain build-op {room.folder}"
    if not room.library.exists():
        if room.kernel_files:
            raise EngineError(f"{room.folder} has C++ that is not built; {build}")
        return
    known = room.key().get("sources")
    if room.kernel_files and known is not None and known != room.source_digest():
        raise EngineError(f"the C++ of {room.folder} has changed since it was built; {build}")
    try:
        engine.open_library(room.library)
    except engine.WrongStamp as error:
        raise EngineError(f"{error}\n  {build}") from None


def _imported(room: Room) -> ModuleType:
    """The room as a package of the folder's name; in a room without __init__.py it is NAME.py."""
    file = room.module_file.resolve()
    known = sys.modules.get(room.name)
    spec = importlib.util.find_spec(room.name) if known is None else known.__spec__
    origin = None if spec is None else spec.origin  # None: a folder on the path, no module
    if origin is not None and Path(origin).resolve() != file:
        raise EngineError(
            f"a module {room.name} exists already, {origin}; give {room.folder} another name"
        )
    add_framework_folder(file.parent)
    if known is not None and origin is not None:
        return known
    spec = importlib.util.spec_from_file_location(
        room.name, file, submodule_search_locations=[str(file.parent)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[room.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[room.name]
        raise
    return module
