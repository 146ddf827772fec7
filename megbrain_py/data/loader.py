"""Batches for training and evaluation: a pure function of the step."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from megbrain_py.data import masks as masks_of
from megbrain_py.data.batches import Batch, Batches
from megbrain_py.data.buckets import Group, group_images
from megbrain_py.data.coco import CocoDataset
from megbrain_py.data.samplers import Repeats, copies, rounded
from megbrain_py.data.transforms import (
    MEAN,
    STD,
    Augmentation,
    Draw,
    Pixels,
    Resize,
    draw,
    generator,
    jitter_colours,
    load_resized,
    normalise_into,
    side_of_batch,
    training_boxes,
    training_objects,
)
from megbrain_py.errors import DataError
from megbrain_py.instruments.trace import span
from megbrain_py.ranks import rows_of

ROWS = (16, 64, 256)
_MASK_STEP = 4096  # pixels: room for masks is a multiple of this many
BLANK = -1  # image id of a filled-up place in the last batches of an evaluation


@dataclass(frozen=True)
class Signature:
    """What decides the shapes of a batch: pictures, padded height and width, ground-truth rows,
    pixels of all masks of a picture (0: a loader without masks)."""

    batch: int
    height: int
    width: int
    rows: int
    mask_pixels: int = 0

    def __str__(self) -> str:
        masks = f", {self.mask_pixels} mask pixels" if self.mask_pixels else ""
        return f"{self.batch} x {self.height}x{self.width}, {self.rows} boxes{masks}"


@dataclass(frozen=True)
class BatchPlan:
    """Everything about a batch but its pixels; index -1 is a blank picture."""

    signature: Signature
    indices: tuple[int, ...]
    draws: tuple[Draw, ...]


class _Cache:
    """Keeps resized pictures and masks until its bytes are used up; never forgets, so it never
    thrashes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._items: dict[tuple[int, ...], Any] = {}
        self._lock = threading.Lock()

    def get(self, key: tuple[int, ...]) -> Any:
        return self._items.get(key)

    def put(self, key: tuple[int, ...], item: Any, nbytes: int) -> None:
        with self._lock:
            if key not in self._items and self._used + nbytes <= self._limit:
                self._items[key] = item
                self._used += nbytes


class Loader:
    """Batches of a data set; `batch(step)` depends on the arguments and `step` alone.

    A batch has N pictures and G ground-truth rows: `images` float32[N,3,H,W] (RGB, normalised,
    then zero-padded right and below), `image_sizes` int32[N,2] (h, w before padding),
    `original_sizes` int32[N,2], `boxes` float32[N,G,4] (x1,y1,x2,y2 in resized pixels, zero rows
    behind the last), `labels` int32[N,G] (1..K, 0 = none), `box_count` int32[N], `image_ids`
    int64[N]. Pictures of like shape share a batch, so that there are few signatures and little
    padding.

    Training (`shuffle=True`): the order comes from (seed, epoch), augmentation from (seed, epoch,
    image id); each epoch has `steps_per_epoch` full batches, and the rest of each group waits for
    another epoch. `repeats` (data/samplers.py) says how often an epoch takes each picture of the
    data set, on average; by default once. Without shuffling every picture comes once and the last
    batch of a group is filled with blank pictures of image id -1, or left short with `fill=False`.

    With `masks=True` (every object needs a segmentation) also `masks` uint8[N,P] and `mask_places`
    int32[N,G,5] as F.mask_targets takes them: each mask is cropped to its own pixels, and P is
    enough for any picture of the data set.

    Pictures with more than 256 usable objects keep the first 256: see `overfull_images`.
    `cache_bytes` bounds the resized pictures and the masks kept in memory.

    part=(rank, ranks): `batch` makes only this rank's rows (ranks.rows_of), maybe none. Plans, with
    the padded sizes, stay those of whole batches: all ranks see one order and one size.
    """

    def __init__(
        self,
        dataset: CocoDataset,
        batch_size: int,
        *,
        seed: int = 0,
        resize: Resize | None = None,
        augmentation: Augmentation | None = None,
        shuffle: bool = True,
        repeats: Repeats | None = None,
        fill: bool = True,
        skip_empty: bool = False,
        masks: bool = False,
        mean: tuple[float, float, float] = MEAN,
        std: tuple[float, float, float] = STD,
        multiple: int = 32,
        most_groups: int = 4,
        cache_bytes: int = 256 << 20,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if batch_size < 1:
            raise DataError(f"loader: batch_size is {batch_size}, expected at least 1")
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.resize, self.augmentation = resize or Resize(), augmentation
        self.shuffle, self.fill = shuffle, fill
        self.part = part
        self._mean, self._std = mean, std
        self._cache = _Cache(cache_bytes)
        objects = [training_objects(image) for image in dataset.images]
        counts = [len(found) for found in objects]
        self._counts = counts
        self.masks = masks
        self._extents = []
        if masks:
            for image, found in zip(dataset.images, objects, strict=True):
                masks_of.require_masks(image, found, dataset.annotation_file)
                self._extents.append(masks_of.extents(image, found[: ROWS[-1]]))
        self._mask_pixels = lru_cache(maxsize=None)(self._room_for_masks)
        used = [i for i, count in enumerate(counts) if count or not skip_empty]
        if not used:
            what = "pictures with objects" if dataset.images else "pictures"
            raise DataError(f"{dataset.annotation_file}: no {what}")
        self.overfull_images = tuple(dataset.images[i].id for i in used if counts[i] > ROWS[-1])
        sides = (augmentation or Augmentation()).possible_short_sides(self.resize.short_side)
        groups = group_images(
            [dataset.images[i] for i in used],
            self.resize,
            sides,
            multiple=multiple,
            most_groups=most_groups,
            most_scales=len(sides) if augmentation and augmentation.per_batch else 3,
        )
        self._repeats = repeats
        self.groups = tuple(Group(tuple(used[i] for i in g.images), g.sizes) for g in groups)
        self._epoch_batches = lru_cache(maxsize=4)(self._order)
        self._epoch_copies = lru_cache(maxsize=4)(self._copies)
        self.steps_per_epoch = len(self._epoch_batches(0))
        if not self.steps_per_epoch:
            raise DataError(f"{dataset.annotation_file}: no picture is ever drawn")

    @property
    def images_per_epoch(self) -> int:
        """Pictures that a pass over the data means, repeated ones counted again."""
        if self._repeats is None:
            return sum(len(group.images) for group in self.groups)
        return max(1, round(sum(float(self._repeats[i]) for g in self.groups for i in g.images)))

    def _order(self, epoch: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """The batches of an epoch: (group, indices of the pictures)."""
        if not self.shuffle:
            return tuple(
                (g, group.images[start : start + self.batch_size])
                for g, group in enumerate(self.groups)
                for start in range(0, len(group.images), self.batch_size)
            )
        rng = generator(self.seed, epoch)
        batches = []
        for g, group in enumerate(self.groups):
            members = np.arange(len(group.images))
            if self._repeats is not None:
                members = rounded(self._repeats[list(group.images)], rng)
                if not members.size:
                    continue
            shuffled = members[np.argsort(rng.random(len(members)), kind="stable")]
            order = self._completed(group, shuffled)
            for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
                batches.append((g, order[start : start + self.batch_size]))
        mixed = np.argsort(rng.random(len(batches)), kind="stable")
        return tuple(batches[i] for i in mixed)

    def _copies(self, epoch: int) -> tuple[tuple[int, ...], ...]:
        """How often each picture of each batch came in this epoch before."""
        batches = [indices for _, indices in self._epoch_batches(epoch)]
        found = iter(copies([i for indices in batches for i in indices]))
        return tuple(tuple(next(found) for _ in indices) for indices in batches)

    def _completed(self, group: Group, order: npt.NDArray[np.intp]) -> tuple[int, ...]:
        """The pictures of a group in this order; fewer than a batch are filled up.

        The fillers are pictures of other groups that need no more room, else the same again. Which
        of them rotates with the order, so with the epoch.
        """
        own = [group.images[i] for i in order]
        if len(own) >= self.batch_size:
            return tuple(own)
        height, width = group.sizes[-1]
        others = [
            i
            for other in self.groups
            if other is not group and other.sizes[-1][0] <= height and other.sizes[-1][1] <= width
            for i in other.images
        ]
        start = own[0] % len(others) if others else 0
        fillers = others[start:] + others[:start]
        return tuple(np.resize(own + fillers, self.batch_size).tolist())

    def epoch(self, step: int) -> int:
        """The epoch that a step belongs to; the first is 0."""
        return step // self.steps_per_epoch

    def plan(self, step: int) -> BatchPlan:
        """Which pictures a step takes and what happens to them, without reading any."""
        if step < 0:
            raise DataError(f"loader: step {step} is negative")
        epoch, within = divmod(step, self.steps_per_epoch)
        g, indices = self._epoch_batches(epoch if self.shuffle else 0)[within]
        side = side_of_batch(self.resize, self.augmentation, self.seed, epoch, within)
        repeated = self._repeats is not None
        earlier = self._epoch_copies(epoch)[within] if repeated else (0,) * len(indices)
        draws = tuple(
            draw(
                self.dataset.images[i], self.resize, self.augmentation, self.seed, epoch,
                copy=copy, short_side=side,
            )
            for i, copy in zip(indices, earlier, strict=True)
        )  # fmt: skip
        size = self.groups[g].fit(max(d.height for d in draws), max(d.width for d in draws))
        rows = self._rows(indices)
        mask_pixels = self._mask_pixels(size, rows) if self.masks else 0
        if self.fill:
            blanks = self.batch_size - len(indices)
            indices, draws = indices + (-1,) * blanks, draws + (Draw(1, 1),) * blanks
        return BatchPlan(Signature(len(indices), *size, rows, mask_pixels), indices, draws)

    def _rows(self, indices: Sequence[int]) -> int:
        """Rows that hold the objects of each of these pictures."""
        most = min(max(self._counts[i] for i in indices), ROWS[-1])
        return next(rows for rows in ROWS if rows >= most)

    def _room_for_masks(self, size: tuple[int, int], rows: int) -> int:
        """Pixels that hold the masks of any picture with at most `rows` objects at this size."""
        fitting = (e for e in self._extents if len(e) <= rows)
        most = max((masks_of.capacity(e, *size) for e in fitting), default=0)
        return max(1, -(-most // _MASK_STEP)) * _MASK_STEP

    def signature(self, step: int) -> Signature:
        """The shapes of a step's batch, without reading pictures."""
        return self.plan(step).signature

    def signatures(self, epochs: int = 1) -> Counter[Signature]:
        """The signatures of the first epochs and how many steps have each."""
        return Counter(self.signature(step) for step in range(epochs * self.steps_per_epoch))

    def largest_signatures(self, batch: int = 0) -> tuple[Signature, ...]:
        """Signatures, one for each group of pictures, of which one is no smaller than any batch's
        in every respect; of batches of another size where `batch` says so."""
        batch = batch or self.batch_size
        everything = [i for group in self.groups for i in group.images]
        found = []
        for group in self.groups:
            few = self._repeats is not None or len(group.images) < batch
            rows = self._rows(everything if self.shuffle and few else group.images)
            mask_pixels = self._mask_pixels(group.sizes[-1], rows) if self.masks else 0
            found.append(Signature(batch, *group.sizes[-1], rows, mask_pixels))
        return tuple(found)

    def describe(self) -> str:
        """Lines that say what is loaded and how many signatures the first epoch needs."""
        images = sum(len(group.images) for group in self.groups)
        signatures = self.signatures().most_common()
        again = "" if self._repeats is None else f" drawn {self.images_per_epoch} times"
        batches = f"{self.steps_per_epoch} batches of {self.batch_size}"
        lines = [
            f"{images} pictures{again}, {batches} an epoch, "
            f"{len(signatures)} input signature{'s' if len(signatures) > 1 else ''}:"
        ]
        lines += [f"  {signature} ({count} batches)" for signature, count in signatures]
        if self.overfull_images:
            lines.append(
                f"  {len(self.overfull_images)} pictures have more than {ROWS[-1]} objects, "
                f"the first {ROWS[-1]} are used (image ids {self.overfull_images[:5]})"
            )
        return "\n".join(lines)

    def _pixels(self, index: int, drawn: Draw) -> Pixels:
        key = (index, drawn.height, drawn.width)
        pixels = self._cache.get(key)
        if pixels is None:
            image = self.dataset.images[index]
            path = self.dataset.path(image)
            pixels = load_resized(path, image, drawn.height, drawn.width, self.resize.method)
            self._cache.put(key, pixels, pixels.nbytes)
        return jitter_colours(pixels[:, ::-1] if drawn.flip else pixels, drawn)

    def _masks(self, index: int, drawn: Draw) -> list[masks_of.CroppedMask]:
        image = self.dataset.images[index]
        own = self._cache.get((index,))
        if own is None:
            own = masks_of.own_masks(image, training_objects(image)[: ROWS[-1]])
            self._cache.put((index,), own, sum(mask.pixels.nbytes for mask in own))
        return masks_of.training_masks(image, own, drawn)

    @span("make a batch")
    def batch(self, step: int) -> Batch:
        """The arrays of a step. DataError names the file of a picture that cannot be used."""
        plan = self.plan(step)
        batch = self.blank(plan.signature)
        for row, place in enumerate(rows_of(plan.signature.batch, *self.part)):
            index, drawn = plan.indices[place], plan.draws[place]
            if index < 0:
                continue
            image = self.dataset.images[index]
            normalise_into(batch["images"][row], self._pixels(index, drawn), self._mean, self._std)
            found, classes = training_boxes(image, drawn)
            count = min(len(classes), plan.signature.rows)
            batch["boxes"][row, :count] = found[:count]
            batch["labels"][row, :count] = classes[:count]
            batch["box_count"][row], batch["image_ids"][row] = count, image.id
            batch["image_sizes"][row] = drawn.height, drawn.width
            batch["original_sizes"][row] = image.height, image.width
            if self.masks:
                cropped = self._masks(index, drawn)
                masks_of.pack(cropped, batch["masks"][row], batch["mask_places"][row])
        return batch

    def blank(self, signature: Signature) -> Batch:
        """The rank's rows of a batch of these shapes, all pictures blank."""
        n, rows = len(rows_of(signature.batch, *self.part)), signature.rows
        batch: Batch = {
            "images": np.zeros((n, 3, signature.height, signature.width), np.float32),
            "image_sizes": np.ones((n, 2), np.int32),
            "original_sizes": np.ones((n, 2), np.int32),
            "boxes": np.zeros((n, rows, 4), np.float32),
            "labels": np.zeros((n, rows), np.int32),
            "box_count": np.zeros(n, np.int32),
            "image_ids": np.full(n, BLANK, np.int64),
        }
        if self.masks:
            batch["masks"] = np.zeros((n, signature.mask_pixels), np.uint8)
            batch["mask_places"] = np.zeros((n, rows, 5), np.int32)
        return batch

    def batches(
        self, start: int = 0, stop: int | None = None, *, workers: int = 1, ahead: int = 2
    ) -> Batches:
        """The batches of the steps start..stop-1 in order (no stop: without end).

        `workers` threads compute up to `ahead` batches before they are asked for; 0 computes each
        when asked. Use it in a `with` statement, or call `close()`.
        """
        return Batches(self.batch, start, stop, workers, ahead)

    def pass_over(self, *, workers: int = 1, part: tuple[int, int] = (0, 1)) -> Batches:
        """One epoch from step 0: every picture once when the loader does not shuffle.

        part=(rank, ranks): every n-th batch, which together are those of one rank.
        """
        steps = range(self.steps_per_epoch)[part[0] :: part[1]]
        return Batches(lambda i: self.batch(steps[i]), 0, len(steps), workers, 2)
