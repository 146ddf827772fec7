"""`megbrain scale`: the alpha-beta model by hand; plans of ranks that are not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import distributed, engine, nn
from megbrain_py import functional as F
from megbrain_py.bench.steps import TrainingStep
from megbrain_py.cli.main import main
from megbrain_py.node import Operator
from megbrain_py.ops.collective.collective import AllReduce, AllReduceLater
from megbrain_py.plan import WAIT, Instruction, Plan, Slot
from megbrain_py.scaling.network import NETWORKS, Cluster, Link, Seconds
from megbrain_py.scaling.predict import COCO_IMAGES, compute_seconds, plan_of, predict
from megbrain_py.scaling.timeline import step_time

SLOW = Link(latency=1.0, bandwidth=10.0)  # seconds; bytes a second
NONE = Link(latency=0.0, bandwidth=float("inf"))


@pytest.mark.parametrize(
    ("kind", "nbytes", "ranks", "seconds"),
    [
        ("all_reduce", 100, 1, 0.0),
        ("all_reduce", 100, 2, 1 + 10),  # one round, all of it
        ("all_reduce", 400, 4, 2 * (2 + 30)),  # three quarters there and back, two rounds each
        ("all_reduce", 4, 4, 2 * (1 + 0.4)),  # small: everything in both rounds
        ("all_reduce", 500, 5, 2 * (3 + 40)),
        ("all_gather", 100, 4, 2 + 30),
        ("reduce_scatter", 400, 4, 2 + 30),
        ("broadcast", 10, 8, 3 * (1 + 1)),
        ("broadcast", 800, 8, 3 + 7 + 2 * 70),
    ],
)
def test_a_link_by_hand(kind: str, nbytes: int, ranks: int, seconds: float) -> None:
    assert SLOW.seconds(kind, nbytes, ranks) == pytest.approx(seconds)  # type: ignore[arg-type]


def test_hosts_by_hand() -> None:
    """Two hosts of two: within each, then between them."""
    cluster = Cluster(network=SLOW, host=Link(0.5, 100.0), devices_per_host=2, slowdown=2.0)
    assert cluster.seconds("all_reduce", 100, 2) == Seconds(busy=0.5 + 1, free=0.0)
    assert cluster.seconds("all_reduce", 100, 4) == Seconds(busy=0.5 + 1, free=1 + 10)
    # Each host gets the other's 200 bytes once, and hands them on.
    gathered = cluster.seconds("all_gather", 100, 4)
    assert gathered.free == pytest.approx(1 + 20)
    assert gathered.busy == pytest.approx(0.5 + 1 + 0.5 + 2)
    assert [cluster.slowed(n) for n in (1, 2, 4)] == [1.0, 2.0, 2.0]


def plan(*steps: tuple[str, Operator | None, int | None]) -> Plan:
    """Instructions on one value of 100 bytes: kernel, operator, what is waited for."""
    value = Slot(mb.TensorType((25,), mb.DType.float32), "scratch", 0, 0, 9)
    made = [
        Instruction(kernel, (0,), (0,), {}, "hand.py:1", op=op, waits_for=waits_for)
        for kernel, op, waits_for in steps
    ]
    return Plan((value,), tuple(made), {}, {}, (), 128, 128)


START, BLOCK = (
    ("all_reduce_later", AllReduceLater((0, 0)), None),
    ("all_reduce", AllReduce((0, 0)), None),
)
WORK = ("exp", None, None)


def test_what_hides_behind_work() -> None:
    """An all-reduce of 11 s: behind 4 s of work, behind 20 s, behind none; one that blocks."""
    cluster = Cluster(SLOW, NONE)
    for work, exposed in ((4.0, 7.0), (20.0, 0.0), (0.0, 11.0)):
        steps = plan(WORK, START, WORK, (WAIT, None, 1), WORK)
        found = step_time(steps, [3.0, 0, work, 0, 2.0], cluster)
        assert found.exposed == pytest.approx(exposed)
        assert found.hidden == pytest.approx(11 - exposed)
        assert found.seconds == pytest.approx(3 + work + exposed + 2)
    found = step_time(plan(WORK, BLOCK), [3.0, 0], cluster)
    assert (found.seconds, found.blocking, found.hidden) == (14.0, 11.0, 0.0)


def test_overlapping_ones_share_the_network() -> None:
    """The second starts at 3 and runs from 11 to 22."""
    steps = plan(START, WORK, START, (WAIT, None, 2), (WAIT, None, 0))
    found = step_time(steps, [0, 3.0, 0, 0, 0], Cluster(SLOW, NONE))
    assert found.seconds == pytest.approx(22)


def test_processors_that_add_themselves_hide_nothing() -> None:
    cluster = Cluster(NONE, SLOW, devices_per_host=2)
    found = step_time(plan(START, WORK, (WAIT, None, 0)), [0, 50.0, 0], cluster)
    assert (found.seconds, found.exposed, found.hidden) == (61.0, 11.0, 0.0)


def small_step() -> TrainingStep:
    """A few layers with sync batch norm, four images."""
    net = nn.Sequential(
        nn.Conv2d(30, 64, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )
    if distributed.current().size > 1:
        nn.sync_batch_norms(net)
    x = mb.placeholder("x", (4, 30, 1, 1))
    with nn.train_mode() as updates:
        loss = F.sum(F.square(net(x)))
    weights = net.parameters()
    summed = distributed.data_parallel(mb.gradients(loss, weights))
    new = {w: w - 0.1 * g for w, g in zip(weights, summed, strict=True)}
    feeds = {"x": np.zeros((4, 30, 1, 1), np.float32)}
    return TrainingStep({"loss": loss}, {**updates, **new}, feeds)


@pytest.fixture(autouse=True)
def roofline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same costs on every machine."""
    monkeypatch.setenv("MB_COSTS", "roofline")


def test_prediction_by_hand() -> None:
    """A network that costs nothing: the step of one device. Then one by hand from the plan."""
    free, slow = Cluster(NONE, NONE), Cluster(Link(1e-3, 1e6), NONE)
    one, many = predict(small_step, 4, [1, 8], free)
    assert (one.efficiency, many.batch) == (1.0, 32)
    assert many.step.compute == many.step.seconds
    assert one.epoch_hours == pytest.approx(COCO_IMAGES / 4 * one.step.seconds / 3600)
    assert many.images_per_second == pytest.approx(32 / many.step.seconds)
    (found,) = predict(small_step, 4, [2], slow)
    gathers, sums = 1e-3 + 8 * (1 + 2 * 64) / 1e6, 1e-3 + 4 * 2 * 64 / 1e6
    assert found.step.blocking == pytest.approx(gathers + sums)
    weights = 4 * (30 * 64 + 64 + 2 * 64 + 64 * 3 + 3)
    assert found.step.hidden + found.step.exposed == pytest.approx(1e-3 + weights / 1e6)
    (twice,) = predict(small_step, 4, [1], free, speed=2.0)
    assert twice.step.seconds == pytest.approx(one.step.seconds / 2)


def test_plans_of_many_ranks_without_them() -> None:
    """Their collectives are those of a world of that size."""
    made = plan_of(small_step, 200)
    colors = {len(i.attrs["colors"]) for i in made.instructions if "colors" in i.attrs}
    assert colors == {200}
    assert distributed.current().size == 1
    found = compute_seconds(made)
    assert len(found) == len(made.instructions)
    assert sum(s == 0 for s in found) == sum(
        i.waits_for is not None or "colors" in i.attrs for i in made.instructions
    )


def test_more_devices_are_less_efficient() -> None:
    found = predict(small_step, 4, [1, 4, 64], Cluster(NETWORKS["infiniband"], NONE))
    assert 1.0 == found[0].efficiency > found[1].efficiency > found[2].efficiency > 0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["scale", "laptop", "--size", "128", "--devices", "1,16,64", "--network", "10gbe"]
    out, picture = tmp_path / "scale.json", tmp_path / "scale.png"
    assert main([*words, "--json", str(out), "--picture", str(picture)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("a model, not a measurement: laptop, 2 images of 128 x 128")
    assert len(said.splitlines()) == 2 + 3
    document = json.loads(out.read_text())
    assert document["what"] == "a model, not a measurement"
    assert [row["devices"] for row in document["predictions"]] == [1, 16, 64]
    assert document["assumptions"]["network"]["latency"] == 30e-6
    assert picture.stat().st_size > 10_000


def test_the_command_shares_a_host(capsys: pytest.CaptureFixture[str]) -> None:
    """Two devices on the processors of one take twice as long, and no time to talk."""
    words = ["scale", "laptop", "--size", "128", "--devices", "1,2", "--devices-per-host", "2",
             "--host-latency", "1e-6", "--host-bandwidth", "1e6"]  # fmt: skip
    assert main([*words, "--cores", str(engine.num_threads())]) == 0
    one, two = (line.split()[4] for line in capsys.readouterr().out.splitlines()[2:])
    assert one == "100.0%"
    assert float(two[:-1]) == pytest.approx(50, abs=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet5"], "scale: no model resnet5; did you mean resnet50"),
        (["laptop", "--devices", "0"], "expected at least 1, found 0"),
        (["laptop", "--bandwidth", "-1"], "expected a number above 0, found -1"),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert main(["scale", *words]) == 2
    except SystemExit as stopped:
        assert stopped.code == 2
    assert message in capsys.readouterr().err
