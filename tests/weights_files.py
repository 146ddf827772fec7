"""Files of torch's format, made here: by parts, so that any part can be wrong."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value: str) -> bytes:
    """BINUNICODE."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def whole(value: int) -> bytes:
    """BININT, or LONG1 for what is larger."""
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def numbers(values: tuple[int, ...]) -> bytes:
    """A tuple."""
    return b"(" + b"".join(map(whole, values)) + b"t"


def storage(kind: str = "FloatStorage", key: str = "0", count: int = 6) -> bytes:
    """A storage, which lies in the member data/<key>."""
    parts = [text("storage"), b"ctorch\n", kind.encode(), b"\n", text(key), text("cpu")]
    return b"(" + b"".join(parts) + whole(count) + b"tQ"


def tensor(
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    offset: int = 0,
    of: bytes | None = None,
    hooks: bytes = ORDERED_DICT,
) -> bytes:
    """A call of _rebuild_tensor_v2."""
    where = (storage() if of is None else of) + whole(offset)
    return TENSOR + b"(" + where + numbers(shape) + numbers(strides) + b"\x89" + hooks + b"tR"


def state(items: Mapping[str, bytes], kind: bytes = b"}") -> bytes:
    """A pickle of a dictionary whose values are pickled already."""
    pairs = b"".join(text(name) + value for name, value in items.items())
    return b"\x80\x02" + kind + b"(" + pairs + b"u."


def archive(pickle: bytes, members: Mapping[str, bytes] | None = None, folder: str = "a") -> bytes:
    """The zip file around a pickle, with the storage `0` of six float32 unless others are given."""
    given = {"data/0": struct.pack("<6f", *range(6))} if members is None else members
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for name, data in {"data.pkl": pickle, "version": b"3\n", **given}.items():
            file.writestr(zipfile.ZipInfo(f"{folder}/{name}"), data)
    return target.getvalue()


MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
SYSTEM = state({"protocol_version": whole(1001), "little_endian": b"\x88"})


def before_zip(
    pickle: bytes, storages: Mapping[str, tuple[int, bytes]] | None = None, system: bytes = SYSTEM
) -> bytes:
    """The format before torch 1.6: pickles, then each storage's number of elements and bytes."""
    given = {"0": (6, struct.pack("<6f", *range(6)))} if storages is None else storages
    keys = b"\x80\x02](" + b"".join(map(text, given)) + b"e."
    tail = b"".join(struct.pack("<q", count) + data for count, data in given.values())
    return MAGIC + system + pickle + keys + tail
