"""Writes arrays as torch.save does, so that torch.load(..., weights_only=True) reads them."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from megbrain_py.dtypes import Array
from megbrain_py.errors import DataError
from megbrain_py.weights.unpickle import STORAGES

_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal weights give equal bytes
_STORAGE_NAMES = {dtype: name for (_, name), dtype in STORAGES.items()}
_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def torch_bytes(arrays: Mapping[str, Array]) -> bytes:
    """A .pth file of named arrays. DataError for an element type that torch does not have."""
    pickle = [b"\x80\x02", _ORDERED_DICT, b"("]
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for key, (name, array) in enumerate(arrays.items()):
            if array.dtype.name not in _STORAGE_NAMES:
                raise DataError(f"{name}: element type {array.dtype} has no counterpart in .pth")
            pickle += [_text(name), _tensor(array, str(key))]
            plain = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
            _add(archive, f"data/{key}", plain.tobytes())
        _add(archive, "data.pkl", b"".join([*pickle, b"u."]))
        _add(archive, "byteorder", b"little")
        _add(archive, "version", b"3\n")
    return target.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(f"archive/{name}", _EPOCH), data)


def _tensor(array: Array, key: str) -> bytes:
    """_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)."""
    strides = [1] * array.ndim
    for axis in range(array.ndim - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(array.shape[axis + 1], 1)
    name = _STORAGE_NAMES[array.dtype.name].encode()
    storage = [
        b"(", _text("storage"), b"ctorch\n", name, b"\n", _text(key), _text("cpu"),
        _whole(array.size), b"tQ",
    ]  # fmt: skip
    sizes = [b"(", *map(_whole, array.shape), b"t(", *map(_whole, strides), b"t"]
    return b"".join(
        [b"ctorch._utils\n_rebuild_tensor_v2\n(", *storage, _whole(0), *sizes, b"\x89",
         _ORDERED_DICT, b"tR"]
    )  # fmt: skip


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _whole(number: int) -> bytes:
    if number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    return b"\x8a\x08" + struct.pack("<q", number)
