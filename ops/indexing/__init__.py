"""Values picked, added up and ordered by index."""

from megbrain_py.ops.indexing.batched import batched_gather as batched_gather
from megbrain_py.ops.indexing.gather import embedding as embedding
from megbrain_py.ops.indexing.gather import gather as gather
from megbrain_py.ops.indexing.gather import one_hot as one_hot
from megbrain_py.ops.indexing.gather import scatter_add as scatter_add
from megbrain_py.ops.indexing.gather import take_along_axis as take_along_axis
from megbrain_py.ops.indexing.order import argsort as argsort
from megbrain_py.ops.indexing.order import sort as sort
from megbrain_py.ops.indexing.order import top_k as top_k
