"""The compiled module of the planner (engine/planner/); only planning/ imports it."""

import numpy as np
import numpy.typing as npt

_Ints = npt.NDArray[np.int64]

def max_live(lower: _Ints, upper: _Ints, size: _Ints) -> int: ...
def allocate(
    lower: _Ints, upper: _Ints, size: _Ints, wanted: int, work: int
) -> tuple[_Ints, int, bool]: ...
def find_overlap(lower: _Ints, upper: _Ints, size: _Ints, offset: _Ints) -> tuple[int, int]: ...
