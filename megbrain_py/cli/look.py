"""`megbrain info` and `megbrain check-data`: look at this machine, at weights, at a data set."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from megbrain_py.dtypes import Array
    from megbrain_py.training.checkpoint import Checkpoint


def info(file: str | None) -> int:
    """Print versions and the instruction set in use, or what a file of weights holds."""
    if file is None:
        _print_table(_machine())
    elif _is_ours(Path(file)):
        path, found = _checkpoint(Path(file))
        _print_table(_facts(path, found))
        _print_arrays({name: (a, a.dtype.name, a.nbytes) for name, a in found.model.items()})
    else:
        from megbrain_py.weights import read_weights

        opened = read_weights(file)
        rows = [
            ("file", f"{file} ({Path(file).stat().st_size:,} bytes)"),
            ("format", opened.format),
        ]
        _print_table([*rows, *opened.others.items()])
        _print_arrays({n: (t.array, t.dtype, t.nbytes) for n, t in opened.tensors.items()})
    return 0


def _print_table(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def _print_arrays(arrays: Mapping[str, tuple[Array, str, int]]) -> None:
    """A line for each array: name, element type, shape, bytes; then the sums."""
    rows = [
        (name, dtype, "x".join(map(str, array.shape)) or "scalar", f"{nbytes:,}")
        for name, (array, dtype, nbytes) in arrays.items()
    ]
    name, dtype, shape, size = (max((len(row[k]) for row in rows), default=0) for k in range(4))
    for row in rows:
        print(f"{row[0]:<{name}}  {row[1]:<{dtype}}  {row[2]:>{shape}}  {row[3]:>{size}}")
    numbers = sum(array.size for array, _, _ in arrays.values())
    total = sum(nbytes for _, _, nbytes in arrays.values())
    print(f"{len(rows)} arrays, {numbers:,} numbers, {total:,} bytes")


def _machine() -> list[tuple[str, str]]:
    from importlib.metadata import PackageNotFoundError, version

    import megbrain_py
    from megbrain_py import engine

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    libraries = ("numpy", "safetensors", "Pillow", "pycocotools", "matplotlib", "rich")
    return [
        ("megbrain_py", f"{megbrain_py.__version__} in {Path(megbrain_py.__file__).parent}"),
        ("Python", f"{platform.python_version()} ({sys.executable})"),
        ("system", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("oneDNN", engine.onednn_version()),
        ("instruction set", _ISA.get(engine.instruction_set(), engine.instruction_set())),
        ("threads", str(engine.num_threads())),
        ("kernels", str(len(engine.kernel_names()))),
        *((name, installed(name)) for name in libraries),
    ]


_ISA = {
    "v4": "v4 (AVX-512)",
    "v3": "v3 (AVX2)",
    "base": "base (what every processor of this kind has)",
}


def _is_ours(path: Path) -> bool:
    """A run's folder or configuration, or a checkpoint? What does not exist is taken for one."""
    from safetensors import SafetensorError, safe_open

    from megbrain_py.training.checkpoint import FORMAT

    if not path.is_file() or path.suffix == ".toml":
        return True
    try:
        with safe_open(str(path), framework="numpy") as opened:
            return (opened.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def _checkpoint(path: Path) -> tuple[Path, Checkpoint]:
    from megbrain_py.training.runs import find_checkpoint

    return find_checkpoint(path)


def _facts(path: Path, found: Checkpoint) -> list[tuple[str, str]]:
    arrays = [*found.model.values(), *found.optimizer.values()]
    weights = sum(array.size for array in found.model.values())
    rows = [
        ("file", f"{path} ({path.stat().st_size:,} bytes, checksum right)"),
        ("step", str(found.step)),
        ("seed", str(found.seed)),
        ("model", f"{len(found.model)} arrays, {weights:,} numbers"),
        ("optimiser", f"{len(found.optimizer)} arrays"),
        ("bytes", f"{sum(array.nbytes for array in arrays):,}"),
    ]
    rows += [(name, _short(value)) for name, value in found.extra.items()]
    rows += [(name, _short(value)) for name, value in found.config.items()]
    return rows


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text if len(text) <= 160 else text[:157] + "..."


def check_data(annotations: str, images: str | None, examples: int) -> int:
    """Print what is wrong with a data set; exit code 1 when there are errors."""
    from megbrain_py.data import check_data as check
    from megbrain_py.data import format_report
    from megbrain_py.training.runs import image_folder

    report = check(annotations, image_folder(annotations, images or ""))
    print(format_report(report, examples))
    return 0 if report.ok else 1
