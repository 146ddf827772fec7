"""Files of weights: which format one is in, what it holds, and writing one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from megbrain_py.dtypes import Array
from megbrain_py.errors import DataError
from megbrain_py.nn.serialize import write_atomically
from megbrain_py.weights.tensor import Refused, StoredTensor, elements
from megbrain_py.weights.torch_file import BEFORE_ZIP, read_before_zip, read_zip
from megbrain_py.weights.torch_write import torch_bytes

_SUFFIXES = (".pth", ".pt", ".safetensors")
_ZIP, _TAR = b"PK\x03\x04", b"ustar"
_SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class WeightsFile:
    """What a file holds: tensors by name, and `others`, what lies beside them, in words."""

    path: Path
    format: str
    tensors: Mapping[str, StoredTensor]
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def arrays(self) -> dict[str, Array]:
        """The arrays by name: views of the file's storages that cannot be written to."""
        return {name: tensor.array for name, tensor in self.tensors.items()}

    @property
    def nbytes(self) -> int:
        """What the elements of all tensors take in the file's types."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def read_weights(path: str | os.PathLike[str]) -> WeightsFile:
    """The tensors of a .pth file (of torch >= 1.6 or the format before) or a safetensors file.

    Nothing in the file is executed and torch is not needed. DataError names the file and what is
    wrong with it: damaged, of another format, or holding more than tensors.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
        if head.startswith(_ZIP):
            return WeightsFile(path, "torch (zip)", *read_zip(path))
        if head.startswith(BEFORE_ZIP):
            return WeightsFile(path, "torch (before 1.6)", *read_before_zip(path))
        if head[257:262] == _TAR:
            raise Refused(
                "is in a format of torch before 0.2; in torch, save it again: "
                "torch.save(torch.load(FILE, weights_only=False), NEW_FILE)"
            )
        return WeightsFile(path, "safetensors", _safetensors(path.read_bytes()))
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise DataError(f"{path}: needs more memory than there is") from None
    except Refused as error:
        raise DataError(f"{path}: {error}") from None


def _safetensors(data: bytes) -> dict[str, StoredTensor]:
    from safetensors import SafetensorError, deserialize

    try:
        found = deserialize(data)  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError, OverflowError, MemoryError) as error:
        raise Refused(f"is neither a zip file of torch's nor a safetensors file: {error}") from None
    tensors: dict[str, StoredTensor] = {}
    for name, entry in found:
        dtype = _SAFETENSORS.get(entry["dtype"])
        if dtype is None:
            raise Refused(f"its tensor {name!a:.99} has the element type {entry['dtype']}")
        array = elements(bytes(entry["data"]), dtype).reshape(entry["shape"])
        tensors[name] = StoredTensor(array, dtype)
    return tensors


def write_weights(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write named arrays, whole or not at all: .pth (.pt) as torch.save does, or .safetensors.

    torchvision loads both: `torch.load(FILE, weights_only=True)`, `safetensors.torch.load_file`.
    """
    from safetensors.numpy import save

    path = Path(path)
    if path.suffix not in _SUFFIXES:
        raise DataError(f"{path}: expected a name that ends with {' or '.join(_SUFFIXES)}")
    if path.suffix == ".safetensors":
        plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        data = save(plain, {"format": "pt"})
    else:
        data = torch_bytes(arrays)
    write_atomically(path, data)
