"""Elementwise choice between two values."""

from megbrain_py.ops.select.select import where as where
