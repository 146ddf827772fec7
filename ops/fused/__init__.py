"""Several elementwise operators as one: made by passes/chain.py only."""

from megbrain_py.ops.fused.fused import DTYPES as DTYPES
from megbrain_py.ops.fused.fused import KERNELS as KERNELS
from megbrain_py.ops.fused.fused import Fused as Fused
from megbrain_py.ops.fused.fused import Step as Step
