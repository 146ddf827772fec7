"""Values as they are: named, printed, with a wish for their memory."""

from megbrain_py.ops.identity.identity import Named as Named
from megbrain_py.ops.identity.identity import identity as identity
from megbrain_py.ops.identity.identity import name as name
from megbrain_py.ops.identity.identity import print_value as print_value
from megbrain_py.ops.identity.identity import recompute_hint as recompute_hint
