"""Non-maximum suppression, its soft form, and the vote of the suppressed boxes."""

from megbrain_py.ops.nms.nms import nms as nms
from megbrain_py.ops.nms.soft_nms import soft_nms as soft_nms
from megbrain_py.ops.nms.vote_boxes import vote_boxes as vote_boxes
