"""Features of boxes: pooled from a pyramid, alone or with their surroundings."""

from megbrain_py.models.roi_features.context import Around as Around
from megbrain_py.models.roi_features.context import ContextConfig as ContextConfig
from megbrain_py.models.roi_features.context import ContextExtractor as ContextExtractor
from megbrain_py.models.roi_features.pooler import POOLINGS as POOLINGS
from megbrain_py.models.roi_features.pooler import Pooler as Pooler
from megbrain_py.models.roi_features.pooler import Pooling as Pooling
