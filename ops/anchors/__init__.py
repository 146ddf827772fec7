"""Anchors: boxes of fixed sizes and shapes at every pixel of a feature map."""

from megbrain_py.ops.anchors.anchors import anchors as anchors
