"""Losses with fused gradients: cross-entropy, sigmoid cross-entropy, smooth L1."""

from megbrain_py.ops.losses.cross_entropy import cross_entropy as cross_entropy
from megbrain_py.ops.losses.pointwise import (
    binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
)
from megbrain_py.ops.losses.pointwise import smooth_l1 as smooth_l1
