"""Layer norm over the last axes."""

from megbrain_py.ops.layer_norm.layer_norm import layer_norm as layer_norm
