"""Examples of box coding: shared boxes, offsets a class, boxes without area, huge offsets."""

from __future__ import annotations

import numpy as np

from megbrain_py import functional as F
from megbrain_py.op_testing import Case, ErrorCase, integers, normal
from megbrain_py.ops.match_boxes.cases import boxes

_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
_SIZES = np.array([[60, 90], [100, 40]], np.int32)
_FLAT = boxes(2, 7)
_FLAT[0, 2, 2] = _FLAT[0, 2, 0]  # no width

CASES = [
    Case("encode", F.encode_boxes, {"target": boxes(2, 9, seed=1), "boxes": boxes(2, 9)}, grad=()),
    Case("encode_shared", lambda target, boxes: F.encode_boxes(target, boxes, _WEIGHTS),
         {"target": boxes(2, 9, seed=1), "boxes": boxes(9)}, grad=()),
    Case("encode_shared_many", F.encode_boxes,
         {"target": boxes(40, 130, seed=1), "boxes": boxes(130)}, grad=()),
    Case("decode_classes_many", lambda offsets, boxes: F.decode_boxes(offsets, boxes, _WEIGHTS),
         {"offsets": normal(2, 150, 21, 4), "boxes": boxes(2, 150)}, grad=("offsets",)),
    Case("encode_flat_box", F.encode_boxes, {"target": boxes(2, 7, seed=1), "boxes": _FLAT},
         grad=()),
    Case("encode_flat_target", F.encode_boxes, {"target": _FLAT, "boxes": boxes(2, 7, seed=1)},
         grad=()),
    Case("encode_empty", F.encode_boxes, {"target": boxes(2, 0), "boxes": boxes(2, 0)}, grad=()),
    Case("decode", F.decode_boxes, {"offsets": normal(2, 9, 4), "boxes": boxes(2, 9)},
         grad=("offsets",)),
    Case("decode_shared", F.decode_boxes, {"offsets": normal(3, 5, 4), "boxes": boxes(5)},
         grad=("offsets",)),
    Case("decode_classes", lambda offsets, boxes: F.decode_boxes(offsets, boxes, _WEIGHTS),
         {"offsets": normal(2, 5, 3, 4), "boxes": boxes(2, 5)}, grad=("offsets",)),
    Case("decode_square", F.decode_boxes, {"offsets": normal(3, 3, 4), "boxes": boxes(3)},
         grad=("offsets",)),
    Case("decode_clamped", F.decode_boxes,
         {"offsets": normal(2, 40, 4, scale=4.0), "boxes": boxes(40)}, grad=("offsets",)),
    Case("decode_empty", F.decode_boxes, {"offsets": normal(0, 5, 4), "boxes": boxes(5)}, grad=()),
    Case("clip", F.clip_boxes, {"boxes": normal(2, 30, 4, scale=80.0), "image_sizes": _SIZES},
         grad=()),
    Case("clip_classes", F.clip_boxes,
         {"boxes": normal(2, 5, 3, 4, scale=80.0), "image_sizes": _SIZES}, grad=()),
    Case("clip_empty", F.clip_boxes, {"boxes": boxes(2, 0), "image_sizes": _SIZES}, grad=()),
]  # fmt: skip
ERRORS = [
    ErrorCase("rows", F.decode_boxes, {"offsets": normal(2, 9, 4), "boxes": boxes(8)},
              "decode_boxes: boxes (8, 4) must have the shape of offsets (2, 9, 4)"),
    ErrorCase("last_axis", F.encode_boxes, {"target": normal(9, 5), "boxes": boxes(9)},
              "encode_boxes: target must be [..., 4]"),
    ErrorCase("sizes", F.clip_boxes, {"boxes": boxes(2, 3), "image_sizes": integers(2, 2)},
              "clip_boxes: image_sizes must be int32[2,2]"),
]  # fmt: skip
