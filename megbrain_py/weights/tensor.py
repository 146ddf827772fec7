"""StoredTensor: an array with the element type that its file gives it, and the types there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megbrain_py.dtypes import Array


class Refused(ValueError):
    """What is wrong with the bytes of a file; its reader adds the file's name."""


@dataclass(frozen=True)
class StoredTensor:
    """An array as numpy holds it (bfloat16, which numpy lacks, as the float32 of equal value).

    nbytes: what the elements take in the file's type.
    """

    array: Array
    dtype: str

    @property
    def nbytes(self) -> int:
        return self.array.size * ITEM_SIZES[self.dtype]


ITEM_SIZES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip


def elements(data: bytes | memoryview, dtype: str) -> Array:
    """A file's bytes (little-endian) as a flat array that cannot be written to."""
    if dtype == "bfloat16":  # the upper half of a float32
        wide: Array = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        flat = wide.view(np.float32)
    elif dtype == "bool":  # any other byte than 0 and 1 would be neither True nor False
        flat = np.frombuffer(data, np.uint8) != 0
    else:
        flat = np.frombuffer(data, np.dtype(dtype).newbyteorder("<"))
    flat.flags.writeable = False
    return flat
