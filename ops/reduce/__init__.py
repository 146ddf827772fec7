"""Sums and their adjoint, broadcasting."""

from megbrain_py.ops.reduce.reduce import broadcast_to as broadcast_to
from megbrain_py.ops.reduce.reduce import sum as sum
from megbrain_py.ops.reduce.reduce import sum_to as sum_to
