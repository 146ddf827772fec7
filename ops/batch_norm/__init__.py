"""Batch norm: moments and normalise as separate nodes, gradients as per-channel maps."""

from megbrain_py.ops.batch_norm.batch_norm import batch_norm as batch_norm
from megbrain_py.ops.batch_norm.batch_norm import moments as moments
from megbrain_py.ops.batch_norm.batch_norm import moments_over as moments_over
from megbrain_py.ops.batch_norm.batch_norm import normalise as normalise
