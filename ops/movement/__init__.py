"""Values moved, not changed: reshape, transpose, concat, slice, pad."""

from megbrain_py.ops.movement.concat import concat as concat
from megbrain_py.ops.movement.concat import split as split
from megbrain_py.ops.movement.concat import stack as stack
from megbrain_py.ops.movement.reshape import expand_dims as expand_dims
from megbrain_py.ops.movement.reshape import flatten as flatten
from megbrain_py.ops.movement.reshape import reshape as reshape
from megbrain_py.ops.movement.reshape import squeeze as squeeze
from megbrain_py.ops.movement.slice import flip as flip
from megbrain_py.ops.movement.slice import getitem as getitem
from megbrain_py.ops.movement.slice import pad as pad
from megbrain_py.ops.movement.slice import slice as slice
from megbrain_py.ops.movement.slice import slice_axis as slice_axis
from megbrain_py.ops.movement.tile import repeat as repeat
from megbrain_py.ops.movement.tile import tile as tile
from megbrain_py.ops.movement.transpose import swap_axes as swap_axes
from megbrain_py.ops.movement.transpose import transpose as transpose
