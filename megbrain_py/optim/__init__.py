"""Optimisers as update graphs, learning-rate schedules, gradient clipping."""

from megbrain_py.optim.clip import clip_by_global_norm as clip_by_global_norm
from megbrain_py.optim.clip import clip_by_value as clip_by_value
from megbrain_py.optim.clip import global_norm as global_norm
from megbrain_py.optim.optimizers import SGD as SGD
from megbrain_py.optim.optimizers import AdamW as AdamW
from megbrain_py.optim.optimizers import Group as Group
from megbrain_py.optim.optimizers import decay_groups as decay_groups
from megbrain_py.optim.schedules import Schedule as Schedule
from megbrain_py.optim.schedules import constant as constant
from megbrain_py.optim.schedules import cosine as cosine
from megbrain_py.optim.schedules import multi_step as multi_step
from megbrain_py.optim.schedules import warmup as warmup
