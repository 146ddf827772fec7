"""Random values as functions of a key."""

from megbrain_py.ops.random.random import dropout as dropout
from megbrain_py.ops.random.random import normal as normal
from megbrain_py.ops.random.random import uniform as uniform
