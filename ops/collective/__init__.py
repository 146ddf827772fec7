"""Operators that talk to other ranks; every rank makes them in the same order."""

from megbrain_py.ops.collective.collective import all_gather as all_gather
from megbrain_py.ops.collective.collective import all_reduce as all_reduce
from megbrain_py.ops.collective.collective import all_reduce_together as all_reduce_together
from megbrain_py.ops.collective.collective import broadcast as broadcast
from megbrain_py.ops.collective.collective import reduce_scatter as reduce_scatter
from megbrain_py.ops.collective.merge_moments import merge_moments as merge_moments
