"""`megbrain info` and `megbrain check-data`: look at this machine, a checkpoint, a data set."""

from __future__ import annotations

import platform
import sys
from pathlib import Path


def info(file: str | None) -> int:
    """Print versions and the instruction set in use, or what a checkpoint holds."""
    rows = _checkpoint(Path(file)) if file is not None else _machine()
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    return 0


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


def _checkpoint(path: Path) -> list[tuple[str, str]]:
    from megbrain_py.training.runs import find_checkpoint

    path, found = find_checkpoint(path)
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
