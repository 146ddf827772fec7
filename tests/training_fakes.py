"""A tiny model, optimiser and batches with which the trainer can be tested in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from megbrain_py import functional as F
from megbrain_py import nn
from megbrain_py.autodiff import gradients
from megbrain_py.graph import Var
from megbrain_py.parameter import Parameter
from megbrain_py.training import settings
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.parts import Parts

Batch = dict[str, np.ndarray]


class TinyModel(nn.Module):
    """Fits a scale and a shift of the pictures; keeps a running mean as batch norm does."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.scale = Parameter(rng.standard_normal((3, 1, 1)).astype(np.float32))
        self.shift = Parameter(np.zeros((3, 1, 1), np.float32))
        self.running_mean = Parameter(np.zeros((), np.float32), trainable=False)

    def losses(self, images: Var, labels: Var, **_: Var) -> dict[str, Var]:
        count = float(np.prod(images.shape))
        error = images * self.scale + self.shift - 0.5
        mean = F.sum(images) / count
        mode = nn.current_mode()
        if mode is not None:
            mode.updates[self.running_mean] = self.running_mean * 0.9 + mean * 0.1
        return {
            "loss_fit": F.sum(error * error) / count,
            "loss_size": F.sum(self.scale * self.scale) * 0.01,
        }


class Momentum:
    """SGD with momentum on the framework's own arithmetic."""

    def __init__(self, parameters: list[Parameter]) -> None:
        self.state = {p: Parameter(np.zeros(p.shape, np.float32), f"{p.name}.m", trainable=False)
                      for p in parameters}  # fmt: skip

    def updates(self, loss: Any, lr: Var) -> dict[Parameter, Var]:
        weights = list(self.state)
        if not isinstance(loss, Mapping):
            loss = dict(zip(weights, gradients(loss, weights), strict=True))
        new: dict[Parameter, Var] = {}
        for p, m in self.state.items():
            new[m] = m * 0.9 + loss[p]
            new[p] = p - new[m] * lr
        return new

    def state_dict(self) -> dict[str, np.ndarray]:
        return {m.name: m.value.copy() for m in self.state.values()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        for m in self.state.values():
            m.set(state[m.name])


def batch_of(seed: int, step: int, count: int = 2) -> Batch:
    """A batch that depends on (seed, step); its size changes every third step."""
    rng = np.random.default_rng([seed, step])
    side = 64 if step % 3 else 32
    return {
        "images": rng.standard_normal((count, 3, side, side)).astype(np.float32),
        "image_sizes": np.full((count, 2), side, np.int32),
        "boxes": np.zeros((count, 16, 4), np.float32),
        "labels": np.zeros((count, 16), np.int32),
        "box_count": np.zeros(count, np.int32),
        "image_ids": np.arange(count, dtype=np.int64) + 100 * step,
        "original_sizes": np.full((count, 2), side, np.int32),
    }


def config_of(output: Any, *overrides: str) -> TrainConfig:
    """A configuration for tests."""
    return settings.read(TrainConfig, None, [f"output={output}", "seed=3", *overrides])


def parts_of(config: TrainConfig, steps: int, **changes: Any) -> Parts:
    """Parts with the tiny model."""
    model = TinyModel()

    def batches(start: int, stop: int) -> Iterator[Batch]:
        return (batch_of(config.seed, step) for step in range(start, stop))

    chosen: dict[str, Any] = {
        "model": model,
        "optimizer": Momentum(model.parameters()),
        "schedule": lambda step: 0.05 / (1 + step),
        "batches": batches,
        "steps": steps,
        **changes,
    }
    return Parts(**chosen)
