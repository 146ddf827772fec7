"""From a configuration to a Trainer: data, detector, optimiser, schedule, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from megbrain_py import optim
from megbrain_py.data import Augmentation, CocoDataset, Loader, Resize, read_coco
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
from megbrain_py.training.progress import Display
from megbrain_py.training.runs import find_checkpoint, image_folder
from megbrain_py.training.step import Batch
from megbrain_py.training.trainer import Parts, Trainer

Report = Callable[[str], None]

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
    """Shuffled, augmented batches: a function of the seed and the step."""
    data = config.data
    low, high = (max(16, round(data.short_side * factor)) for factor in data.scale_jitter)
    augmentation = Augmentation(
        flip=data.flip,
        short_side_range=None if low == high else (low, high),
        short_sides=(low,) if low == high else (),
        brightness=data.brightness,
        contrast=data.contrast,
        saturation=data.saturation,
    )
    return Loader(
        dataset,
        config.batch_size,
        seed=config.seed,
        resize=Resize(data.short_side, data.long_side),
        augmentation=augmentation,
        skip_empty=data.skip_empty,
        masks=masks,
        multiple=data.size_multiple,
        most_groups=data.groups,
        cache_bytes=data.cache_mb << 20,
    )


def learning_rates(config: OptimizerConfig, rate: float, steps: int) -> optim.Schedule:
    """The schedule: `rate` is that of a step; drops and warm-up are placed in `steps` steps."""
    if config.schedule == "cosine":
        schedule = optim.cosine(rate, steps)
    elif config.schedule == "multistep":
        milestones = sorted({max(1, round(share * steps)) for share in config.drops})
        schedule = optim.multi_step(rate, milestones, config.drop_factor)
    else:
        schedule = optim.constant(rate)
    rising = min(config.warmup_steps, steps // 5)
    if not rising:
        return schedule
    kind: Any = config.warmup
    return optim.warmup(schedule, rising, config.warmup_from, kind)


def make_optimizer(config: OptimizerConfig, model: Any) -> optim.SGD | optim.AdamW:
    """The optimiser of a model's weights; biases and norms are not decayed."""
    groups = optim.decay_groups(model.parameters(), config.weight_decay)
    if config.name == "adamw":
        return optim.AdamW(groups)
    return optim.SGD(groups, momentum=config.momentum, nesterov=config.nesterov)


def load_weights(model: Any, path: str, report: Report) -> None:
    """Start from a checkpoint's, or any safetensors file's, weights that fit by name and shape."""
    from megbrain_py import nn

    if Path(path).is_dir() or Path(path).suffix != ".safetensors":
        given = dict(find_checkpoint(path)[1].model)
    else:
        given = nn.load(path)
        if any(name.startswith("model/") for name in given):
            given = dict(find_checkpoint(path)[1].model)
    own = model.named_state()
    fitting = {n: v for n, v in given.items() if n in own and own[n].shape == v.shape}
    if not fitting:
        raise DataError(f"config: model.weights: nothing in {path} fits this model")
    model.load_state_dict(fitting, strict=False)
    report(f"weights: {len(fitting)} of {len(own)} arrays from {path}")


def assemble(config: TrainConfig, show: Display) -> Trainer:
    """Everything a training needs, told to the person who starts it."""
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
    loader = train_loader(config, train, masks=has_masks(model))
    if config.model.weights:
        load_weights(model, config.model.weights, show.message)
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
    show.message(f"{parts.steps} steps of {config.batch_size}; {config.rate_text()}")
    return Trainer(config, parts, show)


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
    if "anchor_sizes" not in options:
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
    wanted = InputConfig(data.short_side, data.long_side, data.size_multiple)
    images = sum(len(group.images) for group in loader.groups)
    steps = config.total_steps(images)
    measuring: dict[str, Any] = {}
    if val is not None:
        val_loader = wanted.loader(val, config.batch_size, data.cache_mb, masks=has_masks(model))
        detecting = Detecting(model, config.signatures)

        def validation() -> Iterable[Batch]:
            return full_batches(val_loader, config.val_loss_images)

        def evaluate() -> dict[str, Any]:
            return figures(detect_all(detecting, val_loader, workers=data.workers))

        measuring["evaluate"] = evaluate
        if config.val_loss_images:
            measuring["validation"] = validation
    extra = {
        "classes": list(train.class_names),
        "category_ids": [category.id for category in train.categories],
        "model": {"preset": config.model.preset, "options": options},
        "input": asdict(wanted),
    }
    return Parts(
        model=model,
        optimizer=make_optimizer(config.optimizer, model),
        schedule=learning_rates(config.optimizer, config.scaled_rate, steps),
        batches=lambda start, stop: closing(loader.batches(start, stop, workers=data.workers)),
        steps=steps,
        extra=extra,
        epoch_steps=images / config.batch_size,
        **measuring,
    )
