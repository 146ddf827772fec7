"""`megbrain bench`: workers answer, verdicts, operators beside the roof; torch is not needed."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from megbrain_py import op_testing
from megbrain_py.bench import compare, inputs, loader, ops, pairs, sides, worker
from megbrain_py.cli.main import _parser, main
from megbrain_py.data import read_coco
from megbrain_py.dtypes import Array
from megbrain_py.errors import MegBrainError
from megbrain_py.op_testing import Benchmark, normal

SMALL = {
    "resnet50": {"batch": 2, "size": 64},
    "resnet1001": {"batch": 2, "size": 32, "depth": 11},
    "detector": {"batch": 1, "size": 64, "boxes": 3, "preset": "laptop"},
    "detect": {"size": 64, "preset": "laptop"},
    "roi_align": {"rois": 5, "channels": 3, "side": 16},
    "prroi": {"rois": 5, "channels": 3, "side": 16},
    "nms": {"boxes": 300},
}


@pytest.mark.parametrize("workload", SMALL)
def test_a_worker_builds_and_works(workload: str) -> None:
    with sides.Side(sides.OURS, workload, SMALL[workload]) as side:
        assert side.facts["compile_seconds"] > 0
        turn = side.work(2)
        assert turn.seconds > 0 and turn.memory_bytes > 0
        side.work(1)
        assert side.work(2).page_faults < 100, "memory of a step is there before the step"


def test_nms_keeps_what_the_reference_keeps() -> None:
    boxes, scores = inputs.nms(300)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept: list[int] = []
    for i in np.argsort(-scores):
        low = np.maximum(boxes[kept, :2], boxes[i, :2])
        high = np.minimum(boxes[kept, 2:], boxes[i, 2:])
        both = np.clip(high - low, 0, None).prod(1)
        if not (both / (areas[kept] + areas[i] - both) > inputs.NMS_IOU).any():
            kept.append(int(i))
    with sides.Side(sides.OURS, "nms", {"boxes": 300}) as side:
        assert side.facts["kept"] == len(kept)


def test_worker_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer's side of it, with a workload that needs no torch."""
    calls: list[str] = []

    class Module:
        @staticmethod
        def build(built, size):  # type: ignore[no-untyped-def]
            built()
            return (lambda: calls.append("step")), {"size": size}

        WORKLOADS = {"small": build}  # noqa: RUF012

    monkeypatch.setitem(sys.modules, "fake_peer", Module)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdin", io.StringIO("3\n1\n"))
    answers = io.StringIO()
    worker.serve("fake_peer", "small", {"size": 7}, answers)
    first, second, third = map(json.loads, answers.getvalue().splitlines())
    assert first == {"facts": {"size": 7}} and calls == ["step"] * 4
    assert set(second) == set(third) == {"seconds", "page_faults", "memory_bytes", "resident_bytes"}


def test_a_worker_that_fails_is_named() -> None:
    with pytest.raises(MegBrainError, match=r"bench: nms .* ended with code 1"):
        sides.Side(sides.OURS, "nms", {"boxes": "many"})


def test_peer_files_stand_alone() -> None:
    """What runs in the peer's process imports nothing of the package."""
    for name in ("worker.py", "torch_peer.py", "torch_preactivation.py", "inputs.py"):
        text = (Path(sides.HERE) / name).read_text()
        assert "import megbrain_py" not in text and "from megbrain_py" not in text, name


def test_both_sides_have_the_same_workloads() -> None:
    from megbrain_py.bench import ours

    text = (Path(sides.HERE) / "torch_peer.py").read_text()
    assert all(f'    "{name}": ' in text for name in ours.WORKLOADS)
    assert set(SMALL) == set(ours.WORKLOADS)


def test_verdict() -> None:
    theirs = np.linspace(1.0, 2.0, 15)
    found = pairs.verdict(0.5 * theirs, theirs)
    assert (found.ratio, found.low, found.high) == (0.5, 0.5, 0.5)
    noisy = pairs.verdict(theirs * np.linspace(0.4, 0.6, 15), theirs)
    assert noisy.ratio == pytest.approx(0.5)
    assert 0.4 < noisy.low < noisy.ratio < noisy.high < 0.6
    assert "ratio 0.500 [0.500, 0.500] of 15 pairs" in str(found)


def test_compare_takes_turns() -> None:
    order: list[str] = []

    def side(name: str, seconds: float) -> pairs.Timed:
        def timed() -> float:
            order.append(name)
            return seconds

        return timed

    found = pairs.compare(side("a", 1.0), side("b", 2.0), 6)
    assert found.ratio == 0.5 and found.pairs == 6
    rounds = [set(order[i : i + 2]) for i in range(0, len(order), 2)]
    assert rounds == [{"a", "b"}] * 7


def test_speed_without_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare.importlib.util, "find_spec", lambda name: None)
    assert main(["bench", "nms", "--boxes", "200", "--pairs", "2", "--threads", "1"]) == 0
    assert main(["bench", "nms", "--boxes", "200", "--memory"]) == 0
    text = capsys.readouterr().out
    assert "torch is not installed" in text and "page faults inside our step" in text
    assert "ours: " in text and " MiB" in text


def test_tuned_peer_has_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, object] = {}
    monkeypatch.setattr(compare, "Side", lambda *a, **k: started.update(k, options=a[2]))
    request = compare.Request("detect", {"size": 64}, tuned=True, peer_python="python-of-torch")
    request.peer()
    assert started["python"] == "python-of-torch"
    assert started["options"] == {"size": 64, "channels_last": True}
    assert started["environment"] == sides.TUNED


def test_loader_share_of_a_small_detector(tmp_path: Path) -> None:
    dataset = read_coco(loader.write_pictures(tmp_path, 3, 64, 4), tmp_path)
    assert len(dataset.images) == 3 and len(dataset.categories) == inputs.CLASSES
    found = loader.loader_share(1, 64, 4, steps=1, count=2, preset="laptop")
    assert found.ours > 0 and found.theirs > 0 and found.pairs == 2


class _Zeros:
    """A generator whose numbers cost nothing."""

    def standard_normal(self, shape: tuple[int, ...]) -> Array:
        return np.broadcast_to(np.float32(0), shape)

    def random(self, shape: tuple[int, ...], dtype: type = np.float64) -> Array:
        return np.broadcast_to(np.dtype(dtype).type(0), shape)

    def normal(self, mean: float, deviation: float, shape: tuple[int, ...]) -> Array:
        return np.broadcast_to(np.float64(mean), shape)

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> Array:
        return np.broadcast_to(np.float64(low), shape)

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Array:
        return np.broadcast_to(np.int64(low), shape)


def test_benchmarks_of_rooms_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph of every benchmark can be made."""
    # Imported with true numbers: the rooms make their cases' inputs then, for other tests too.
    found = {room: op_testing.benchmarks_of(room) for room in op_testing.rooms()}
    monkeypatch.setattr(np.random, "default_rng", lambda seed: _Zeros())
    names = []
    for room, benchmarks in found.items():
        for benchmark in benchmarks:
            graph = op_testing.benchmark_graph(benchmark, benchmark.inputs())
            own = f"megbrain_py.ops.{room}."
            assert any(type(node.op).__module__.startswith(own) for node in graph.nodes)
            names.append((room, benchmark.name))
    assert len(set(names)) == len(names) > 30


def test_bench_ops_times_the_kernels_of_the_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MB_CACHE", str(tmp_path))
    from megbrain_py import functional as F

    small = Benchmark(
        "small",
        F.conv2d,
        lambda: {"x": normal(1, 3, 8, 8), "w": normal(4, 3, 3, 3)},
        ("x", "w"),
    )
    rows = {row.kernel: row for row in ops.time_kernels("conv", small, runs=3)}
    assert set(rows) == {"conv2d", "conv2d_backward_data", "conv2d_backward_weights"}
    assert all(row.seconds > 0 and row.flops == 2 * 4 * 6 * 6 * 27 for row in rows.values())
    monkeypatch.setattr(op_testing, "benchmarks_of", lambda room: [small])
    assert main(["bench", "ops", "conv"]) == 0
    text = capsys.readouterr().out
    assert "roof: " in text and "conv: small, conv2d_backward_weights" in text
    assert main(["bench", "ops", "convv"]) == 2


def test_commands_of_the_page_are_accepted() -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "profiling.md"
    lines = re.findall(r"^(?:\$ )?megbrain (bench .*?)(?:  +#.*)?$", page.read_text(), re.MULTILINE)
    assert len(lines) >= 7
    for line in lines:
        assert _parser().parse_args(line.split()).command == "bench"
