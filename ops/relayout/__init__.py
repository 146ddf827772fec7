"""Copies a value into another memory layout; inserted by the layout pass."""

from megbrain_py.ops.relayout.relayout import Relayout as Relayout
