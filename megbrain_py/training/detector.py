"""Detectors as a run makes them: from the data's facts, and back from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from megbrain_py import nn
from megbrain_py.compiler import SpecializedFunction
from megbrain_py.data import Augmentation, Batches, CocoDataset, Detections, Kind, Loader, Resize
from megbrain_py.dtypes import Array
from megbrain_py.errors import DataError
from megbrain_py.graph import Var
from megbrain_py.training import settings
from megbrain_py.training.checkpoint import Checkpoint, load_state
from megbrain_py.training.runs import find_checkpoint


@dataclass(frozen=True)
class InputConfig:
    """How pictures are made ready for the detector."""

    short_side: int
    long_side: int
    multiple: int = 32
    method: Literal["pillow", "torchvision"] = "pillow"

    def loader(
        self,
        dataset: CocoDataset,
        batch: int,
        cache_mb: int = 0,
        *,
        masks: bool = False,
        flip: bool = False,
    ) -> Loader:
        """Every picture once, in groups of like shape; the last batches filled with blanks.

        masks: true masks too; flip: all pictures mirrored.
        """
        return Loader(
            dataset,
            batch,
            resize=Resize(self.short_side, self.long_side, self.method),
            augmentation=Augmentation(flip=1.0) if flip else None,
            shuffle=False,
            masks=masks,
            multiple=self.multiple,
            cache_bytes=cache_mb << 20,
        )


@dataclass(frozen=True)
class Trained:
    """A detector that can be used: its classes 1..K, and the pictures it wants."""

    model: Any
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]  # what the training data called the labels 1..K
    input: InputConfig
    checkpoint: Checkpoint | None = None


def model_config(preset: str, options: Mapping[str, Any]) -> Any:
    """A preset's configuration with some fields changed; DataError names the nearest name."""
    from megbrain_py.models import faster_rcnn

    if preset not in faster_rcnn.PRESETS:
        raise DataError(
            f"config: no model.preset {preset}{settings.nearest(preset, faster_rcnn.PRESETS)}"
        )
    return settings.replaced(faster_rcnn.PRESETS[preset], options, "model.")


def make_model(preset: str, options: Mapping[str, Any], classes: int, seed: int) -> Any:
    """A detector with fresh weights that depend on the seed only."""
    from megbrain_py.models import faster_rcnn

    config = model_config(preset, {**options, "num_classes": classes})
    nn.init.seed(seed)
    try:
        return faster_rcnn.FasterRCNN(config)
    except ValueError as error:  # a backbone that is unknown or has too few stages
        raise DataError(f"config: model: {error}") from None


def has_masks(model: Any) -> bool:
    """Whether a detector learns from masks and gives them."""
    return bool(getattr(model, "has_masks", False))


def load_trained(path: str | Path, which: str = "best") -> Trained:
    """The detector of a run's folder or a checkpoint. DataError when it is not one."""
    file, found = find_checkpoint(path, which)
    try:
        facts = found.extra["model"]
        classes = tuple(str(name) for name in found.extra["classes"])
        ids = tuple(int(number) for number in found.extra["category_ids"])
        wanted = InputConfig(**found.extra["input"])
        model = make_model(facts["preset"], facts["options"], len(classes), found.seed)
    except (KeyError, TypeError) as error:
        raise DataError(f"checkpoint {file}: does not describe a detector ({error!r})") from None
    load_state(model.named_state(), found.weights, f"checkpoint {file}")
    return Trained(model, classes, ids, wanted, found)


class Detecting:
    """The detector's forward pass, compiled once for each size of batch."""

    def __init__(self, model: Any, signatures: int = 8) -> None:
        self.model = model
        self.function = SpecializedFunction(self._build, signatures)

    def _build(self, images: Var, image_sizes: Var) -> dict[str, Var]:
        return dict(self.model.detect(images, image_sizes))

    def __call__(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """`boxes` [N, D, 4] in resized pixels, `scores`, `labels` [N, D], `count` [N]."""
        return self.function(images=batch["images"], image_sizes=batch["image_sizes"])


def detect_all(
    detecting: Detecting,
    loader: Loader,
    *,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    part: tuple[int, int] = (0, 1),
) -> Detections:
    """Detections of every picture of a loader; `progress` is told of each batch's pictures.

    part=(rank, ranks): those of every n-th batch.
    """
    found = Detections(loader.dataset)
    with loader.pass_over(workers=workers, part=part) as batches:
        for batch in batches:
            found.add_batch(batch, detecting(batch))
            if progress is not None:
                progress(int((batch["image_ids"] >= 0).sum()))
    return found


def figures(found: Detections) -> dict[str, Any]:
    """The 12 COCO numbers and AP per class as plain data; None where there is nothing to find.

    A detector that finds masks also has "segm_AP", ... of the masks.
    """

    def plain(values: Mapping[str, float]) -> dict[str, float | None]:
        return {n: round(v, 6) if np.isfinite(v) else None for n, v in values.items()}

    def of_kind(kind: Kind) -> dict[str, Any]:
        result = found.evaluate(kind)
        return {
            **plain(result.numbers),
            "AP_per_class": plain(result.ap_per_class),
            "AP50_per_class": plain(result.ap50_per_class),
        }

    if not found.has_masks:
        return of_kind("bbox")
    masks = of_kind("segm")
    return {**of_kind("bbox"), **{f"segm_{name}": value for name, value in masks.items()}}


def closing(batches: Batches) -> Iterator[dict[str, Array]]:
    """The batches; the loader's threads end with them, however the reader stops."""
    with batches:
        yield from batches


def full_batches(
    loader: Loader, images: int, part: tuple[int, int] = (0, 1)
) -> Iterator[Mapping[str, Array]]:
    """Batches without blank pictures, until `images` were given; all when none is without.

    part=(rank, ranks): every n-th of them.
    """
    every = range(loader.steps_per_epoch)
    steps = [step for step in every if -1 not in loader.plan(step).indices] or list(every)
    chosen = steps[: max(1, -(-images // loader.batch_size))]
    return (loader.batch(step) for step in chosen[part[0] :: part[1]])
