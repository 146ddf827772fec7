"""Pooling of boxes over all levels of a feature pyramid in one call, its gradients and inverse."""

from megbrain_py.ops.roi_pooling.align import roi_align as roi_align
from megbrain_py.ops.roi_pooling.levels import roi_levels as roi_levels
from megbrain_py.ops.roi_pooling.precise import prroi_pool as prroi_pool
from megbrain_py.ops.roi_pooling.quantised import roi_pool as roi_pool
from megbrain_py.ops.roi_pooling.unpool import prroi_unpool as prroi_unpool
