"""How often an epoch takes each picture, so that rare classes are seen more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from megbrain_py.data.coco import CocoDataset, ImageEntry
from megbrain_py.data.transforms import Draw, training_boxes

Repeats: TypeAlias = npt.NDArray[np.float64]


def _classes(image: ImageEntry) -> set[int]:
    """Labels that training sees in a picture: no crowds, no boxes without an area."""
    return set(training_boxes(image, Draw(1, 1))[1].tolist())


def repeat_factors(dataset: CocoDataset, threshold: float) -> Repeats:
    """float64[pictures]: r(I) = the largest r(c) of its classes; 1 for a picture without objects.

    r(c) = max(1, sqrt(threshold / f(c))), f(c) the share of the pictures that hold class c.
    Source: Gupta et al. 2019 (LVIS), as Detectron2's RepeatFactorTrainingSampler.
    """
    present = [_classes(image) for image in dataset.images]
    counts = Counter(label for labels in present for label in labels)
    factor = {
        label: max(1.0, float(np.sqrt(threshold * len(present) / count)))
        for label, count in counts.items()
    }
    return np.array([max((factor[c] for c in labels), default=1.0) for labels in present])


def class_aware(dataset: CocoDataset) -> Repeats:
    """float64[pictures]: how often "a class, then a picture that holds it", each equally likely,
    takes a picture in as many draws as there are pictures. 0 for a picture without objects."""
    present = [_classes(image) for image in dataset.images]
    counts = Counter(label for labels in present for label in labels)
    share = len(present) / max(1, len(counts))
    return np.array([share * sum(1.0 / counts[c] for c in labels) for labels in present])


SAMPLINGS: Mapping[str, Callable[[CocoDataset, float], Repeats | None]] = {
    "plain": lambda dataset, threshold: None,
    "repeat_factor": repeat_factors,
    "class_aware": lambda dataset, threshold: class_aware(dataset),
}


def rounded(repeats: Repeats, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Positions 0..n-1, each about `repeats` times: rounded up or down at random, right on average.

    How many come in all is the same for every `rng` (the sum, rounded; at least one unless all are
    0), so that epochs are of equal length: one random offset places evenly spaced marks on the
    pictures laid end to end in a random order (systematic sampling).
    """
    total = float(repeats.sum())
    if total <= 0.0:
        return np.zeros(0, np.intp)
    order = np.argsort(rng.random(len(repeats)), kind="stable")
    count = max(1, round(total))
    marks = (np.arange(count) + rng.random()) * (total / count)
    ends = np.cumsum(repeats[order])
    found = np.minimum(np.searchsorted(ends, marks, side="right"), len(order) - 1)
    return order[found]


def copies(indices: Sequence[int]) -> tuple[int, ...]:
    """For each picture how often it came before it: 0 the first time."""
    seen: Counter[int] = Counter()
    found = []
    for index in indices:
        found.append(seen[index])
        seen[index] += 1
    return tuple(found)
