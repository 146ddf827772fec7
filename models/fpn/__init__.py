"""Feature pyramid (Lin et al. 2017)."""

from megbrain_py.models.fpn.fpn import FPN as FPN
