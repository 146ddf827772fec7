"""Elementwise functions of one operand."""

from megbrain_py.ops.unary.activations import gelu as gelu
from megbrain_py.ops.unary.activations import leaky_relu as leaky_relu
from megbrain_py.ops.unary.activations import log_sigmoid as log_sigmoid
from megbrain_py.ops.unary.activations import relu as relu
from megbrain_py.ops.unary.activations import sigmoid as sigmoid
from megbrain_py.ops.unary.activations import silu as silu
from megbrain_py.ops.unary.activations import softplus as softplus
from megbrain_py.ops.unary.activations import tanh as tanh
from megbrain_py.ops.unary.unary import abs as abs
from megbrain_py.ops.unary.unary import clip as clip
from megbrain_py.ops.unary.unary import erf as erf
from megbrain_py.ops.unary.unary import exp as exp
from megbrain_py.ops.unary.unary import floor as floor
from megbrain_py.ops.unary.unary import isfinite as isfinite
from megbrain_py.ops.unary.unary import isnan as isnan
from megbrain_py.ops.unary.unary import log as log
from megbrain_py.ops.unary.unary import logical_not as logical_not
from megbrain_py.ops.unary.unary import neg as neg
from megbrain_py.ops.unary.unary import round as round
from megbrain_py.ops.unary.unary import rsqrt as rsqrt
from megbrain_py.ops.unary.unary import sign as sign
from megbrain_py.ops.unary.unary import sqrt as sqrt
from megbrain_py.ops.unary.unary import square as square
