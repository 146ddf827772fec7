"""How pictures are shown to detectors at test time: sizes, mirrored, one detector after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from megbrain_py.data import CocoDataset
from megbrain_py.dtypes import Array
from megbrain_py.training.detector import InputConfig, Trained

Progress = Callable[[int, str], None]  # so many pictures more, and of what view


@dataclass(frozen=True)
class ScoredBoxes:
    """Boxes of one picture: [n, 4] in its own pixels, scores [n], labels int32[n]."""

    boxes: Array
    scores: Array
    labels: Array


@dataclass(frozen=True)
class View:
    """A picture is shown larger or smaller than in training, maybe mirrored."""

    scale: float = 1.0
    flip: bool = False

    def __str__(self) -> str:
        return f"scale {self.scale:g}{', mirrored' if self.flip else ''}"

    def of(self, usual: InputConfig) -> InputConfig:
        """The sizes of the pictures, from those of the training."""
        short, long = (max(1, round(n * self.scale)) for n in (usual.short_side, usual.long_side))
        return replace(usual, short_side=short, long_side=long)

    def in_picture(self, boxes: Array, batch: Mapping[str, Array], row: int) -> Array:
        """Boxes [n, 4] of a batch's row in pixels of the picture itself."""
        height, width = batch["image_sizes"][row]
        found = np.array(boxes, np.float64)
        if self.flip:
            found[:, 0::2] = width - found[:, 2::-2]
        own_height, own_width = batch["original_sizes"][row]
        found *= np.array([own_width / width, own_height / height] * 2)
        return found.astype(np.float32)

    def in_view(self, boxes: Array, batch: Mapping[str, Array], row: int) -> Array:
        """The other way round."""
        height, width = batch["image_sizes"][row]
        own_height, own_width = batch["original_sizes"][row]
        found = np.array(boxes, np.float64)
        found *= np.array([width / own_width, height / own_height] * 2)
        if self.flip:
            found[:, 0::2] = width - found[:, 2::-2]
        return found.astype(np.float32)


@dataclass(frozen=True)
class Look:
    """A batch of pictures as one detector (its index) sees it; rows that are no blank pictures."""

    detector: int
    view: View
    batch: Mapping[str, Array]
    pictures: Sequence[int]


def looks(
    detectors: Sequence[Trained],
    views: Sequence[View],
    dataset: CocoDataset,
    *,
    batch: int,
    workers: int,
    progress: Progress | None,
) -> Iterator[Look]:
    """Every picture for every detector in every view, view after view."""
    for number, trained in enumerate(detectors):
        who = f"detector {number + 1} of {len(detectors)}, " if len(detectors) > 1 else ""
        for view in views:
            loader = view.of(trained.input).loader(dataset, batch, flip=view.flip)
            with loader.pass_over(workers=workers) as batches:
                for given in batches:
                    pictures = np.flatnonzero(given["image_ids"] >= 0).tolist()
                    yield Look(number, view, given, pictures)
                    if progress is not None:
                        progress(len(pictures), f"{who}{view}")
