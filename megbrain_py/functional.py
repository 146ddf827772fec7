"""The functions that build graphs: one import line for each public function."""

from megbrain_py.graph import register_sugar
from megbrain_py.ops.anchors import anchors as anchors
from megbrain_py.ops.batch_norm import batch_norm as batch_norm
from megbrain_py.ops.batch_norm import moments as moments
from megbrain_py.ops.batch_norm import moments_over as moments_over
from megbrain_py.ops.batch_norm import normalise as normalise
from megbrain_py.ops.binary import add as add
from megbrain_py.ops.binary import div as div
from megbrain_py.ops.binary import equal as equal
from megbrain_py.ops.binary import greater as greater
from megbrain_py.ops.binary import greater_equal as greater_equal
from megbrain_py.ops.binary import less as less
from megbrain_py.ops.binary import less_equal as less_equal
from megbrain_py.ops.binary import logical_and as logical_and
from megbrain_py.ops.binary import logical_or as logical_or
from megbrain_py.ops.binary import maximum as maximum
from megbrain_py.ops.binary import minimum as minimum
from megbrain_py.ops.binary import mul as mul
from megbrain_py.ops.binary import not_equal as not_equal
from megbrain_py.ops.binary import pow as pow
from megbrain_py.ops.binary import sub as sub
from megbrain_py.ops.box_coding import clip_boxes as clip_boxes
from megbrain_py.ops.box_coding import decode_boxes as decode_boxes
from megbrain_py.ops.box_coding import encode_boxes as encode_boxes
from megbrain_py.ops.cast import cast as cast
from megbrain_py.ops.collective import all_gather as all_gather
from megbrain_py.ops.collective import all_reduce as all_reduce
from megbrain_py.ops.collective import all_reduce_together as all_reduce_together
from megbrain_py.ops.collective import broadcast as broadcast
from megbrain_py.ops.collective import merge_moments as merge_moments
from megbrain_py.ops.collective import reduce_scatter as reduce_scatter
from megbrain_py.ops.conv import conv2d as conv2d
from megbrain_py.ops.conv import conv_transpose2d as conv_transpose2d
from megbrain_py.ops.group_norm import group_norm as group_norm
from megbrain_py.ops.identity import identity as identity
from megbrain_py.ops.identity import name as name
from megbrain_py.ops.identity import print_value as print_value
from megbrain_py.ops.identity import recompute_hint as recompute_hint
from megbrain_py.ops.indexing import argsort as argsort
from megbrain_py.ops.indexing import batched_gather as batched_gather
from megbrain_py.ops.indexing import embedding as embedding
from megbrain_py.ops.indexing import gather as gather
from megbrain_py.ops.indexing import one_hot as one_hot
from megbrain_py.ops.indexing import scatter_add as scatter_add
from megbrain_py.ops.indexing import sort as sort
from megbrain_py.ops.indexing import take_along_axis as take_along_axis
from megbrain_py.ops.indexing import top_k as top_k
from megbrain_py.ops.layer_norm import layer_norm as layer_norm
from megbrain_py.ops.losses import (
    binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
)
from megbrain_py.ops.losses import cross_entropy as cross_entropy
from megbrain_py.ops.losses import smooth_l1 as smooth_l1
from megbrain_py.ops.mask_targets import mask_targets as mask_targets
from megbrain_py.ops.match_boxes import match_boxes as match_boxes
from megbrain_py.ops.matmul import linear as linear
from megbrain_py.ops.matmul import matmul as matmul
from megbrain_py.ops.movement import concat as concat
from megbrain_py.ops.movement import expand_dims as expand_dims
from megbrain_py.ops.movement import flatten as flatten
from megbrain_py.ops.movement import flip as flip
from megbrain_py.ops.movement import getitem as getitem
from megbrain_py.ops.movement import pad as pad
from megbrain_py.ops.movement import repeat as repeat
from megbrain_py.ops.movement import reshape as reshape
from megbrain_py.ops.movement import slice as slice
from megbrain_py.ops.movement import split as split
from megbrain_py.ops.movement import squeeze as squeeze
from megbrain_py.ops.movement import stack as stack
from megbrain_py.ops.movement import swap_axes as swap_axes
from megbrain_py.ops.movement import tile as tile
from megbrain_py.ops.movement import transpose as transpose
from megbrain_py.ops.nms import nms as nms
from megbrain_py.ops.nms import soft_nms as soft_nms
from megbrain_py.ops.nms import vote_boxes as vote_boxes
from megbrain_py.ops.pool import adaptive_avg_pool2d as adaptive_avg_pool2d
from megbrain_py.ops.pool import avg_pool2d as avg_pool2d
from megbrain_py.ops.pool import global_avg_pool2d as global_avg_pool2d
from megbrain_py.ops.pool import max_pool2d as max_pool2d
from megbrain_py.ops.random import dropout as dropout
from megbrain_py.ops.random import normal as normal
from megbrain_py.ops.random import uniform as uniform
from megbrain_py.ops.reduce import all as all
from megbrain_py.ops.reduce import any as any
from megbrain_py.ops.reduce import argmax as argmax
from megbrain_py.ops.reduce import argmin as argmin
from megbrain_py.ops.reduce import broadcast_to as broadcast_to
from megbrain_py.ops.reduce import max as max
from megbrain_py.ops.reduce import mean as mean
from megbrain_py.ops.reduce import min as min
from megbrain_py.ops.reduce import prod as prod
from megbrain_py.ops.reduce import sum as sum
from megbrain_py.ops.resize import resize as resize
from megbrain_py.ops.roi_pooling import prroi_pool as prroi_pool
from megbrain_py.ops.roi_pooling import prroi_unpool as prroi_unpool
from megbrain_py.ops.roi_pooling import roi_align as roi_align
from megbrain_py.ops.roi_pooling import roi_levels as roi_levels
from megbrain_py.ops.roi_pooling import roi_pool as roi_pool
from megbrain_py.ops.sample import sample as sample
from megbrain_py.ops.select import where as where
from megbrain_py.ops.softmax import log_softmax as log_softmax
from megbrain_py.ops.softmax import softmax as softmax
from megbrain_py.ops.stop_gradient import stop_gradient as stop_gradient
from megbrain_py.ops.unary import abs as abs
from megbrain_py.ops.unary import clip as clip
from megbrain_py.ops.unary import erf as erf
from megbrain_py.ops.unary import exp as exp
from megbrain_py.ops.unary import floor as floor
from megbrain_py.ops.unary import gelu as gelu
from megbrain_py.ops.unary import isfinite as isfinite
from megbrain_py.ops.unary import isnan as isnan
from megbrain_py.ops.unary import leaky_relu as leaky_relu
from megbrain_py.ops.unary import log as log
from megbrain_py.ops.unary import log_sigmoid as log_sigmoid
from megbrain_py.ops.unary import logical_not as logical_not
from megbrain_py.ops.unary import neg as neg
from megbrain_py.ops.unary import relu as relu
from megbrain_py.ops.unary import round as round
from megbrain_py.ops.unary import rsqrt as rsqrt
from megbrain_py.ops.unary import sigmoid as sigmoid
from megbrain_py.ops.unary import sign as sign
from megbrain_py.ops.unary import silu as silu
from megbrain_py.ops.unary import softplus as softplus
from megbrain_py.ops.unary import sqrt as sqrt
from megbrain_py.ops.unary import square as square
from megbrain_py.ops.unary import tanh as tanh

register_sugar(
    add=add,
    div=div,
    getitem=getitem,
    greater=greater,
    greater_equal=greater_equal,
    less=less,
    less_equal=less_equal,
    matmul=matmul,
    mul=mul,
    neg=neg,
    pow=pow,
    sub=sub,
)
