"""Damages checkpoints, weights and annotations at random: each must load, or end in a DataError.

    python tests/mutations.py FOLDER COUNT [SEED]

Ends with 0 when all did. A damaged file may cost neither more memory nor more time than a whole
one: both are limited here, and a crash shows as this program's exit code.
"""

from __future__ import annotations

import contextlib
import copy
import faulthandler
import json
import resource
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_files
import numpy as np
import weights_files

from megbrain_py.data import Loader, check_data, decode_mask, read_coco
from megbrain_py.errors import DataError
from megbrain_py.training import checkpoint
from megbrain_py.training.checkpoint import Checkpoint
from megbrain_py.weights import read_weights, write_weights

MOST_SECONDS = 20  # of the processor for one file; usual are milliseconds
MOST_MEMORY = 3 << 30  # bytes of address space beyond what Python and its libraries take
DEEP, DIGITS = "@deep@", "@digits@"  # what json.dumps cannot write
ODD: list[Any] = [
    None, True, -1, 0, 0.5, 1e308, 10**30, 2**63, -(2**63), "", "ä\0", "9" * 5000, [], {}, [[]],
    [1, 2, 3, 4], {"size": [9, 9], "counts": "QQ"}, {"size": [2, 2], "counts": [-9, 9, 4]},
    float("nan"), float("inf"), DEEP, DIGITS,
]  # fmt: skip

Random = np.random.Generator


def damaged_bytes(data: bytes, rng: Random) -> bytes:
    """Cut, flipped, filled, inserted into, repeated, moved: one to three times."""
    for _ in range(int(rng.integers(1, 4))):
        a, b = sorted(int(n) for n in rng.integers(0, len(data) + 1, 2))
        b = min(b, a + int(rng.integers(1, 200)))
        piece = data[a:b]
        bits = bytearray(data)
        if bits:
            bits[min(a, len(bits) - 1)] ^= 1 << int(rng.integers(8))
        noise = rng.bytes(int(rng.integers(1, 20)))
        choices = [
            data[:a], bytes(bits), data[:a] + data[b:], data[:a] + noise + data[a:],
            data[:b] + piece * int(rng.integers(1, 5)) + data[b:], data + noise,
            data[:a] + bytes(len(piece)) + data[b:], data[:a] + b"\xff" * len(piece) + data[b:],
        ]  # fmt: skip
        data = choices[int(rng.integers(len(choices)))]
    return data


def damaged_json(document: Any, rng: Random) -> bytes:
    """One to three keys dropped, renamed or repeated, values of another type or size."""
    document = copy.deepcopy(document)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(document))
        if not places:
            break
        owner, key = places[int(rng.integers(len(places)))]
        action = int(rng.integers(6))
        if action == 0:
            del owner[key]
        elif action == 1 and isinstance(owner, list):
            owner.append(copy.deepcopy(owner[key]))
        elif action == 1:
            owner[f"{key}x"] = owner.pop(key)
        elif action > 3 and isinstance(owner[key], float | int):
            owner[key] *= float(rng.choice([-1, 0.5, 1.5, 1000, 1e9, 1e200]))
        else:
            owner[key] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
    text = json.dumps(document).replace(f'"{DIGITS}"', "9" * 5000)
    return text.replace(f'"{DEEP}"', "[" * 20000 + "]" * 20000).encode()


def _places(value: Any) -> Any:
    """(owner, key) of everything inside."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def made() -> Checkpoint:
    """A small checkpoint with each kind of content."""
    rng = np.random.default_rng(3)
    model = {
        "a.weight": rng.standard_normal((3, 5)).astype(np.float32),
        "count": np.array(7, np.int64),
        "empty": np.zeros((0, 4), np.float32),
    }
    optimizer = {"a.weight.momentum": rng.standard_normal((3, 5)).astype(np.float32)}
    extra = {"classes": ["naïve", "cell"], "model": {"options": {"sizes": [8, 16.5]}}}
    return Checkpoint(12, 7, {"seed": 7, "data.train": "x.json"}, model, optimizer, extra)


def damaged_checkpoint(data: bytes, rng: Random) -> tuple[bytes, bool]:
    """The bytes, and whether the checksum was made to fit again."""
    if rng.random() < 0.5:
        return damaged_bytes(data, rng), False
    (length,) = struct.unpack("<Q", data[:8])
    header, arrays = json.loads(data[8 : 8 + length]), data[8 + length :]
    signed = rng.random() < 0.5
    if signed:  # its metadata, well signed
        text = damaged_json(json.loads(header["__metadata__"]["metadata"]), rng).decode()
        whole = made()
        named = {
            f"{s}/{n}": a for s in ("model", "optimizer") for n, a in getattr(whole, s).items()
        }
        header["__metadata__"] |= {
            "metadata": text,
            "checksum": checkpoint._checksum(text, named),
        }
        encoded = json.dumps(header).encode()
    else:
        encoded = damaged_json(header, rng)
    return struct.pack("<Q", len(encoded)) + encoded + arrays, signed


def try_checkpoint(path: Path, data: bytes, rng: Random) -> str:
    """Load a damaged checkpoint; what it says when it is refused, and where it loads equal."""
    damaged, signed = damaged_checkpoint(data, rng)
    path.write_bytes(damaged)
    try:
        found = checkpoint.load(path)
    except DataError as error:
        assert str(path) in str(error), f"the file is not named: {error}"
        return "refused"
    whole = made()
    for section in ("model", "optimizer"):
        old, new = getattr(whole, section), getattr(found, section)
        assert set(old) == set(new), "other arrays were loaded"
        assert all(old[n].tobytes() == new[n].tobytes() for n in old), "an array has changed"
    assert signed or found.metadata() == whole.metadata(), "the metadata has changed"
    return "loaded"


STORAGES = ("FloatStorage", "HalfStorage", "LongStorage", "BoolStorage")
WEIGHTS_COUNTS = (6, 12, 3, 24)
WEIGHTS_MEMBERS = {f"data/{k}": bytes(range(24)) for k in range(len(STORAGES))}


def weights_pickle() -> bytes:
    """A state dict of several types, transposed and shared, inside another dictionary."""
    kinds = [
        weights_files.storage(kind, str(key), count)
        for key, (kind, count) in enumerate(zip(STORAGES, WEIGHTS_COUNTS, strict=True))
    ]
    items = {
        "a.weight": weights_files.tensor(of=kinds[0]),
        "a.transposed": weights_files.tensor((3, 2), (1, 3), of=kinds[0]),
        "a.half": weights_files.tensor((2, 2), (6, 2), 3, of=kinds[1]),
        "count": weights_files.tensor((), (), 2, of=kinds[2]),
        "mask": weights_files.tensor((24,), (1,), of=kinds[3]),
    }
    inner = weights_files.state(items, weights_files.ORDERED_DICT)[2:-1]
    return weights_files.state({"model": inner, "epoch": weights_files.whole(3)})


def try_weights(path: Path, data: bytes, rng: Random) -> str:
    """Read damaged weights; where they are read though no checksum was renewed, they are equal."""
    renewed = rng.random() < 0.6
    if renewed:  # of the pickle: what a writer with bad intent does
        pickled = damaged_bytes(weights_pickle(), rng)
        data = weights_files.archive(pickled, WEIGHTS_MEMBERS)
    path.write_bytes(data if renewed else damaged_bytes(data, rng))
    try:
        found = read_weights(path)
        copies = {name: np.array(array) for name, array in found.arrays.items()}
    except DataError as error:
        assert str(path) in str(error), f"the file is not named: {error}"
        return "refused"
    if not renewed:
        path.write_bytes(weights_files.archive(weights_pickle(), WEIGHTS_MEMBERS))
        whole = read_weights(path).arrays
        assert set(whole) == set(copies), "other arrays were loaded"
        assert all(np.array_equal(whole[n], copies[n]) for n in whole), "an array has changed"
    return "loaded"


def try_older_weights(path: Path, data: bytes, rng: Random) -> str:
    """The same in the format before zip, which has no checksum: any arrays may come out."""
    path.write_bytes(damaged_bytes(data, rng))
    try:
        found = read_weights(path)
    except DataError as error:
        assert str(path) in str(error), f"the file is not named: {error}"
        return "refused"
    for array in found.arrays.values():
        np.array(array)
    return "loaded"


def try_safetensors(path: Path, data: bytes, rng: Random) -> str:
    """Read a damaged safetensors file, which has no checksum: any arrays may come out."""
    (length,) = struct.unpack("<Q", data[:8])
    if rng.random() < 0.5:
        data = damaged_bytes(data, rng)
    else:
        encoded = damaged_json(json.loads(data[8 : 8 + length]), rng)
        data = struct.pack("<Q", len(encoded)) + encoded + data[8 + length :]
    path.write_bytes(data)
    try:
        found = read_weights(path)
    except DataError as error:
        assert str(path) in str(error), f"the file is not named: {error}"
        return "refused"
    assert found.nbytes <= len(data), "more arrays than bytes"
    return "loaded"


def try_annotations(path: Path, data: bytes, rng: Random) -> str:
    """Read damaged annotations as a training does; look them over as check-data does."""
    intact = json.loads(data)
    path.write_bytes(damaged_json(intact, rng) if rng.random() < 0.7 else damaged_bytes(data, rng))
    report = check_data(path, pictures=False)
    str(report)
    try:
        dataset = read_coco(path)
        loader = Loader(dataset, 2)
        loader.describe()
        loader.plan(0)
    except DataError as error:
        assert str(path) in str(error), f"the file is not named: {error}"
        return "refused"
    for image in dataset.images:
        for found in image.objects:
            if found.segmentation is not None:
                with contextlib.suppress(DataError):
                    decode_mask(found.segmentation, image.height, image.width)
    return "loaded"


def main(folder: Path, count: int, seed: int = 0) -> int:
    """`count` damaged files of each kind; 0 when all were loaded or refused."""
    content = data_files.document([(64, 48), (40, 80), (100, 100)])
    run_lengths: list[Any] = [[2000, 300, 772], r"`n1\9Th0"]
    for entry, counts in zip(content["annotations"], run_lengths, strict=False):
        entry["segmentation"] = {"size": [64, 48], "counts": counts}
    content["annotations"][4]["segmentation"] = [[1, 1, 20, 1, 20, 20.5]]
    annotations = data_files.write(folder, content, pictures=False)
    state = checkpoint.save(made(), folder)
    weights, plain = folder / "weights.pth", folder / "plain.safetensors"
    weights.write_bytes(weights_files.archive(weights_pickle(), WEIGHTS_MEMBERS))
    older = folder / "older.pth"
    storages = {str(k): (count, bytes(range(24))) for k, count in enumerate(WEIGHTS_COUNTS)}
    older.write_bytes(weights_files.before_zip(weights_pickle(), storages))
    read_weights(older)
    write_weights(plain, read_weights(weights).arrays)
    read_coco(annotations)  # intact, it is read
    kinds: dict[str, tuple[Callable[[Path, bytes, Random], str], Path]] = {
        "checkpoint": (try_checkpoint, state),
        "weights": (try_weights, weights),
        "older weights": (try_older_weights, older),
        "safetensors": (try_safetensors, plain),
        "annotation": (try_annotations, annotations),
    }
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MOST_MEMORY,) * 2)
    faulthandler.register(signal.SIGPROF, chain=True)
    failures = 0
    for kind, (attempt, path) in kinds.items():
        intact = path.read_bytes()
        seen: Counter[str] = Counter()
        slowest = 0.0
        for number in range(count):
            signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)  # its signal ends the process
            start = time.process_time()
            try:
                seen[attempt(path, intact, np.random.default_rng([seed, number]))] += 1
            except Exception:  # noqa: BLE001 - the error that must not be
                failures += 1
                kept = folder / f"{kind}_{number}"
                kept.write_bytes(path.read_bytes())
                print(f"{kind} {number} ({kept}):", file=sys.stderr)
                traceback.print_exc(limit=-4)
            slowest = max(slowest, time.process_time() - start)
        told = ", ".join(f"{n} {what}" for what, n in sorted(seen.items()))
        print(f"mutations: {count} {kind} files: {told}; slowest {slowest:.2f} s", flush=True)
    print(f"mutations: {failures} failures (seed {seed})")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), int(sys.argv[2]), *map(int, sys.argv[3:4])))
