"""TrainConfig: every setting of a training with its unit, default and allowed values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from megbrain_py.data.evaluation import NUMBERS
from megbrain_py.errors import DataError
from megbrain_py.planning.sizes import parse_size

MEASURED_TOGETHER = 8  # pictures; whatever the number of devices, so that figures are the same
BEST_BY = (*NUMBERS, "segm_AP", "segm_AP50", "val_loss")


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """A dataclass field that knows its meaning and its limits (read by training/settings.py)."""
    metadata = {"help": help, "low": low, "high": high, "choices": tuple(choices)}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DataConfig:
    """Which pictures, and how they are prepared."""

    train: str = setting("", "COCO annotation file to learn from")
    train_images: str = setting("", "folder of its pictures; empty: looked for beside the file")
    val: str = setting("", "COCO annotation file to measure on; empty: no measuring")
    val_images: str = setting("", "folder of its pictures; empty: looked for beside the file")
    classes: tuple[str, ...] = setting(
        (), "names of the classes to learn, in this order; none: all that the data has"
    )
    short_side: int = setting(800, "pixels of a picture's shorter side", low=16)
    long_side: int = setting(1333, "most pixels of a picture's longer side", low=16)
    resize: Literal["pillow", "torchvision"] = setting(
        "pillow", "pillow averages when it shrinks; torchvision: exactly as its detectors do"
    )
    scale_jitter: tuple[float, ...] = setting(
        (1.0, 1.0), "training: short_side is times a factor drawn between these", low=0.1
    )
    short_sides: tuple[int, ...] = setting(
        (), "training: one of these is drawn for each batch, instead of scale_jitter", low=16
    )
    flip: float = setting(0.5, "training: probability that a picture is mirrored", low=0, high=1)
    brightness: float = setting(0.0, "training: times 1 -+ this much, drawn", low=0, high=1)
    contrast: float = setting(0.0, "training: times 1 -+ this much, drawn", low=0, high=1)
    saturation: float = setting(0.0, "training: times 1 -+ this much, drawn", low=0, high=1)
    skip_empty: bool = setting(False, "training: leave out pictures without objects")
    sampling: str = setting(
        "plain", "training: how often a picture comes",
        choices=("plain", "repeat_factor", "class_aware"),
    )  # fmt: skip
    repeat_threshold: float = setting(
        0.001, "repeat_factor: classes in a smaller share of the pictures come more often", low=0,
        high=1,
    )  # fmt: skip
    size_multiple: int = setting(
        32, "batches are padded to multiples of this many pixels; larger: fewer sizes", low=32
    )
    groups: int = setting(4, "most shapes of pictures that share batches", low=1)
    cache_mb: int = setting(256, "resized pictures kept in memory, MiB", low=0)
    workers: int = setting(2, "threads that read pictures; 0: read in the training thread", low=0)


@dataclass(frozen=True)
class ModelConfig:
    """Which detector. Keys besides these are options of the preset's own configuration."""

    preset: str = setting("laptop", "a name that models/faster_rcnn knows")
    weights: str = setting(
        "", "run, checkpoint, .pth or safetensors file to start from; empty: from scratch"
    )
    leave_out: tuple[str, ...] = setting(
        (), "parts, such as roi_heads.box_predictor, that do not take part in `weights`"
    )
    freeze_at: int = setting(
        0, "parts of the backbone that stay as they are: 1 the stem, 2 also C2, ...; 0: none", low=0
    )
    options: Mapping[str, Any] = setting({}, "options of the preset by name")


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights are changed. The rate is given for a batch of 16 and scaled to the batch."""

    name: str = setting("sgd", "which optimiser", choices=("sgd", "adamw"))
    rate: float = setting(0.02, "learning rate for a batch of 16 pictures", low=0)
    momentum: float = setting(0.9, "of SGD", low=0, high=1)
    nesterov: bool = setting(False, "look ahead along the momentum (SGD)")
    weight_decay: float = setting(1e-4, "pull of the weights towards zero", low=0)
    schedule: str = setting(
        "multistep", "how the rate falls (normal, long: MegDet's)",
        choices=("multistep", "normal", "long", "cosine", "constant"),
    )  # fmt: skip
    drops: tuple[float, ...] = setting(
        (8 / 11, 10 / 11), "multistep: fractions of the training at which the rate drops", low=0,
        high=1,
    )  # fmt: skip
    drop_factor: float = setting(0.1, "multistep: what a drop multiplies by", low=0, high=1)
    warmup_steps: int = setting(500, "steps of rising rate; at most a fifth of all", low=0)
    warmup: str = setting("linear", "shape of the rise", choices=("linear", "exponential"))
    warmup_from: float = setting(0.01, "fraction of the rate at step 0", low=1e-6, high=1)
    warmup_pictures: int = setting(
        0, "the rise starts at the rate of so many pictures (MegDet: 16); 0: at warmup_from", low=0
    )
    clip_norm: float = setting(0.0, "largest norm of all gradients together; 0: no limit", low=0)
    clip_value: float = setting(0.0, "largest element of a gradient, cut first; 0: no limit", low=0)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training: two runs with equal settings end bit-equal."""

    output: str = setting("runs/train", "folder of the run")
    seed: int = setting(0, "decides initial weights, order, augmentation and sampling")
    epochs: float = setting(
        0.0, "passes over the training pictures, when steps is 0; 0: 18 if long, else 11", low=0
    )
    steps: int = setting(0, "steps in all; 0: as epochs says", low=0)
    batch_size: int = setting(2, "pictures that are computed together, by all devices", low=1)
    fit_batch: bool = setting(
        False, "take the largest batch_size whose step fits `memory`, or the memory that is free"
    )
    memory: str = setting(
        "", "most memory of a device's weights, optimiser and scratch arena, such as 3GiB, or a "
        "share of the arena, such as 0.5; values are made again to keep it; empty: no limit"
    )  # fmt: skip
    devices: int = setting(
        1, "logical devices that share each batch; processes of MPI count themselves", low=1
    )
    bn_size: str = setting(
        "all", "pictures whose batch norms share moments: all of a batch, local (those of a device)"
        " or a number"
    )  # fmt: skip
    accumulate: int = setting(1, "batches whose gradients make one step", low=1)
    ema: float = setting(
        0.0,
        "decay of the averaged weights that are measured and used; 0: none",
        low=0,
        high=0.999999,
    )
    precise_bn: int = setting(
        0, "training pictures from which batch norms are computed anew to measure; 0: none", low=0
    )
    checkpoint_every: int = setting(200, "steps between checkpoints", low=1)
    keep: int = setting(3, "checkpoints that are kept", low=1)
    eval_every: int = setting(0, "steps between measurings; 0: once at the end", low=0)
    eval_batch: int = setting(
        0, f"pictures that a device measures together; 0: batch_size, at most {MEASURED_TOGETHER}",
        low=0,
    )  # fmt: skip
    best_by: str = setting("AP", "figure by which best.safetensors is chosen", choices=BEST_BY)
    patience: int = setting(
        0, "measurings without a better best_by after which the training ends; 0: never", low=0
    )
    val_loss_images: int = setting(
        200, "pictures over which the validation loss is taken; 0: none", low=0
    )
    log_every: int = setting(1, "steps between lines of the log", low=1)
    tensorboard: bool = setting(False, "also write event files for TensorBoard")
    signatures: int = setting(
        16, "compiled step functions, one for each size of batch, that are kept", low=1
    )
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        if (
            len(self.data.scale_jitter) != 2
            or self.data.scale_jitter[0] > self.data.scale_jitter[1]
        ):
            raise DataError(
                "config: data.scale_jitter expects two factors, smaller first, found "
                f"{list(self.data.scale_jitter)}"
            )
        if self.data.short_side > self.data.long_side:
            raise DataError(
                f"config: data.short_side expects at most data.long_side = {self.data.long_side}, "
                f"found {self.data.short_side}"
            )

        limit = self.memory_limit
        if self.fit_batch and isinstance(limit, float):
            raise DataError(f"config: fit_batch expects memory in bytes, found {self.memory}")
        if self.data.short_sides and self.data.scale_jitter != (1.0, 1.0):
            raise DataError("config: give data.short_sides or data.scale_jitter, not both")
        if self.bn_size not in ("all", "local") and not (
            self.bn_size.isdecimal() and int(self.bn_size)
        ):
            raise DataError(
                "config: bn_size expects all, local or a number of pictures, found "
                f"{self.bn_size!r}"
            )
        if self.patience and not self.eval_every:
            raise DataError("config: patience expects eval_every of at least 1, found 0")
        if self.model.leave_out and not self.model.weights:
            raise DataError("config: model.leave_out expects model.weights, found none")
        if self.best_by == "val_loss" and not self.val_loss_images:
            raise DataError(
                "config: best_by=val_loss expects val_loss_images of at least 1, found 0"
            )

    @property
    def measured_batch(self) -> int:
        """Pictures that a device measures together."""
        return self.eval_batch or min(self.batch_size, MEASURED_TOGETHER)

    @property
    def memory_limit(self) -> int | float | None:
        """`memory` as bytes, or as a share of the arena; DataError when it is neither."""
        if not self.memory:
            return None
        is_share = re.fullmatch(r"[0-9]*\.[0-9]*", self.memory.strip()) is not None
        try:
            limit = float(self.memory) if is_share else parse_size(self.memory)
        except ValueError:
            limit = 0
        if limit <= 0 or (is_share and limit > 1):
            raise DataError(
                "config: memory expects bytes such as 3GiB, or a share of at most 1.0 such as 0.5, "
                f"found {self.memory!r}"
            )
        return limit

    @property
    def step_images(self) -> int:
        """Pictures that make one step of the optimiser."""
        return self.batch_size * self.accumulate
