"""Non-maximum suppression: a fixed number of rows and their count, classes apart."""

from megbrain_py.ops.nms.nms import nms as nms
