"""Many ranks: threads of this process or processes of MPI; values exchanged; data parallel."""

from megbrain_py.distributed.data_parallel import data_parallel as data_parallel
from megbrain_py.distributed.data_parallel import mean_over_ranks as mean_over_ranks
from megbrain_py.distributed.exchange import all_gather as all_gather
from megbrain_py.distributed.exchange import all_gather_objects as all_gather_objects
from megbrain_py.distributed.exchange import all_reduce as all_reduce
from megbrain_py.distributed.exchange import barrier as barrier
from megbrain_py.distributed.exchange import broadcast_object as broadcast_object
from megbrain_py.distributed.exchange import broadcast_state as broadcast_state
from megbrain_py.distributed.exchange import gather_objects as gather_objects
from megbrain_py.distributed.start import abort as abort
from megbrain_py.distributed.start import init as init
from megbrain_py.distributed.start import run as run
from megbrain_py.ranks import Group as Group
from megbrain_py.ranks import World as World
from megbrain_py.ranks import blocks as blocks
from megbrain_py.ranks import current as current
from megbrain_py.ranks import everyone as everyone
from megbrain_py.ranks import rows_of as rows_of
from megbrain_py.ranks import sharing_images as sharing_images
