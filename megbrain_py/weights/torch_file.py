"""Reads what torch.save writes: a pickle of tensors and, apart, their elements.

Since torch 1.6 they are members of a zip file; before, and in torchvision's older files, they
follow each other.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array
from megbrain_py.weights.tensor import ITEM_SIZES, Refused, StoredTensor, elements
from megbrain_py.weights.unpickle import MOST_BYTES, Storage, TensorView, unpickle

BEFORE_ZIP = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # a pickle of torch's magic number
_PROTOCOL = 1001  # of the files before zip
_MOST_SHARED = 16  # times the file's size that all its tensors, views of storages, may show
_MOST_DEPTH = 4  # dictionaries around the one with the tensors
_WEIGHTS = ("model", "state_dict", "model_state_dict", "weights")  # usual names of the weights
_ENCRYPTED = 0x1
_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, IndexError,
    NotImplementedError, RuntimeError, OverflowError, ValueError,
)  # fmt: skip


Found = tuple[dict[str, StoredTensor], dict[str, str]]


def read_zip(path: Path) -> Found:
    """The tensors of a .pth file by name, and what else lies beside them, in words.

    The weights are the whole dictionary or the one under a usual name (`model`, `state_dict`).
    Raises Refused, or OSError.
    """
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, size)
            data = _read(archive, members, "data.pkl")
            pickled = unpickle(data)
            if pickled.end != len(data):
                raise Refused("its data.pkl has bytes after the end of the pickle")
            if "byteorder" in members and _read(archive, members, "byteorder") != b"little":
                raise Refused("its byte order is not 'little'")
            views = _Views(lambda s: _read(archive, members, f"data/{s.key}"), size)
            return views.of(pickled.value)
    except Refused:
        raise
    except _ZIP_ERRORS as error:
        raise Refused(f"is not a whole zip file: {error}") from None


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
    if name == "data.pkl" and members[name].file_size > MOST_BYTES:  # before it is read
        raise Refused(f"its data.pkl has more than {MOST_BYTES:,} bytes")
    data = archive.read(members[name])
    if len(data) != members[name].file_size:
        raise Refused(f"its member {name!a} ends too early")
    return data


def read_before_zip(path: Path) -> Found:
    """The same of a file in the format before zip: pickles, then each storage with its size."""
    data = path.read_bytes()
    if not data.startswith(BEFORE_ZIP):
        raise Refused("is no file of torch")
    protocol = unpickle(data, len(BEFORE_ZIP))
    system = unpickle(data, protocol.end)
    little = type(system.value) is dict and system.value.get("little_endian") is True
    if protocol.value != _PROTOCOL or not little:
        raise Refused(f"is not of protocol {_PROTOCOL} in byte order 'little'")
    pickled = unpickle(data, system.end)
    order = unpickle(data, pickled.end)
    if type(order.value) is not list or not all(type(key) is str for key in order.value):
        raise Refused("has no list of its storages")
    found: dict[str, memoryview] = {}
    at = order.end
    for key in order.value:
        storage = pickled.storages.get(key)
        if (
            storage is None
            or key in found
            or data[at : at + 8] != storage.count.to_bytes(8, "little")
        ):
            raise Refused(f"its storage {key!a:.99} is not the one that its pickle describes")
        end = at + 8 + storage.count * ITEM_SIZES[storage.dtype]
        found[key] = memoryview(data)[at + 8 : end]
        at = end
    if at != len(data):
        raise Refused(f"has {len(data):,} bytes, expected {at:,}")

    def load(storage: Storage) -> memoryview:
        if storage.key not in found:
            raise Refused(f"has no storage {storage.key!a:.99}")
        return found[storage.key]

    return _Views(load, len(data)).of(pickled.value)


class _Views:
    """Makes views of storages, each of which is loaded once. size: bytes of the file."""

    def __init__(self, load: Callable[[Storage], bytes | memoryview], size: int) -> None:
        self.load = load
        self.left = _MOST_SHARED * size
        self.loaded: dict[str, Array] = {}

    def of(self, value: Any) -> Found:
        """The tensors of a pickle's value, and what lies beside them."""
        weights, others = _weights_of(value)
        return {name: self.tensor(view) for name, view in weights.items()}, others

    def tensor(self, view: TensorView) -> StoredTensor:
        dtype = view.storage.dtype
        self.left -= view.count * ITEM_SIZES[dtype]
        if self.left < 0:
            raise Refused(f"its tensors show more than {_MOST_SHARED} times what the file holds")
        flat = self._flat(view.storage)
        if not view.count:
            return StoredTensor(flat[:0].reshape(view.shape), dtype)
        steps = [stride * flat.itemsize for stride in view.strides]
        array = np.lib.stride_tricks.as_strided(
            flat[view.offset :], view.shape, steps, writeable=False
        )
        return StoredTensor(array, dtype)

    def _flat(self, storage: Storage) -> Array:
        if storage.key not in self.loaded:
            data = self.load(storage)
            expected = storage.count * ITEM_SIZES[storage.dtype]
            if len(data) != expected:
                raise Refused(
                    f"its storage {storage.key!a} has {len(data)} bytes, expected {expected}"
                )
            self.loaded[storage.key] = elements(data, storage.dtype)
        return self.loaded[storage.key]


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
