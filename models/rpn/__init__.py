"""Region proposal network (Ren et al. 2015) on a feature pyramid."""

from megbrain_py.models.rpn.rpn import RPN as RPN
from megbrain_py.models.rpn.rpn import Proposals as Proposals
from megbrain_py.models.rpn.rpn import RPNConfig as RPNConfig
