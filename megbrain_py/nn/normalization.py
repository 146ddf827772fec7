"""Normalisation layers: BatchNorm2d (and frozen), LayerNorm, GroupNorm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megbrain_py import functional as F
from megbrain_py import ranks
from megbrain_py.graph import Var
from megbrain_py.nn.mode import current_mode
from megbrain_py.nn.module import Module
from megbrain_py.parameter import Parameter


class BatchNorm2d(Module):
    """Batch norm over all axes but 1; torch's meaning of momentum and of the running variance.

    While a training graph is built (`train_mode`) the batch's moments are used and the new running
    statistics are recorded; otherwise, and when it was frozen, the running statistics are used.
    group: ranks whose batches are taken together for that (docs/distributed.md); two_pass: by two
    collectives, as MegDet's paper has it.
    """

    def __init__(
        self,
        channels: int,
        *,
        momentum: float = 0.1,
        eps: float = 1e-5,
        group: ranks.Group | None = None,
        two_pass: bool = False,
    ) -> None:
        self.weight = Parameter(np.ones(channels, np.float32))
        self.bias = Parameter(np.zeros(channels, np.float32))
        self.running_mean = Parameter(np.zeros(channels, np.float32), trainable=False)
        self.running_var = Parameter(np.ones(channels, np.float32), trainable=False)
        self.momentum = momentum
        self.eps = eps
        self.group = group
        self.two_pass = two_pass

    def forward(self, x: Var) -> Var:
        mode = None if self.frozen else current_mode()
        mean: Var = self.running_mean
        var: Var = self.running_var
        if mode is not None:  # a module used twice continues from its first update
            mean = mode.updates.get(self.running_mean, mean)
            var = mode.updates.get(self.running_var, var)
        y, mean, var = F.batch_norm(
            x,
            self.weight,
            self.bias,
            mean,
            var,
            training=mode is not None,
            momentum=self.momentum if mode is None or mode.momentum is None else mode.momentum,
            eps=self.eps,
            group=self.group,
            two_pass=self.two_pass,
        )
        if mode is not None:
            mode.updates[self.running_mean] = mean
            mode.updates[self.running_var] = var
        return y


def sync_batch_norms(
    module: Module, group: ranks.Group | None = None, *, two_pass: bool = False
) -> None:
    """Let every BatchNorm2d in `module` take its moments over the ranks of `group` (None: all).

    What torch's SyncBatchNorm.convert_sync_batchnorm does; parameters and names stay.
    """
    for inner in module.modules():
        if isinstance(inner, BatchNorm2d):
            inner.group = ranks.everyone() if group is None else group
            inner.two_pass = two_pass


class FrozenBatchNorm2d(Module):
    """Batch norm whose statistics and affine values never change, in training as well.

    The usual choice for detectors on pretrained backbones with small batches. The state has the
    names of BatchNorm2d.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        self.weight = Parameter(np.ones(channels, np.float32), trainable=False)
        self.bias = Parameter(np.zeros(channels, np.float32), trainable=False)
        self.running_mean = Parameter(np.zeros(channels, np.float32), trainable=False)
        self.running_var = Parameter(np.ones(channels, np.float32), trainable=False)
        self.eps = eps

    def requires_grad(self, trainable: bool) -> None:
        """Frozen for good: nothing changes."""

    def forward(self, x: Var) -> Var:
        y, _, _ = F.batch_norm(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            training=False,
            eps=self.eps,
        )
        return y


class LayerNorm(Module):
    """Normalises over the last axes, whose sizes are `shape`."""

    def __init__(self, shape: int | Sequence[int], *, eps: float = 1e-5) -> None:
        sizes = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        self.weight = Parameter(np.ones(sizes, np.float32))
        self.bias = Parameter(np.zeros(sizes, np.float32))
        self.eps = eps

    def forward(self, x: Var) -> Var:
        return F.layer_norm(x, self.weight, self.bias, eps=self.eps)


class GroupNorm(Module):
    """Normalises each image over groups of channels: x `[N, channels, ...]`."""

    def __init__(self, groups: int, channels: int, *, eps: float = 1e-5) -> None:
        if channels % groups:
            raise ValueError(f"GroupNorm: {channels} channels in {groups} groups")
        self.groups = groups
        self.weight = Parameter(np.ones(channels, np.float32))
        self.bias = Parameter(np.zeros(channels, np.float32))
        self.eps = eps

    def forward(self, x: Var) -> Var:
        return F.group_norm(x, self.groups, self.weight, self.bias, eps=self.eps)
