"""Elementwise functions of two operands, with numpy's broadcasting."""

from megbrain_py.ops.binary.binary import add as add
from megbrain_py.ops.binary.binary import div as div
from megbrain_py.ops.binary.binary import equal as equal
from megbrain_py.ops.binary.binary import greater as greater
from megbrain_py.ops.binary.binary import greater_equal as greater_equal
from megbrain_py.ops.binary.binary import less as less
from megbrain_py.ops.binary.binary import less_equal as less_equal
from megbrain_py.ops.binary.binary import logical_and as logical_and
from megbrain_py.ops.binary.binary import logical_or as logical_or
from megbrain_py.ops.binary.binary import maximum as maximum
from megbrain_py.ops.binary.binary import minimum as minimum
from megbrain_py.ops.binary.binary import mul as mul
from megbrain_py.ops.binary.binary import not_equal as not_equal
from megbrain_py.ops.binary.binary import pow as pow
from megbrain_py.ops.binary.binary import sub as sub
