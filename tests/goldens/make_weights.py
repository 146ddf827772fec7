# mypy: ignore-errors
"""Write goldens/weights: files of torch.save and safetensors; check whole detectors both ways.

Run by hand with PYTHONPATH=. in an environment with torch and torchvision, which only the
functions below `expected` need. README.md says what the files hold.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from recipe import recipe_weights, uniform
from store import save

FOLDER = Path(__file__).with_name("weights")


def expected() -> dict[str, np.ndarray]:
    """The arrays of the small files by name; `bfloat16` is float32 in numpy."""
    base = uniform("weights/base", (4, 6))
    upper = base.view(np.uint32) & np.uint32(0xFFFF0000)  # what a bfloat16 holds of them
    return {
        "plain": base,
        "transposed": base.T,
        "strided": base[1:3, ::2],
        "flat": base.reshape(-1),
        "expanded": np.broadcast_to(base[0, :1], (5,)),
        "parameter": base[2],
        "float16": base.astype(np.float16),
        "bfloat16": upper.view(np.float32),
        "float64": base.astype(np.float64) / 3,
        "int64": np.arange(-3, 3) << 40,
        "int32": np.arange(-3, 3, dtype=np.int32) << 20,
        "int16": np.arange(-3, 3, dtype=np.int16) << 10,
        "int8": np.arange(-3, 3, dtype=np.int8),
        "uint8": np.arange(250, 256, dtype=np.uint8),
        "bool": np.arange(6) % 3 == 0,
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
        "a.nested.name-ä": base[:, :1],
    }


def tensors():
    """The same as torch has them: views share the storage of `plain`."""
    import torch

    made = {name: torch.from_numpy(np.array(array)) for name, array in expected().items()}
    plain = made["plain"]
    views = {
        "transposed": plain.t(), "strided": plain[1:3, ::2], "flat": plain.view(-1),
        "expanded": plain[0, :1].expand(5), "parameter": torch.nn.Parameter(plain[2]),
        "a.nested.name-ä": plain[:, :1],
    }  # fmt: skip
    made["bfloat16"] = made["bfloat16"].bfloat16()
    return {name: views.get(name, tensor) for name, tensor in made.items()}


def write_small() -> None:
    """whole.pth, nested.pth, legacy.pth, plain.safetensors."""
    from collections import OrderedDict

    import safetensors.torch
    import torch

    state = OrderedDict(tensors())
    state._metadata = OrderedDict([("", {"version": 1})])
    torch.save(state, FOLDER / "whole.pth")
    torch.save({"epoch": 3, "model": state, "notes": ["a", 1.5, None]}, FOLDER / "nested.pth")
    torch.save(state, FOLDER / "legacy.pth", _use_new_zipfile_serialization=False)
    apart = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    safetensors.torch.save_file(apart, FOLDER / "plain.safetensors")


def networks():
    """torchvision's networks by name, with the recipe's weights."""
    import torch
    from torchvision.models import detection, resnet18, resnet50

    nothing = {"weights": None, "weights_backbone": None}
    for name, network in (
        ("resnet18", resnet18()),
        ("resnet50", resnet50()),
        ("fasterrcnn", detection.fasterrcnn_resnet50_fpn(**nothing)),
        ("maskrcnn", detection.maskrcnn_resnet50_fpn(**nothing)),
    ):
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        weights = {key: torch.from_numpy(value) for key, value in recipe_weights(shapes).items()}
        network.load_state_dict(weights, strict=False)
        yield name, network


def round_trip(name: str, network, folder: Path) -> None:
    """torchvision -> ours -> torchvision: every tensor with the same bits, both formats."""
    import safetensors.torch
    import torch

    from megbrain_py.weights import read_weights, write_weights

    state = network.state_dict()
    torch.save(state, folder / "theirs.pth")
    safetensors.torch.save_file(state, folder / "theirs.safetensors")
    torch.save(state, folder / "older.pth", _use_new_zipfile_serialization=False)
    older = read_weights(folder / "older.pth").arrays
    assert all(np.array_equal(older[key], value.numpy()) for key, value in state.items()), name
    for ending in ("pth", "safetensors"):
        read = read_weights(folder / f"theirs.{ending}")
        write_weights(folder / f"ours.{ending}", read.arrays)
        path = folder / f"ours.{ending}"
        load = safetensors.torch.load_file if ending == "safetensors" else torch.load
        back = load(path)
        network.load_state_dict(back)
        same = all(back[k].dtype == v.dtype and torch.equal(back[k], v) for k, v in state.items())
        assert same and list(read.tensors.keys() ^ state.keys()) == [], name
        print(f"{name}: {len(back)} tensors bit-equal through .{ending}")


def main() -> None:
    """Write the files, then check the round trips."""
    FOLDER.mkdir(exist_ok=True)
    write_small()
    shapes = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, network in networks():
            shapes[name] = {key: list(value.shape) for key, value in network.state_dict().items()}
            round_trip(name, network, Path(folder))
    text = np.frombuffer(json.dumps(shapes).encode(), np.uint8)
    save(FOLDER / "shapes.npz", {"shapes": text})
    print(", ".join(f"{p.name} {p.stat().st_size}" for p in sorted(FOLDER.iterdir())))


if __name__ == "__main__":
    sys.exit(main())
