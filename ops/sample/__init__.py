"""Balanced random sampling of matched boxes: a fixed number of rows, positives first."""

from megbrain_py.ops.sample.sample import sample as sample
