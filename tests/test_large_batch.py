"""The large-batch study: its parts on a handful of pictures, and the identities they rest on."""

from __future__ import annotations

import itertools
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import nn
from megbrain_py.dtypes import Array

sys.path.insert(0, str(Path(__file__).parent.parent))  # examples is no installed package

from examples.large_batch import balance, gradients, moments, pictures, report, results
from examples.large_batch.accuracy import phases
from examples.large_batch.equality import compared, step
from examples.large_batch.intervals import bootstrap, slope, student
from examples.large_batch.setting import Study, in_batches, joined, new_detector
from examples.large_batch.training import Arm, train

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(
        tmp_path_factory.mktemp("study"), train=32, val=4, pretrain=8, pretrain_epochs=1, epochs=1,
        pictures=16, block=8, seeds=1, resamples=50, rate=1e-4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def late(study: Study) -> dict[str, Array]:
    return phases(study)["late"]


def test_the_variance_of_means_over_all_ways_to_pair_is_half() -> None:
    """By brute force: over all partitions of rows into pairs the estimate is exactly V(1) / 2."""
    rows = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    found = [
        gradients.variance(gradients.means_of(rows[list(order)], 2))
        for order in itertools.permutations(range(6))
    ]
    trace = np.trace(np.cov(rows.T.astype(np.float64)))
    assert gradients.variance(rows) == pytest.approx(trace, rel=1e-6)
    assert np.mean(found) == pytest.approx(trace / 2, rel=1e-6)


def test_independent_gradients_have_the_slope_of_the_theory() -> None:
    rng = np.random.default_rng(0)
    blocks = rng.standard_normal((200, 8, 3)).astype(np.float32)
    sizes = (1, 2, 4)
    each = np.array(
        [[gradients.variance(gradients.means_of(rows, b)) for b in sizes] for rows in blocks]
    )
    (found,) = bootstrap(200, lambda index: np.array([slope(sizes, each[index].mean(0))]), 200)
    assert found.holds(-1)
    assert found.high - found.low < 0.2


def test_students_interval() -> None:
    found = student([1.0, 2.0, 3.0])
    assert (found.value, round(found.low, 3), round(found.high, 3)) == (2.0, -0.484, 4.484)
    assert found.holds(0) and not student([1.0, 1.1, 1.2]).holds(0)


def test_a_batchs_gradient_with_running_statistics_is_the_mean_of_its_pictures(
    study: Study, late: dict[str, Array]
) -> None:
    """As every picture draws as many anchors and boxes, batches only average."""
    net = new_detector(0, late)
    function = gradients.gradient_function(net, "running")
    singles = [joined(function(**batch)) for batch in in_batches(study, 1)][:2]
    both = joined(function(**next(in_batches(study, 2))))
    np.testing.assert_allclose(np.mean(singles, 0), both, atol=1e-5 * np.abs(both).max())
    assert gradients.parts_of(net)["all"].stop == both.size


def test_small_steps_at_a_tiny_rate_are_frozen_weights(study: Study) -> None:
    """The study's rate is 1e-4 here: then both walks must be the same."""
    found = gradients.variances(study, "late")
    assert np.array(found["batch"]["rpn"]).shape == (2, 3)  # blocks, sizes
    walk, frozen = results.real_walk(study, "late"), results.frozen_ratio(study, "late", "batch")
    assert walk.ratio.value == pytest.approx(frozen.value, rel=0.01)


def test_moments_of_pictures_join_to_those_of_the_batch(
    study: Study, late: dict[str, Array]
) -> None:
    """The first norm's input depends on no other norm, so training sees the same moments."""
    net = new_detector(0, late)
    pixels, means, squares = moments.moments_of_pictures(study, net)["backbone.body.bn1"]
    images = np.concatenate([batch["images"] for batch in in_batches(study, 4)])
    x = mb.placeholder("images", images.shape)
    with nn.train_mode(momentum=1.0) as updates:
        net.backbone(x)
    norm = net.backbone.body.bn1
    seen = mb.compile({n: updates[getattr(norm, n)] for n in ("running_mean", "running_var")})
    expected = seen(images=images)
    values = len(images) * pixels
    var = (squares.mean(0) - means.mean(0) ** 2) * values / (values - 1)
    np.testing.assert_allclose(means.mean(0), expected["running_mean"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(var, expected["running_var"], rtol=1e-4)


def test_errors_of_independent_pictures_fall_by_the_square_root() -> None:
    values = np.random.default_rng(0).standard_normal((4096, 3, 50))
    squares = np.square(values).mean(2)
    each = moments.squared_errors(values.mean(2), squares, 64, (1, 4, 16))
    found = np.sqrt(each.mean(1))
    np.testing.assert_allclose(found[0], 1 / np.sqrt([50, 200, 800]), rtol=0.1)
    np.testing.assert_allclose(found[1], np.sqrt(2) / np.sqrt([50, 200, 800]), rtol=0.15)


def test_every_picture_is_drawn_from(study: Study) -> None:
    found = balance.counts(study, "late")
    assert {name: len(counts) for name, counts in found.items()} == dict.fromkeys(found, 16)
    assert set(found["rpn_drawn"]) == {64}
    one, two = (
        balance.ratios(np.array(found["rpn_positives"]), np.array(found["rpn_drawn"]), size)
        for size in (1, 2)
    )
    np.testing.assert_allclose(one.reshape(-1, 2).mean(1), two)


def test_devices_give_what_one_does(study: Study, late: dict[str, Array]) -> None:
    batch = next(in_batches(study, 4))
    whole = step(late, batch, [4])
    assert max(compared(step(late, batch, [3, 1]), whole).values()) < 1e-3
    assert compared(step(late, batch, [3, 1], sync=False), whole)["gradient"] > 1e-2


def test_groups_of_pictures_on_one_device_are_devices(study: Study) -> None:
    """GroupedNorm, by which the trainings run, against logical devices: weights after a step."""
    arm = Arm("", batch=32, bn_size=16)
    one, two = (train(study, arm, 0, {}, devices)["phases"] for devices in (1, 2))
    for name, value in one["late"].items():
        moved = np.abs(value - one["init"][name]).max()
        apart = np.abs(value - two["late"][name]).max()
        assert apart <= 1e-3 * moved + 1e-7, name


def test_tables_and_pictures(study: Study, tmp_path: Path) -> None:
    for measure in (gradients.variances, gradients.walks, moments.errors, balance.counts):
        measure(study, "late")
    for part in ("gradients", "walks", "moments", "balance"):
        for phase in ("init", "early"):  # would take as long again
            shutil.copyfile(study.out / part / "late.json", study.out / part / f"{phase}.json")
    written = report.text(study)
    for expected in ("Noise scale, late", "-1/2 within the interval", "batch 32, norms over 32"):
        assert expected in written
    assert [path.stem for path in pictures.draw(study, tmp_path)] == [
        "gradient_variance", "linear_rule", "moments", "balance", "accuracy",
    ]  # fmt: skip
