"""From a configuration to a Trainer: data, detector, optimiser, schedule, evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from megbrain_py import nn, optim, ranks
from megbrain_py.data import Augmentation, CocoDataset, Loader, Resize, read_coco
from megbrain_py.data.samplers import SAMPLINGS
from megbrain_py.errors import DataError
from megbrain_py.training.anchors import anchor_sizes
from megbrain_py.training.config import OptimizerConfig, TrainConfig
from megbrain_py.training.detector import (
    Detecting,
    InputConfig,
    closing,
    detect_all,
    figures,
    full_batches,
    has_masks,
    make_model,
    model_config,
)
from megbrain_py.training.fit_batch import fit_batch
from megbrain_py.training.memory import Program, keep_within, measuring_programs, step_programs
from megbrain_py.training.parts import Parts
from megbrain_py.training.pictures import draw_measured
from megbrain_py.training.policy import describe, learning_rates, total_steps
from megbrain_py.training.progress import Display
from megbrain_py.training.runs import image_folder
from megbrain_py.training.shards import first, gathered, norm_group, sharing_host, together
from megbrain_py.training.start import freeze, load_weights
from megbrain_py.training.step import Batch, ValidationLoss
from megbrain_py.training.trainer import Trainer, step_of

_LARGEST_STEP = 256  # pictures: as far as MegDet shows that the linear rule of the rate holds
_ENLARGED = 2.0  # pictures are enlarged this much without a word


def open_data(annotations: str, images: str, key: str, classes: Sequence[str] = ()) -> CocoDataset:
    """The data set of a configuration key; all of its classes, or those named.

    DataError names what is missing.
    """
    if not annotations:
        raise DataError(f"config: {key} is needed: a COCO annotation file ({key}=FILE.json)")
    dataset = read_coco(annotations, image_folder(annotations, images))
    if not dataset.images:
        raise DataError(f"{annotations}: has no pictures")
    return dataset.only(classes) if classes else dataset


def train_loader(config: TrainConfig, dataset: CocoDataset, *, masks: bool = False) -> Loader:
    """Shuffled, augmented batches: a function of the seed and the step; of each the rank's rows."""
    data, world = config.data, ranks.current()
    low, high = (max(16, round(data.short_side * factor)) for factor in data.scale_jitter)
    augmentation = Augmentation(
        flip=data.flip,
        short_side_range=None if low == high else (low, high),
        short_sides=data.short_sides or ((low,) if low == high else ()),
        per_batch=bool(data.short_sides),
        brightness=data.brightness,
        contrast=data.contrast,
        saturation=data.saturation,
    )
    return Loader(
        dataset,
        config.batch_size,
        seed=config.seed,
        resize=Resize(data.short_side, data.long_side, data.resize),
        augmentation=augmentation,
        repeats=SAMPLINGS[data.sampling](dataset, data.repeat_threshold),
        skip_empty=data.skip_empty,
        masks=masks,
        multiple=data.size_multiple,
        most_groups=data.groups,
        cache_bytes=_cache_mb(config) << 20,
        part=(world.rank, world.size),
    )


def _cache_mb(config: TrainConfig) -> int:
    """A rank's: those that are threads share the process's memory."""
    world = ranks.current()
    return config.data.cache_mb // (world.size if world.backend == "local" else 1)


def _input(config: TrainConfig) -> InputConfig:
    data = config.data
    return InputConfig(data.short_side, data.long_side, data.size_multiple, data.resize)


def val_loader(config: TrainConfig, dataset: CocoDataset, model: Any) -> Loader:
    """Batches to measure with."""
    return _input(config).loader(
        dataset, config.measured_batch, _cache_mb(config), masks=has_masks(model)
    )


def make_optimizer(config: OptimizerConfig, model: Any) -> optim.SGD | optim.AdamW:
    """The optimiser of a model's weights; biases and norms are not decayed."""
    groups = optim.decay_groups(model.parameters(), config.weight_decay)
    if config.name == "adamw":
        return optim.AdamW(groups)
    return optim.SGD(groups, momentum=config.momentum, nesterov=config.nesterov)


def assemble(config: TrainConfig, show: Display) -> Trainer:
    """Everything a training needs, told to the person who starts it.

    Where there are many ranks each calls this (training/devices.py); what one refuses, all do.
    """
    size = ranks.current().size
    if config.devices != size:
        raise DataError(
            f"config: devices={config.devices}, but there {'is' if size == 1 else 'are'} {size} "
            f"rank{'' if size == 1 else 's'} (`megbrain train` or training.devices starts them)"
        )
    train, val, model, options = together(lambda: _opened(config, show))
    if config.fit_batch:
        sharing = sharing_host()
        config = first(lambda: _with_batch(config, train, val, model, show, sharing))
    return together(lambda: _assembled(config, train, val, model, options, show))


def _opened(
    config: TrainConfig, show: Display
) -> tuple[CocoDataset, CocoDataset | None, Any, dict[str, Any]]:
    """The data sets, and the detector that fits them with the options of its preset."""
    data = config.data
    train = open_data(data.train, data.train_images, "data.train", data.classes)
    val = open_data(data.val, data.val_images, "data.val", data.classes) if data.val else None
    if val is not None and val.class_names != train.class_names:
        raise DataError(
            f"{data.val}: its classes {list(val.class_names)} are not those of {data.train}: "
            f"{list(train.class_names)}"
        )
    options = _model_options(config, train)
    model = make_model(config.model.preset, options, len(train.class_names), config.seed)
    nn.sync_batch_norms(model)
    if config.best_by.startswith("segm_") and not has_masks(model):
        raise DataError(f"config: best_by={config.best_by} expects a model.mask, found none")
    if config.model.weights:
        load_weights(model, config.model.weights, config.model.leave_out, show.message)
    if config.model.freeze_at:
        freeze(model, config.model, show.message)
    return train, val, model, options


def _assembled(
    config: TrainConfig,
    train: CocoDataset,
    val: CocoDataset | None,
    model: Any,
    options: dict[str, Any],
    show: Display,
) -> Trainer:
    data = config.data
    nn.sync_batch_norms(model, norm_group(config))
    loader = train_loader(config, train, masks=has_masks(model))
    parts = _parts(config, train, val, loader, model, options)
    weights = sum(p.value.size for p in model.parameters())
    classes = ", ".join(train.class_names[:10]) + (", ..." if len(train.class_names) > 10 else "")
    show.message(f"model: {config.model.preset}, {weights:,} weights, {options}")
    show.message(f"classes ({len(train.class_names)}): {classes}")
    show.message(loader.describe())
    own = float(np.median([min(image.height, image.width) for image in train.images]))
    if data.short_side > _ENLARGED * own:
        show.message(
            f"note: pictures are enlarged from {own:g} pixels (median of the shorter sides) to "
            f"data.short_side={data.short_side}; a smaller one is faster"
        )
    needed = len(loader.signatures())
    if needed > config.signatures:
        show.message(
            f"warning: {needed} sizes of batch, but signatures={config.signatures} are kept: some "
            f"steps will be compiled again and again; signatures={needed} keeps all"
        )
    show.message(f"{parts.steps} steps of {config.step_images} pictures{_several(config)}")
    if config.devices > 1:
        show.message(_shared(config))
    show.message(describe(config, parts.steps))
    trainer = Trainer(config, parts, show)
    if config.memory_limit is not None:
        keep_within(trainer, config.memory_limit)
    return trainer


def _with_batch(
    config: TrainConfig,
    train: CocoDataset,
    val: CocoDataset | None,
    model: Any,
    show: Display,
    sharing: int,
) -> TrainConfig:
    """The configuration with the batch that fits the memory of every device.

    sharing: devices that share this host's.
    """
    single = replace(config, batch_size=1)
    loader = train_loader(single, train, masks=has_masks(model))
    measured = None if val is None else val_loader(single, val, model)
    step = step_of(config, model, make_optimizer(config.optimizer, model))
    validation = ValidationLoss(model).function if config.val_loss_images else None
    detect = Detecting(model).function

    def programs(count: int) -> list[Program]:
        batches = _blank(loader, count * config.devices)
        batches.sort(key=lambda b: (-b["images"].size, -b["boxes"].size))
        pictures = replace(config, batch_size=count * config.devices).measured_batch
        seen = [] if measured is None else _blank(measured, pictures)
        return [*step_programs(step, batches), *measuring_programs(validation, detect, seen)]

    images = min(loader.images_per_epoch, _LARGEST_STEP) // config.accumulate
    most = max(1, images // config.devices)
    found = fit_batch(config, step.state_bytes(), programs, most, show, sharing)
    return replace(found, batch_size=found.batch_size * config.devices)


def _shared(config: TrainConfig) -> str:
    """How devices share a batch."""
    size = config.devices
    counts = {len(ranks.rows_of(config.batch_size, rank, size)) for rank in range(size)}
    each = " or ".join(map(str, sorted(counts)))
    kind = {"local": "logical devices", "mpi": "processes"}[ranks.current().backend]
    norms = {"all": "all of the batch", "local": "each device's own"}.get(
        config.bn_size, f"{config.bn_size} together"
    )
    return f"{size} {kind}, each with {each} pictures of a batch; batch norm over {norms}"


def _several(config: TrainConfig) -> str:
    """What accumulation does to the losses, where there is any."""
    if config.accumulate == 1:
        return ""
    return (
        f" ({config.accumulate} batches of {config.batch_size}): gradients are the batches' mean; "
        "losses are divided by each batch's own counts, norms use its own moments"
    )


def _model_options(config: TrainConfig, train: CocoDataset) -> dict[str, Any]:
    """The options given, and anchor sizes from the data unless they were.

    The scale that decides from which level a box is pooled grows with the anchors.
    """
    options = dict(config.model.options)
    if "num_classes" in options:
        raise DataError(
            f"config: model.num_classes is not a setting: {config.data.train} gives "
            f"{len(train.class_names)} classes; data.classes names fewer"
        )
    preset = model_config(config.model.preset, options)
    if preset.fit_anchors and "anchor_sizes" not in options:
        resize = Resize(config.data.short_side, config.data.long_side)
        sizes = anchor_sizes(train, resize, len(preset.anchor_sizes))
        options["anchor_sizes"] = list(sizes)
        if "canonical_scale" not in options:
            scale = preset.canonical_scale * sizes[0] / preset.anchor_sizes[0]
            options["canonical_scale"] = round(scale, 1)
    return options


def _parts(
    config: TrainConfig,
    train: CocoDataset,
    val: CocoDataset | None,
    loader: Loader,
    model: Any,
    options: dict[str, Any],
) -> Parts:
    data = config.data
    images = loader.images_per_epoch
    steps = total_steps(config, images)
    measuring: dict[str, Any] = {}
    if val is not None:
        measured = val_loader(config, val, model)
        part = ranks.current().rank, ranks.current().size
        detecting = Detecting(model, config.signatures)

        def validation() -> Iterable[Batch]:
            return full_batches(measured, config.val_loss_images, part)

        def evaluate() -> dict[str, Any]:
            found = gathered(detect_all(detecting, measured, workers=data.workers, part=part))

            def scored() -> dict[str, Any]:
                values = figures(found)
                draw_measured(found, values, Path(config.output))
                return values

            return first(scored)

        measuring |= {
            "evaluate": evaluate,
            "detect": detecting.function,
            "largest_measured": lambda: _blank(measured),
        }
        if config.val_loss_images:
            measuring["validation"] = validation
    extra = {
        "classes": list(train.class_names),
        "category_ids": [category.id for category in train.categories],
        "model": {"preset": config.model.preset, "options": options},
        "input": asdict(_input(config)),
    }
    return Parts(
        model=model,
        optimizer=make_optimizer(config.optimizer, model),
        schedule=learning_rates(config, steps),
        batches=lambda start, stop: closing(loader.batches(start, stop, workers=data.workers)),
        steps=steps,
        extra=extra,
        largest=lambda: _blank(loader),
        epoch_steps=images / config.step_images,
        **measuring,
    )


def _blank(loader: Loader, count: int = 0) -> list[Batch]:
    """The rank's rows of batches of the largest sizes; of `count` pictures, or as it takes them."""
    return [loader.blank(signature) for signature in loader.largest_signatures(count)]
