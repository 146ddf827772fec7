"""Reads what torch.save writes: a zip file with a pickle of tensors and, apart, their elements."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array
from megbrain_py.weights.tensor import ITEM_SIZES, Refused, StoredTensor, elements
from megbrain_py.weights.unpickle import MOST_BYTES, Storage, TensorView, unpickle

LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # a pickle of torch's magic number
_MOST_SHARED = 16  # times the file's size that all its tensors, views of storages, may show
_MOST_DEPTH = 4  # dictionaries around the one with the tensors
_WEIGHTS = ("model", "state_dict", "model_state_dict", "weights")  # usual names of the weights
_ENCRYPTED = 0x1
_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, IndexError,
    NotImplementedError, RuntimeError, OverflowError, ValueError,
)  # fmt: skip


def read_torch(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors of a .pth file by name, and what else lies beside them, in words.

    The weights are the whole dictionary or the one under a usual name (`model`, `state_dict`).
    Raises Refused, or OSError.
    """
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, size)
            value = unpickle(_read(archive, members, "data.pkl"))
            weights, others = _weights_of(value)
            arrays = _Arrays(archive, members, size)
            return {name: arrays.tensor(view) for name, view in weights.items()}, others
    except Refused:
        raise
    except _ZIP_ERRORS as error:
        raise Refused(f"is not a whole zip file: {error}") from None
    except MemoryError:
        raise Refused("needs more memory than there is") from None


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members by their names within the one folder of the archive."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = ascii(info.filename)
        if info.flag_bits & _ENCRYPTED:
            raise Refused(f"its member {name} is encrypted")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise Refused(f"its member {name} is compressed; torch.save stores as it is")
        if info.filename in found:
            raise Refused(f"has two members {name}")
        found[info.filename] = info
    if sum(info.file_size for info in found.values()) > size:
        raise Refused(f"its members claim more bytes than the {size:,} of the file")
    folders = [n.partition("/")[0] for n in found if n.partition("/")[2] == "data.pkl"]
    if len(folders) != 1:
        raise Refused("is a zip file without the data.pkl that torch.save writes")
    start = f"{folders[0]}/"
    return {n[len(start) :]: info for n, info in found.items() if n.startswith(start)}


def _read(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str) -> bytes:
    """A member's bytes, its checksum right."""
    if name not in members:
        raise Refused(f"has no member {name!a}")
    if name == "data.pkl" and members[name].file_size > MOST_BYTES:
        raise Refused(f"its data.pkl has more than {MOST_BYTES:,} bytes")
    data = archive.read(members[name])
    if len(data) != members[name].file_size:
        raise Refused(f"its member {name!a} ends too early")
    return data


class _Arrays:
    """Makes views of storages, each of which is read once."""

    def __init__(
        self, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], size: int
    ) -> None:
        self.archive = archive
        self.members = members
        self.left = _MOST_SHARED * size
        self.read: dict[str, tuple[Storage, Array]] = {}
        order = _read(archive, members, "byteorder") if "byteorder" in members else b"little"
        if order != b"little":
            raise Refused(f"its byte order is {ascii(order)[1:]}, expected 'little'")

    def tensor(self, view: TensorView) -> StoredTensor:
        dtype = view.storage.dtype
        self.left -= view.count * ITEM_SIZES[dtype]
        if self.left < 0:
            raise Refused(f"its tensors show more than {_MOST_SHARED} times what the file holds")
        flat = self._storage(view.storage)
        if not view.count:
            return StoredTensor(flat[:0].reshape(view.shape), dtype)
        steps = [stride * flat.itemsize for stride in view.strides]
        array = np.lib.stride_tricks.as_strided(
            flat[view.offset :], view.shape, steps, writeable=False
        )
        return StoredTensor(array, dtype)

    def _storage(self, storage: Storage) -> Array:
        if storage.key not in self.read:
            data = _read(self.archive, self.members, f"data/{storage.key}")
            expected = storage.count * ITEM_SIZES[storage.dtype]
            if len(data) != expected:
                raise Refused(
                    f"its storage {storage.key!a} has {len(data)} bytes, expected {expected}"
                )
            self.read[storage.key] = storage, elements(data, storage.dtype)
        known, flat = self.read[storage.key]
        if known != storage:
            raise Refused(f"its storage {storage.key!a} is described in two ways")
        return flat


def _weights_of(value: Any, depth: int = 0) -> tuple[dict[str, TensorView], dict[str, str]]:
    """The named tensors of a loaded value, and what lies beside them."""
    if type(value) is not dict or depth > _MOST_DEPTH:
        raise Refused(f"holds a {type(value).__name__}, expected a dictionary of tensors")
    found = {name: item for name, item in value.items() if isinstance(item, TensorView)}
    within = [name for name in _WEIGHTS if type(value.get(name)) is dict]
    if not found and len(within) > 1:
        raise Refused(f"holds weights in several places: {', '.join(within)}; save one of them")
    others = {_word(key): _words(item) for key, item in value.items() if key not in found}
    if not found and within:
        found, inner = _weights_of(value[within[0]], depth + 1)
        del others[within[0]]
        others = {**inner, **others}
    if not found:
        raise Refused(f"holds no tensors; its keys: {', '.join(list(others)[:8]) or 'none'}")
    odd = [name for name in found if type(name) is not str]
    if odd:
        raise Refused(f"holds tensors without names, such as {odd[0]}")
    return found, others


def _word(value: Any) -> str:
    return f"{value!s:.60}"


def _words(value: Any) -> str:
    """A value beside the weights, shortly. Its insides are not looked at: they may be endless."""
    if isinstance(value, dict | list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, str):
        return ascii(value[:60])
    return _word(value) if value is None or isinstance(value, bool | int | float) else "a storage"
