"""Overlap of boxes with the true boxes and matching, in one streaming operator."""

from megbrain_py.ops.match_boxes.match_boxes import match_boxes as match_boxes
