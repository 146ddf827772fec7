"""Reductions over axes, and broadcasting."""

from megbrain_py.ops.reduce.functions import all as all
from megbrain_py.ops.reduce.functions import any as any
from megbrain_py.ops.reduce.functions import argmax as argmax
from megbrain_py.ops.reduce.functions import argmin as argmin
from megbrain_py.ops.reduce.functions import max as max
from megbrain_py.ops.reduce.functions import mean as mean
from megbrain_py.ops.reduce.functions import min as min
from megbrain_py.ops.reduce.functions import normal_axes as normal_axes
from megbrain_py.ops.reduce.functions import prod as prod
from megbrain_py.ops.reduce.functions import sum as sum
from megbrain_py.ops.reduce.reduce import broadcast_to as broadcast_to
from megbrain_py.ops.reduce.reduce import sum_to as sum_to
