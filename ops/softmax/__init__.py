"""Softmax and its logarithm over any axis."""

from megbrain_py.ops.softmax.softmax import log_softmax as log_softmax
from megbrain_py.ops.softmax.softmax import softmax as softmax
