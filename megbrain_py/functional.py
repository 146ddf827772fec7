"""The functions that build graphs: one import line for each public function."""

from megbrain_py.graph import register_sugar
from megbrain_py.ops.binary import add as add
from megbrain_py.ops.binary import div as div
from megbrain_py.ops.binary import equal as equal
from megbrain_py.ops.binary import greater as greater
from megbrain_py.ops.binary import greater_equal as greater_equal
from megbrain_py.ops.binary import less as less
from megbrain_py.ops.binary import less_equal as less_equal
from megbrain_py.ops.binary import maximum as maximum
from megbrain_py.ops.binary import minimum as minimum
from megbrain_py.ops.binary import mul as mul
from megbrain_py.ops.binary import pow as pow
from megbrain_py.ops.binary import sub as sub
from megbrain_py.ops.conv import conv2d as conv2d
from megbrain_py.ops.conv import conv_transpose2d as conv_transpose2d
from megbrain_py.ops.movement import reshape as reshape
from megbrain_py.ops.reduce import broadcast_to as broadcast_to
from megbrain_py.ops.reduce import sum as sum

register_sugar(
    add=add,
    div=div,
    greater=greater,
    greater_equal=greater_equal,
    less=less,
    less_equal=less_equal,
    mul=mul,
    pow=pow,
    sub=sub,
)
