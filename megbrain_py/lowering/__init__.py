"""Graph -> Plan: order, lifetimes, aliases and offsets, and what is made again for memory."""

from megbrain_py.lowering.lower import ArenaBytes as ArenaBytes
from megbrain_py.lowering.lower import MemoryBudget as MemoryBudget
from megbrain_py.lowering.lower import Refused as Refused
from megbrain_py.lowering.lower import lower as lower
from megbrain_py.lowering.lower import lower_within as lower_within
from megbrain_py.lowering.lower import refusal as refusal
