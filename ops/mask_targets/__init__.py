"""What a mask head should say of a box: the object's mask, seen through the box's bins."""

from megbrain_py.ops.mask_targets.mask_targets import mask_targets as mask_targets
