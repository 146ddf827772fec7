"""RoI Align over all levels of a feature pyramid in one call, and its gradient."""

from megbrain_py.ops.roi_align.roi_align import roi_align as roi_align
