"""What the study works on: digit scenes, a small detector, and how large each part is."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from megbrain_py.data import CocoDataset, Loader, Resize, read_coco
from megbrain_py.data.digit_scenes import SceneStyle, make_digit_scenes
from megbrain_py.dtypes import Array
from megbrain_py.models.faster_rcnn import FasterRCNN, FasterRCNNConfig, RoIHeadsConfig
from megbrain_py.models.rpn import RPNConfig
from megbrain_py.nn.serialize import write_atomically
from megbrain_py.training.runs import image_folder
from megbrain_py.training.step import Batch, feeds_of

STYLE = SceneStyle(size=96, objects=(1, 5), digit_size=(16.0, 56.0))
ONE_DIGIT = SceneStyle(size=48, objects=(1, 1), digit_size=(20.0, 46.0))
DETECTOR = FasterRCNNConfig(
    num_classes=10, backbone="tiny", fpn_channels=32, anchor_sizes=(16.0, 24.0, 36.0, 54.0),
    canonical_scale=72.0, rpn=RPNConfig(80, 80, 50, 40, samples=64),
    roi=RoIHeadsConfig(samples=32, positive=0.5, hidden=128, pool=5, detections=20),
)  # fmt: skip
SMALL, LARGE = 2, 32  # pictures of a step; a device holds SMALL of them
PHASES = ("init", "early", "late")  # of the training from which weights are taken


@dataclass(frozen=True)
class Study:
    """Where results lie, and how much is computed.

    train, val: pictures of the detector; pretrain: of the classifier that its backbone was.
    pictures: of the training set that the statistics are taken over; block: neighbours among them
    whose batches are compared with each other, at least 2 LARGE.
    """

    out: Path
    train: int = 1280
    val: int = 400
    pretrain: int = 4000
    pretrain_epochs: float = 10.0
    epochs: float = 8.0
    rate: float = 0.02  # for 16 pictures, as the talk has it
    pictures: int = 1024
    block: int = 64
    seeds: int = 3
    resamples: int = 2000

    @property
    def batches(self) -> tuple[int, ...]:
        """The sizes of batch that are compared: 1, 2, 4, ..., half a block."""
        return tuple(2**i for i in range(self.block.bit_length() - 1))

    @cached_property
    def data(self) -> tuple[CocoDataset, CocoDataset]:
        """The training and the validation scenes, made where they are missing."""
        return _scenes(self.out / "scenes", self.train, self.val, STYLE)

    @cached_property
    def single_digits(self) -> tuple[CocoDataset, CocoDataset]:
        """Scenes of one digit each, for the classifier."""
        return _scenes(self.out / "single_digits", self.pretrain, self.val, ONE_DIGIT)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, as plain data: read from `name`.json if an earlier run wrote it."""
        path = self.out / f"{name}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(make(), indent=1).encode())
        return json.loads(path.read_text())


def quick(out: Path) -> Study:
    """A study of a minute: everything runs, its figures mean little."""
    return replace(
        Study(out), train=64, val=16, pretrain=64, pretrain_epochs=1.0, epochs=1.0, pictures=64,
        block=8, seeds=2, resamples=200,
    )  # fmt: skip


def _scenes(
    folder: Path, train: int, val: int, style: SceneStyle
) -> tuple[CocoDataset, CocoDataset]:
    paths = [folder / "annotations" / f"instances_{split}.json" for split in ("train", "val")]
    if not paths[1].exists():  # the last file that is written
        make_digit_scenes(folder, train, val, style=style)
    return read_coco(paths[0], image_folder(paths[0])), read_coco(paths[1], image_folder(paths[1]))


def new_detector(seed: int, weights: Mapping[str, Array] | None = None) -> FasterRCNN:
    """A detector with fresh weights, then those given, as far as it has them."""
    net = FasterRCNN(DETECTOR, rng=seed)
    if weights is not None:
        net.load_state_dict(weights, strict=False)
    return net


def loader_of(data: CocoDataset, batch: int, *, seed: int = 0, shuffle: bool = False) -> Loader:
    """Batches of scenes as they are: no augmentation, so that draws do not differ between arms."""
    side = data.images[0].height
    return Loader(data, batch, seed=seed, resize=Resize(side, side), shuffle=shuffle)


def feeds(batch: Batch, rows: slice, seed: int, step: int) -> dict[str, Array]:
    """What a function over some rows of a batch is fed."""
    return feeds_of({name: array[rows] for name, array in batch.items()}, seed, step)


class SharedBatches:
    """A loader's batches for many ranks of one process: each batch is made once."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._lock = threading.Lock()
        self._last: tuple[int, Batch] | None = None

    def __call__(self, step: int) -> Batch:
        with self._lock:
            if self._last is None or self._last[0] != step:
                self._last = step, self._loader.batch(step)
            return self._last[1]


def in_batches(study: Study, size: int) -> Iterator[dict[str, Array]]:
    """The study's pictures in batches, always in the same order and with the same keys."""
    batches = SharedBatches(loader_of(study.data[0], study.block))
    for start in range(0, study.pictures, size):
        block, first = divmod(start, study.block)
        yield feeds(batches(block), slice(first, first + size), 0, 0)


def joined(arrays: Mapping[str, Array]) -> Array:
    """All arrays end to end, in the order of the mapping."""
    return np.concatenate([array.reshape(-1) for array in arrays.values()])
