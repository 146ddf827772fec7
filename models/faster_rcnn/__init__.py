"""Faster R-CNN on a feature pyramid (Ren et al. 2015, Lin et al. 2017)."""

from megbrain_py.models.faster_rcnn.config import PRESETS as PRESETS
from megbrain_py.models.faster_rcnn.config import FasterRCNNConfig as FasterRCNNConfig
from megbrain_py.models.faster_rcnn.faster_rcnn import FasterRCNN as FasterRCNN
from megbrain_py.models.faster_rcnn.roi_heads import RoIHeadsConfig as RoIHeadsConfig
