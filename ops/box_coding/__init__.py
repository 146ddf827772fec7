"""Boxes as offsets from other boxes and back; clipping to the image."""

from megbrain_py.ops.box_coding.box_coding import clip_boxes as clip_boxes
from megbrain_py.ops.box_coding.box_coding import decode_boxes as decode_boxes
from megbrain_py.ops.box_coding.box_coding import encode_boxes as encode_boxes
