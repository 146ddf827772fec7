"""Masks of detected objects (He et al. 2017, Mask R-CNN)."""

from megbrain_py.models.mask.mask_generator import MaskGenerator as MaskGenerator
from megbrain_py.models.mask.mask_generator import MaskGeneratorConfig as MaskGeneratorConfig
from megbrain_py.models.mask.mask_generator import Windows as Windows
from megbrain_py.models.mask.mask_generator import generator_loss as generator_loss
from megbrain_py.models.mask.mask_head import MaskHead as MaskHead
from megbrain_py.models.mask.mask_head import MaskHeadConfig as MaskHeadConfig
from megbrain_py.models.mask.mask_head import MaskPredictor as MaskPredictor
from megbrain_py.models.mask.mask_head import mask_loss as mask_loss
from megbrain_py.models.mask.mask_head import of_class as of_class
