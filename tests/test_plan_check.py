"""What lies in scratch, against a list of bytes."""

from __future__ import annotations

import numpy as np
import pytest

from megbrain_py.dtypes import DType
from megbrain_py.plan_check import _Held

KINDS = (DType.float32, DType.int32)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_held_is_what_was_written_last(seed: int) -> None:
    rng = np.random.default_rng(seed)
    held, bytes = _Held(), [-1] * 24  # at each byte: which write was there last
    writes: list[tuple[int, int, DType]] = []
    for number in range(60):
        begin, end = sorted(rng.integers(0, len(bytes) + 1, 2).tolist())
        kind = KINDS[int(rng.integers(2))]
        held.write(begin, end, kind)
        writes.append((begin, end, kind))
        bytes[begin:end] = [number] * (end - begin)
        for first in range(len(bytes)):
            for last in range(first + 1, len(bytes) + 1):
                for dtype in KINDS:
                    found = set(bytes[first:last])
                    whole = len(found) == 1 and writes[max(found)] == (first, last, dtype)
                    whole = whole and max(found) >= 0
                    assert held.has(first, last, dtype) == whole
        assert held.has(3, 3, DType.float32), "nothing is always there"
