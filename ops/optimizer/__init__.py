"""Optimiser steps: parameter and state updated in one walk, in place."""

from megbrain_py.ops.optimizer.optimizer import AdamWUpdate as AdamWUpdate
from megbrain_py.ops.optimizer.optimizer import GradientStep as GradientStep
from megbrain_py.ops.optimizer.optimizer import SgdUpdate as SgdUpdate
