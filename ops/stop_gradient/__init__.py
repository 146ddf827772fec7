"""stop_gradient: the value as it is, through which no gradient flows."""

from megbrain_py.ops.stop_gradient.stop_gradient import stop_gradient as stop_gradient
