"""Files of weights that want more than to be read: each is refused, and the message says why."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from weights_files import (
    MAGIC,
    SYSTEM,
    archive,
    before_zip,
    numbers,
    state,
    storage,
    tensor,
    text,
    whole,
)

from megbrain_py.errors import DataError
from megbrain_py.weights import read_weights

ALLOWED = set("(NJKMGX)]}tasuebcRQhjqr.") | set("\x80\x85\x86\x87\x88\x89\x8a")
WHOLE = archive(state({"w": tensor()}))


def refusal(path: Path, data: bytes) -> str:
    """What is said of a file, whose name stands first."""
    path.write_bytes(data)
    start = time.process_time()
    with pytest.raises(DataError) as caught:
        read_weights(path)
    assert time.process_time() - start < 5
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "Traceback" not in message and len(message) < 500
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.pth"


def test_the_whole_file_is_read(path: Path) -> None:
    path.write_bytes(WHOLE)
    assert read_weights(path).arrays["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("op", [op for op in pickletools.opcodes if op.code not in ALLOWED],
                         ids=lambda op: op.name)  # fmt: skip
def test_every_other_opcode_is_refused_by_name(op: Any, path: Path) -> None:
    """Wherever it stands: at the start, where a value or a call's arguments lie on the stack."""
    for before in (b"", b"}", b"ccollections\nOrderedDict\n)"):
        pickled = b"\x80\x02" + before + op.code.encode("latin-1") + b"\0" * 16 + b"."
        assert f"opcode {op.name} at byte {2 + len(before)} is not allowed" in refusal(
            path, archive(pickled)
        )


def test_the_opcodes_of_no_protocol_are_refused(path: Path) -> None:
    known = {op.code for op in pickletools.opcodes}
    unknown = [code for code in map(chr, range(256)) if code not in known]
    assert len(unknown) > 150
    for code in unknown[:: len(unknown) // 20]:
        data = archive(b"\x80\x02" + code.encode("latin-1") + b".")
        assert f"opcode 0x{ord(code):02x} (unknown)" in refusal(path, data)


class _Call:
    """Pickles into a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


CALLS = [
    "os.system", "posix.system", "nt.system", "subprocess.Popen", "subprocess.check_output",
    "builtins.eval", "builtins.exec", "builtins.getattr", "builtins.open", "builtins.__import__",
    "__builtin__.eval", "importlib.import_module", "runpy.run_path", "pickle.loads", "sys.exit",
    "marshal.loads", "types.FunctionType", "functools.partial", "operator.attrgetter",
    "shutil.rmtree", "webbrowser.open", "socket.socket", "ctypes.CDLL", "pty.spawn",
    "numpy.load", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray.scalar",
    "torch.load", "torch.hub.load", "torch._utils._rebuild_tensor", "torch.Size",
    "torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_device_tensor_from_numpy",
    "torch._utils._rebuild_parameter_with_state", "torch.nn.modules.linear.Linear",
    "torch.serialization._get_layout", "torch.ComplexFloatStorage",
    "torch.jit._pickle.build_intlist",
    "collections.OrderedDict.__init__", "collections.defaultdict", "collections.Counter",
    "argparse.Namespace", "copyreg._reconstructor", "megbrain_py.weights.read_weights",
]  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_every_other_name_is_refused_by_name(name: str, path: Path) -> None:
    module, _, last = name.rpartition(".")
    for arguments in (b"", text("touch here"), text("x") + whole(1)):
        pickled = b"\x80\x02c" + f"{module}\n{last}\n".encode() + b"(" + arguments + b"tR."
        message = refusal(path, archive(pickled))
        assert re.search(rf"asks for {re.escape(name)}, which is not allowed", message)


def test_what_python_pickles_is_refused(path: Path, tmp_path: Path) -> None:
    """Real pickles of calls that would leave a trace, in each protocol."""
    trace = tmp_path / "trace"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for call in (_Call(Path.touch, trace), _Call(eval, f"open({str(trace)!r}, 'w')")):
            refusal(path, archive(pickle.dumps({"w": call}, protocol)))
    assert not trace.exists()


STORED = storage()
BAD_PICKLES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "ends too early"),
    "only a protocol": (b"\x80\x02", "ends too early"),
    "protocol 4": (b"\x80\x04}.", "not of protocol 2"),
    "no end": (b"\x80\x02}", "ends too early"),
    "two values": (b"\x80\x02}}.", "stops unfinished"),
    "no value": (b"\x80\x02.", "stops unfinished"),
    "an open mark": (b"\x80\x02(.", "stops unfinished"),
    "more after the end": (state({"w": tensor()}) + b"N", "bytes after the end"),
    "no mark": (b"\x80\x02t.", "no mark before byte 3"),
    "an empty stack": (b"\x80\x02\x85.", "empty stack"),
    "nothing to keep": (b"\x80\x02q\0.", "empty stack"),
    "a value never kept": (b"\x80\x02h\x05.", "the value 5, which it never kept"),
    "a text that is longer than the pickle": (
        b"\x80\x02X\xff\xff\xff\xffab.", "ends too early"),
    "a text that is no UTF-8": (b"\x80\x02X\x02\0\0\0\xff\xfe.", "not UTF-8"),
    "a number of 200 bytes": (b"\x80\x02\x8a\xc8" + b"\1" * 200 + b".", "of 200 bytes"),
    "a name without end": (b"\x80\x02cos" + b"x" * 1000, "a name without end"),
    "a name of other letters": ("\x80\x02c\xf6s\nsystem\n.".encode("latin-1"), r"asks for \\xf6s"),
    "items of a list": (b"\x80\x02](" + text("a") + whole(1) + b"u.", "sets items of a list"),
    "an odd number of items": (b"\x80\x02}(" + text("a") + b"u.", "sets items"),
    "a list for a key": (b"\x80\x02}(]" + whole(1) + b"u.", "a list for a key"),
    "a huge number for a key": (
        b"\x80\x02}(" + whole(1 << 61) + whole(1) + b"u.", "an int for a key"),
    "a name twice": (state({"w": tensor()})[:-2] + text("w") + whole(1) + b"u.", "'w' twice"),
    "appending to a dictionary": (b"\x80\x02}Na.", "appends to a dict"),
    "attributes of a tensor": (state({"w": tensor() + b"}b"}), "sets attributes of a TensorView"),
    "attributes that are no dictionary": (
        state({"w": tensor()})[:-1] + b"Nb.", "attributes of a dict"),
    "a call of a text": (b"\x80\x02" + text("os.system") + b")R.", "calls a str"),
    "a call of a storage": (b"\x80\x02ctorch\nFloatStorage\n)R.", "calls torch.FloatStorage"),
    "a call without arguments": (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nNR.", "not allowed"),
    "a filled OrderedDict": (b"\x80\x02ccollections\nOrderedDict\n]\x85R.", "fills an OrderedDict"),
    "a tensor of nothing": (state({"w": tensor(of=b"N")}), "a tensor without storage"),
    "a tensor with hooks": (state({"w": tensor(hooks=b"K\1")}), "hooks"),
    "a tensor of few arguments": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + STORED + b"tR.", "without storage"),
    "a parameter of a storage": (
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n(" + STORED + b"\x89}tR.", "no plain tensor"),
    "a storage of no type": (b"\x80\x02(" + text("storage") + b"NNNNtQ.", "no storage"),
    "a storage of negative size": (state({"w": tensor(of=storage(count=-1))}), "no storage"),
    "a storage by number": (b"\x80\x02K\1Q.", "describes no storage"),
    "a shape beyond the storage": (state({"w": tensor((2, 4), (4, 1))}), "outside of its storage"),
    "a stride beyond the storage": (state({"w": tensor((2, 3), (4, 1))}), "outside of its storage"),
    "an offset beyond the storage": (state({"w": tensor(offset=1)}), "outside of its storage"),
    "an offset beyond, of no elements": (
        state({"w": tensor((0,), (1,), offset=7)}), "outside of its storage"),
    "a negative stride": (state({"w": tensor((2, 3), (-3, 1), 3)}), "without proper sizes"),
    "a negative size": (state({"w": tensor((-2, -3))}), "without proper sizes"),
    "a negative offset": (state({"w": tensor(offset=-1)}), "without proper sizes"),
    "strides for other axes": (state({"w": tensor((2, 3), (1,))}), "without proper sizes"),
    "more axes than numpy has": (state({"w": tensor((1,) * 70, (1,) * 70)}), "proper sizes"),
    "a huge shape of one element": (
        state({"w": tensor((1 << 40, 1 << 40), (0, 0))}), "more than 16 times"),
    "huge sizes": (
        state({"w": tensor((1 << 62, 1 << 62), (1 << 62, 1))}), "outside of its storage"),
    "a storage of a wrong size": (
        state({"w": tensor(of=storage(count=7))}), "24 bytes, expected 28"),
    "a storage of a wrong type": (
        state({"w": tensor(of=storage("DoubleStorage"))}), "24 bytes, expected 48"),
    "a storage in two types": (
        state({"a": tensor(), "b": tensor(of=storage("IntStorage"))}), "in two ways"),
    "a storage that is not there": (state({"w": tensor(of=storage(key="../0"))}), "no member"),
    "a list": (b"\x80\x02].", "holds a list"),
    "no tensors": (state({"epoch": whole(3)}), "holds no tensors; its keys: epoch"),
    "weights in several places": (
        b"\x80\x02}(" + text("model") + b"}" + text("state_dict") + b"}u.", "in several places"),
    "a dictionary in itself": (
        b"\x80\x02}q\0(" + text("model") + b"h\0u.", "holds a dict, expected"),
    "tensors without names": (b"\x80\x02}(K\1" + tensor() + b"u.", "tensors without names"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PICKLES)
def test_a_bad_pickle_is_refused(name: str, path: Path) -> None:
    pickled, message = BAD_PICKLES[name]
    assert re.search(message, refusal(path, archive(pickled)))


def _doubling(levels: int) -> bytes:
    """Each tuple holds the one before twice: 2^levels elements to whoever walks over them."""
    return b"K\1" + b"".join(b"\x85q\0h\0h\0\x86" for _ in range(levels))


BOMBS = {
    "doubling tuples for a shape": state(
        {"w": b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORED + b"K\0" + _doubling(60)
         + numbers((1,)) + b"\x89}tR"}),
    "doubling tuples beside": state({"epoch": _doubling(60)}),
    "lists a million deep": b"\x80\x02" + b"]" * 1_000_000 + b"a" * 999_999 + b".",
    "marks a million deep": b"\x80\x02" + b"(" * 1_000_000,
    "a dictionary in itself, four million deep": b"\x80\x02}q\0" + b"h\0" * 2_000_000 + b".",
    "a pickle of more than 4 MiB": b"\x80\x02" + b"N" * (5 << 20) + b".",
    "colliding keys": b"\x80\x02}(" + b"".join(
        b"\x8a\x08" + struct.pack("<q", k * ((1 << 61) - 1)) + b"N" for k in range(4)) + b"u.",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_no_time(name: str, path: Path) -> None:
    refusal(path, archive(BOMBS[name]))


def _patched(old: bytes, new: bytes) -> bytes:
    assert WHOLE.count(old) >= 1 and len(old) == len(new)
    return WHOLE.replace(old, new)


def _zip(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as file:
        for name, data in members:
            file.writestr(name, data)
    return target.getvalue()


def _with_entry(change: Callable[[bytearray, int], None]) -> bytes:
    """The whole file with the last entry of its directory, data/0, changed."""
    data = bytearray(WHOLE)
    change(data, data.rindex(b"PK\1\2"))
    return bytes(data)


def _encrypted(data: bytearray, at: int) -> None:
    data[at + 8] |= 1


def _larger(data: bytearray, at: int) -> None:
    data[at + 20 : at + 28] = struct.pack("<II", 1 << 31, 1 << 31)


def _unlike(data: bytearray, at: int) -> None:
    data[at + 24 : at + 28] = struct.pack("<I", 1 << 31)


def _elsewhere(data: bytearray, at: int) -> None:
    data[at + 42 : at + 46] = struct.pack("<I", 1 << 30)


BAD_ZIPS: dict[str, tuple[bytes, str]] = {
    "an empty zip file": (_zip(), "neither a zip file of torch's nor"),
    "another zip file": (_zip(("x.txt", b"x")), "without the data.pkl"),
    "two pickles": (
        _zip(("a/data.pkl", b"\x80\x02}."), ("b/data.pkl", b"")), "without the data.pkl"),
    "compressed": (
        _zip(("a/data.pkl", state({"w": tensor()}) * 9), compression=zipfile.ZIP_DEFLATED),
        "'a/data.pkl' is compressed"),
    "a bomb": (
        _zip(("a/data.pkl", bytes(50 << 20)), compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "an encrypted member": (_with_entry(_encrypted), "'a/data/0' is encrypted"),
    "a member of 2 GiB": (_with_entry(_larger), "claim more bytes than|whole zip file"),
    "two unlike sizes": (_with_entry(_unlike), "is compressed|claim more"),
    "a member elsewhere": (_with_entry(_elsewhere), "not a whole zip file"),
    "elements that changed": (_patched(struct.pack("<6f", *range(6)), b"x" * 24), "CRC"),
    "a big-endian file": (
        archive(state({"w": tensor()}), {"byteorder": b"big", "data/0": bytes(24)}), "byte order"),
    "a cut file": (WHOLE[:-30], "not a whole zip file"),
    "only a beginning": (WHOLE[:4], "not a whole zip file"),
    "a tar file": (b"\0" * 257 + b"ustar\0" + b"\0" * 300, "torch before 0.2"),
    "a pickle": (pickle.dumps({"w": 1}), "neither a zip file of torch's nor a safetensors file"),
    "nothing": (b"", "neither a zip file"),
    "a page": (b"<html>404</html>", "neither a zip file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ZIPS)
def test_a_bad_archive_is_refused(name: str, path: Path) -> None:
    data, message = BAD_ZIPS[name]
    assert re.search(message, refusal(path, data))


SOUND = state({"w": tensor()})
ZEROS = bytes(24)
BAD_OLDER: dict[str, tuple[bytes, str]] = {
    "a cut file": (before_zip(SOUND)[:-1], "bytes, expected"),
    "a longer file": (before_zip(SOUND) + b"x", "bytes, expected"),
    "no storages": (before_zip(SOUND, {}), "has no storage '0'"),
    "another number of elements": (before_zip(SOUND, {"0": (5, ZEROS)}), "'0' is not the one"),
    "a huge number of elements": (before_zip(SOUND, {"0": (1 << 60, ZEROS)}), "'0' is not the one"),
    "a storage too many": (
        before_zip(SOUND, {"0": (6, ZEROS), "1": (6, ZEROS)}), "'1' is not the one"),
    "a storage that claims too much": (
        before_zip(state({"w": tensor(of=storage(count=1 << 60))}), {"0": (1 << 60, ZEROS)}),
        "bytes, expected"),
    "big-endian": (before_zip(SOUND, system=state({"little_endian": b"\x89"})), "byte order"),
    "no system": (before_zip(SOUND, system=b"\x80\x02N."), "byte order"),
    "another protocol": (before_zip(SOUND).replace(b"M\xe9\x03", b"M\xe8\x03"), "protocol 1001"),
    "keys that are no list": (before_zip(SOUND).replace(b"\x80\x02](", b"\x80\x02(("), "unfinished|"
                              "appends|empty stack|no list"),
    "a call": (before_zip(b"\x80\x02cos\nsystem\n" + text("x") + b"\x85R."), "asks for os.system"),
    "a call among the keys": (MAGIC + SYSTEM + SOUND + b"\x80\x02cos\nsystem\n.", "os.system"),
    "a call in the system": (before_zip(SOUND, system=b"\x80\x02cos\nsystem\n."), "os.system"),
    "only the beginning": (MAGIC, "ends too early"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_OLDER)
def test_a_bad_file_of_the_format_before_zip_is_refused(name: str, path: Path) -> None:
    data, message = BAD_OLDER[name]
    assert re.search(message, refusal(path, data))


def test_the_format_before_zip_is_read(path: Path) -> None:
    path.write_bytes(before_zip(SOUND))
    assert read_weights(path).arrays["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_two_members_of_one_name_are_refused(path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        data = _zip(("a/data.pkl", b"\x80\x02}."), ("a/data.pkl", state({"w": tensor()})))
    assert "has two members 'a/data.pkl'" in refusal(path, data)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_weights(tmp_path / "none.pth")
    with pytest.raises(DataError, match="cannot be read"):
        read_weights(tmp_path)
