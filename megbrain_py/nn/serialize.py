"""State on disk: safetensors files, written atomically."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as from_bytes
from safetensors.numpy import save as to_bytes

from megbrain_py.dtypes import Array
from megbrain_py.errors import DataError


def save(path: str | os.PathLike[str], state: Mapping[str, Array]) -> None:
    """Write arrays by name. The file appears whole or not at all, also when the machine stops."""
    data = to_bytes({name: np.ascontiguousarray(value) for name, value in state.items()})
    write_atomically(path, data)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file beside the target, flush it to the disk, then rename it into place.

    DataError when that cannot be done (disk full, no permission); the old file stays then.
    """
    target = Path(path)
    try:
        number, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(number, "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        folder = os.open(target.parent, os.O_RDONLY)  # the rename itself must reach the disk
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error


def load(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Arrays by name from a file that `save` (or any safetensors writer) made.

    Raises DataError when there is no such file or it is damaged.
    """
    try:
        data = Path(path).read_bytes()
        return dict(from_bytes(data))
    except FileNotFoundError:
        raise DataError(f"load: there is no file {path}") from None
    except OSError as error:
        raise DataError(f"load: {path} cannot be read: {error.strerror or error}") from None
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"load: {path} is not a whole safetensors file: {error}") from None
