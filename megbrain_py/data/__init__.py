"""Data sets in COCO format: reading, checking, loading and scoring."""

from megbrain_py.data.check import CheckReport as CheckReport
from megbrain_py.data.check import Finding as Finding
from megbrain_py.data.check import check_data as check_data
from megbrain_py.data.check import format_report as format_report
from megbrain_py.data.coco import Annotation as Annotation
from megbrain_py.data.coco import Category as Category
from megbrain_py.data.coco import CocoDataset as CocoDataset
from megbrain_py.data.coco import ImageEntry as ImageEntry
from megbrain_py.data.coco import Polygons as Polygons
from megbrain_py.data.coco import RunLengths as RunLengths
from megbrain_py.data.coco import decode_mask as decode_mask
from megbrain_py.data.coco import read_coco as read_coco
from megbrain_py.data.coco import run_lengths as run_lengths
from megbrain_py.data.evaluation import NUMBERS as NUMBERS
from megbrain_py.data.evaluation import Detections as Detections
from megbrain_py.data.evaluation import Evaluation as Evaluation
from megbrain_py.data.evaluation import Kind as Kind
from megbrain_py.data.evaluation import evaluate as evaluate
from megbrain_py.data.evaluation import write_results as write_results
from megbrain_py.data.images import read_image as read_image
from megbrain_py.data.loader import Batches as Batches
from megbrain_py.data.loader import Loader as Loader
from megbrain_py.data.loader import Signature as Signature
from megbrain_py.data.transforms import Augmentation as Augmentation
from megbrain_py.data.transforms import Resize as Resize
