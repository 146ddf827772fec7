"""Matrix products: batched matmul, and the linear layer."""

from megbrain_py.ops.matmul.matmul import linear as linear
from megbrain_py.ops.matmul.matmul import matmul as matmul
