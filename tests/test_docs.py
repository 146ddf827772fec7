"""What the documents say is so: the example, the variables, the messages, the layout."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import debug, distributed, engine
from megbrain_py import functional as F
from megbrain_py.cli.main import _RUNS
from megbrain_py.plan import Instruction, Plan, Slot
from megbrain_py.training import settings
from megbrain_py.training.config import TrainConfig

ROOT = Path(__file__).resolve().parent.parent


def test_readme_shows_the_example() -> None:
    shown = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    assert shown[1] == (ROOT / "examples" / "define_and_compile.py").read_text()


def test_training_page_names_real_settings() -> None:
    settings_file = re.search(r"```toml\n(.*?)```", _text("training.md"), re.DOTALL)
    assert settings_file is not None
    known = set(settings.all_keys(TrainConfig))
    for page in ("training.md", "training_methods.md"):
        keys = set(re.findall(r"`((?:data|optimizer)\.\w+|model\.freeze_at)", _text(page)))
        assert keys and keys <= known
    section = ""
    for line in settings_file[1].splitlines():
        section = f"{line.strip('[]')}." if line.startswith("[") else section
        if " = " in line:
            assert section + line.split(" = ")[0] in known, line


def test_readme_commands_are_accepted() -> None:
    """Every word `key=` of the README's training is a setting; every command exists."""
    shown = re.search(r"```\nmegbrain check-data(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert shown is not None
    assert set(re.findall(r"([a-z_.]+)=", shown[1])) <= set(settings.all_keys(TrainConfig))
    commands = set(re.findall(r"^megbrain ([a-z-]+)", "megbrain check-data" + shown[1], re.M))
    assert commands == set(_RUNS) - {"new-op"}


def _read(folder: str, pattern: str, *kinds: str) -> set[str]:
    files = [f for kind in kinds for f in (ROOT / folder).rglob(kind)]
    return {name for f in files for name in re.findall(pattern, f.read_text())}


def test_environment_table_is_complete() -> None:
    described = set(re.findall(r"^\| `([A-Z_]+)`", _text("environment.md"), re.MULTILINE))
    assert set(debug.VARIABLES) <= described
    built = set(re.findall(r"environ\.get\([\"'](MB_[A-Z_]+)", (ROOT / "setup.py").read_text()))
    assert built <= described
    mine = {name for name in described if name.startswith("MB_")}
    assert mine | {"CXX"} == set(debug.VARIABLES) | built


def test_only_debug_reads_the_environment() -> None:
    readers = [
        path.relative_to(ROOT).as_posix()
        for folder in ("megbrain_py", "ops", "models")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"os\.environ|os\.getenv", path.read_text())
    ]
    assert set(readers) <= {"megbrain_py/debug.py"}
    assert not _read("engine", r"\bgetenv\b", "*.cpp", "*.h")


def _text(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


@dataclass(frozen=True)
class _Missing(mb.Operator, kernel="missing_kernel"):
    def infer(self, x: mb.TensorType) -> mb.TensorType:
        return x


def _channels() -> None:
    x = mb.placeholder("x", (8, 32, 56, 56))
    w = mb.Parameter(np.zeros((128, 64, 3, 3)), name="layer2.0.conv1.weight")
    F.conv2d(x, w)


def _a() -> mb.Var:
    return mb.placeholder("a", (3, 4))


def _run_embedding() -> None:
    indices, table = mb.placeholder("i", (2,), "int64"), mb.placeholder("table", (5, 3))
    mb.compile(F.embedding(indices, table))(i=np.array([1, 7]), table=np.zeros((5, 3)))


def _written_by_hand() -> engine.Executable:
    """Slot 1 is no input, and nothing writes it."""
    slots = tuple(
        Slot(mb.TensorType((8,), mb.DType.float32), "scratch", 64 * n, 0, 1) for n in (0, 1)
    )
    steps = (Instruction("add", (0, 1), (0,), {}, "hand.py:1"),)
    return engine.Executable(Plan(slots, steps, {"a": 0}, {"y": 0}, (), 128, 128))


def _different_ranks() -> None:
    reduction = ("sum", "max")[distributed.current().rank]
    mb.compile(F.all_reduce(_a(), reduction))(a=np.zeros((3, 4)))  # type: ignore[arg-type]


def _compiled() -> mb.Function:
    return mb.compile({"y": _a() + 1.0})


ERRORS: dict[str, Callable[[], object]] = {
    "conv2d: w expects": _channels,
    "add: shapes": lambda: _a() + np.zeros(5, np.float32),
    "relu: expected a Var": lambda: F.relu(3.0),  # type: ignore[arg-type]
    "Var: has no truth": lambda: bool(_a() > 0),
    "gradients: target": lambda: mb.gradients(_a(), []),
    "compile: input b": lambda: mb.compile(_a() + mb.placeholder("b", (3, 4)), inputs=[]),
    "building: two inputs": lambda: mb.compile(_a() + _a()),
    "call: input a is missing": lambda: _compiled()(),  # noqa: PLW0108
    "call: no input": lambda: _compiled()(a=np.zeros((3, 4)), b=1),
    "call: input a expects shape": lambda: _compiled()(a=np.zeros((3, 5))),
    "call: input a expects float32": lambda: _compiled()(a=np.zeros((3, 4), complex)),
    "gather at": _run_embedding,
    "the ranks run different": lambda: distributed.run(_different_ranks, 2),
    "load: no kernel on": lambda: mb.compile(_Missing()(_a())),
    "load: add at": _written_by_hand,
}


def _without_places(message: str) -> str:
    return re.sub(r"[\w./<>-]+:\d+", "FILE:LINE", message)


def _examples() -> list[str]:
    return [_without_places(e) for e in re.findall(r"```\n(.*?)\n```", _text("errors.md"), re.S)]


@pytest.mark.parametrize("start", ERRORS)
def test_errors_look_as_described(start: str) -> None:
    with pytest.raises(mb.MegBrainError) as caught:
        ERRORS[start]()
    expected = [e for e in _examples() if e.startswith(_without_places(start))]
    message = _without_places(str(caught.value))
    if start == "compile: input b":  # both inputs are missing there; the first is named
        message = message.replace("input a", "input b")
    assert message in expected


def test_every_described_error_is_tried() -> None:
    assert len(_examples()) == len(ERRORS)


def test_layout_names_every_module_and_folder() -> None:
    text = _text("layout.md")
    modules = {f.name for f in (ROOT / "megbrain_py").glob("*.py")} - {"__init__.py"}
    folders = {f.parent.name for f in (ROOT / "megbrain_py").glob("*/__init__.py")}
    missing = [name for name in sorted(modules | folders) if name not in text]
    assert not missing


def test_quoted_code_is_the_code() -> None:
    example = ROOT / "examples" / "own_operator"
    folders = (ROOT / "ops" / "softmax", example, example / "soft_clip")
    files = [f for folder in folders for f in folder.iterdir()]
    source = "\n".join(f.read_text() for f in files if f.suffix in (".py", ".cpp"))
    quotes = re.findall(r"```(?:python|cpp)\n(.*?)```", _text("add_an_operator.md"), re.DOTALL)
    assert quotes and all(quote in source for quote in quotes)


def test_links_of_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([\w./]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_a_function_prints_itself() -> None:
    assert repr(_compiled()).startswith("Function(a: float32[3,4]) -> y: float32[3,4]; ")
