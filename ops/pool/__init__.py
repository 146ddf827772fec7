"""Pooling: maximum and averages over windows."""

from megbrain_py.ops.pool.average import adaptive_avg_pool2d as adaptive_avg_pool2d
from megbrain_py.ops.pool.average import avg_pool2d as avg_pool2d
from megbrain_py.ops.pool.average import global_avg_pool2d as global_avg_pool2d
from megbrain_py.ops.pool.maximum import max_pool2d as max_pool2d
