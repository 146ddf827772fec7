"""Golden files: many small named arrays in one .npz (an archive member each would cost more)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def save(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write `arrays` (numbers and bools) under their names: `index` is JSON, `data` their bytes."""
    index: dict[str, tuple[str, list[int]]] = {}
    pieces: list[bytes] = []
    for name, array in arrays.items():
        index[name] = (array.dtype.str, list(array.shape))
        pieces.append(np.ascontiguousarray(array).tobytes())
    text = np.frombuffer(json.dumps(index).encode(), np.uint8)
    np.savez_compressed(path, index=text, data=np.frombuffer(b"".join(pieces), np.uint8))


def load(path: Path) -> dict[str, Array]:
    """The arrays of a golden file by name."""
    with np.load(path) as archive:
        index = json.loads(archive["index"].tobytes())
        data = archive["data"].tobytes()
    arrays: dict[str, Array] = {}
    offset = 0
    for name, (dtype, shape) in index.items():
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(data, dtype, count, offset).reshape(shape)
        offset += arrays[name].nbytes
    return arrays
