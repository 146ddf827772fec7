"""Repeat factors, class-aware sampling, and the shorter side of a batch: facts and frequencies."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import data_files
import numpy as np
import pytest

from megbrain_py.data import (
    Augmentation,
    CocoDataset,
    Loader,
    Resize,
    class_aware,
    read_coco,
    repeat_factors,
)
from megbrain_py.data.coco import Annotation, Category, ImageEntry
from megbrain_py.data.samplers import copies, rounded
from megbrain_py.data.transforms import generator


def dataset(*labels: tuple[int, ...], kinds: int = 3) -> CocoDataset:
    """Pictures with objects of these labels; pictures of two shapes."""
    images = []
    for n, present in enumerate(labels):
        objects = tuple(
            Annotation(k, c, (1, 1, 9, 9), 64, False, None) for k, c in enumerate(present)
        )
        size = (40, 60) if n % 2 else (60, 40)
        images.append(ImageEntry(n, f"{n}.png", *size, objects))
    categories = tuple(Category(k, k, f"class {k}") for k in range(1, kinds + 1))
    return CocoDataset(Path("a.json"), Path("."), categories, tuple(images))


LONG_TAIL = dataset(*[(1,)] * 12, *[(1, 2)] * 3, (3,), (), ())


def test_repeat_factors_follow_the_definition() -> None:
    found = repeat_factors(LONG_TAIL, 0.5)
    share = {1: 15 / 18, 2: 3 / 18, 3: 1 / 18}
    factor = {c: max(1.0, (0.5 / f) ** 0.5) for c, f in share.items()}
    assert factor[1] == 1.0 and factor[3] == 3.0
    expected = [1.0] * 12 + [factor[2]] * 3 + [3.0, 1.0, 1.0]
    assert found.tolist() == pytest.approx(expected)
    assert (repeat_factors(LONG_TAIL, 0.01) == 1).all()  # no class is so rare


def test_crowds_and_empty_boxes_make_no_class_present() -> None:
    crowd = Annotation(1, 2, (0, 0, 5, 5), 25, True, None)
    flat = Annotation(2, 3, (4, 4, 4, 9), 0, False, None)
    images = (ImageEntry(1, "a", 9, 9, (crowd, flat)), *dataset((1,)).images)
    data = CocoDataset(Path("a"), Path("."), dataset((1,)).categories, images)
    assert class_aware(data).tolist() == [0.0, 2.0]


def test_class_aware_draws_each_class_equally() -> None:
    found = class_aware(LONG_TAIL)
    assert found.sum() == pytest.approx(18)
    expected = [6 / 15] * 12 + [6 / 15 + 6 / 3] * 3 + [6.0, 0.0, 0.0]
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("total", [7.0, 7.4, 0.3])
def test_rounding_is_right_on_average_and_of_one_length(total: float) -> None:
    rng = np.random.default_rng(1)
    repeats = rng.random(9)
    repeats *= total / repeats.sum()
    counts = np.zeros(9)
    trials = 4000
    for seed in range(trials):
        found = rounded(repeats, generator(0, seed))
        assert len(found) == max(1, round(total))
        each = np.bincount(found, minlength=9)
        exact = repeats * len(found) / total
        assert ((each >= np.floor(exact)) & (each <= np.ceil(exact))).all()
        counts += each
    expected = repeats * max(1, round(total)) / total
    assert np.allclose(counts / trials, expected, atol=4 * np.sqrt(0.25 / trials))
    assert rounded(np.zeros(3), rng).size == 0


def test_copies_are_counted() -> None:
    assert copies([5, 3, 5, 5, 3]) == (0, 0, 1, 2, 1)


def test_epochs_take_pictures_as_often_as_wanted() -> None:
    repeats = repeat_factors(LONG_TAIL, 0.5)
    loader = Loader(LONG_TAIL, 2, seed=1, resize=Resize(32, 64), repeats=repeats,
                    augmentation=Augmentation(flip=0.5, brightness=0.3))  # fmt: skip
    assert loader.images_per_epoch == round(repeats.sum())
    seen: Counter[int] = Counter()
    epochs = 300
    for step in range(epochs * loader.steps_per_epoch):
        plan = loader.plan(step)
        seen.update(plan.indices)
    for index, expected in enumerate(repeats):  # but for the rest that fills no batch
        assert seen[index] / epochs == pytest.approx(expected, rel=0.15)
    rare = 15
    first = [(step, row) for step in range(loader.steps_per_epoch)
             for row, index in enumerate(loader.plan(step).indices) if index == rare]  # fmt: skip
    draws = {loader.plan(step).draws[row] for step, row in first}
    assert len(first) >= 2 and len(draws) == len(first)  # each time augmented anew


def test_plans_do_not_depend_on_what_was_asked_before() -> None:
    wide = Augmentation(short_sides=(16, 24, 32), per_batch=True)

    def loader() -> Loader:
        often = class_aware(LONG_TAIL)
        return Loader(LONG_TAIL, 2, seed=1, resize=Resize(32, 64), repeats=often, augmentation=wide)

    one, two = loader(), loader()
    steps = list(range(4 * one.steps_per_epoch))
    plans = [one.plan(step) for step in steps]
    assert [two.plan(step) for step in reversed(steps)] == plans[::-1]


def test_groups_without_objects_are_left_out() -> None:
    tall_empty = dataset((), (1,), (), (2,))  # every picture of one shape is empty
    loader = Loader(tall_empty, 2, resize=Resize(32, 64), repeats=class_aware(tall_empty))
    seen = {i for step in range(10) for i in loader.plan(step).indices if i >= 0}
    assert {1, 3} <= seen
    assert loader.steps_per_epoch == 2


def test_a_batch_has_one_shorter_side_and_few_signatures(tmp_path: Path) -> None:
    document = data_files.document([(40, 60)] * 9 + [(60, 40)] * 9, 2)
    data = read_coco(data_files.write(tmp_path, document))
    augmentation = Augmentation(short_sides=(32, 48, 64, 96), per_batch=True)
    loader = Loader(data, 3, resize=Resize(64, 128), augmentation=augmentation, multiple=32)
    sides = []
    for step in range(40):
        draws = loader.plan(step).draws
        found = {min(d.height, d.width) for d in draws}
        assert len(found) == 1
        sides.append(found.pop())
    assert set(sides) == {32, 48, 64, 96}
    assert max(Counter(sides).values()) < 20
    lying = {(s.height, s.width) for s in loader.signatures(20) if s.width > s.height}
    assert lying == {(32, 64), (64, 96), (96, 160)}  # 48 and 64 share one
    assert len(loader.signatures(20)) == 6
    batch = loader.batch(0)
    assert batch["image_sizes"].min(axis=1).tolist() == [sides[0]] * 3
