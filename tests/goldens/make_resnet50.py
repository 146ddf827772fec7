# mypy: ignore-errors
"""Write resnet50.npz: torchvision's ResNet-50 with recipe weights, run in float64.

Run by hand in an environment with torch and torchvision; prints how far a float32 run of the same
oracle lies from the stored numbers, which is what the test's bars must be wide against.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from recipe import recipe_image, recipe_weights, summary
from store import save

BATCH, SIZE = 2, 64
SAMPLES = 32
LABELS = np.array([3, 141], np.int64)
MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
FEATURES = ("relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")


def images() -> np.ndarray:
    """float32[BATCH, 3, SIZE, SIZE], normalised as for ImageNet."""
    return np.stack(
        [(recipe_image(f"resnet50/{i}", SIZE, SIZE) - MEAN) / STD for i in range(BATCH)]
    )


def model(dtype: torch.dtype) -> torch.nn.Module:
    """torchvision's resnet50 with the recipe's weights."""
    net = torchvision.models.resnet50(weights=None)
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    weights = {name: torch.from_numpy(value) for name, value in recipe_weights(shapes).items()}
    missing = net.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in missing.missing_keys)
    return net.to(dtype)


def run(train: bool, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Everything the test may compare, in full, by the keys of the golden file."""
    mode = "train" if train else "eval"
    net = model(dtype).train(train)
    found: dict[str, np.ndarray] = {}
    for name in FEATURES:
        net.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: found.__setitem__(
                f"{mode}/features/{name}", output.detach().numpy().copy()
            )
        )
    logits = net(torch.from_numpy(images()).to(dtype))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(LABELS))
    loss.backward()
    found[f"{mode}/logits"] = logits.detach().numpy()
    found[f"{mode}/loss"] = loss.detach().numpy()
    for name, parameter in net.named_parameters():
        found[f"{mode}/gradient/{name}"] = parameter.grad.numpy()
    if train:
        for name, buffer in net.named_buffers():
            if not name.endswith("num_batches_tracked"):
                found[f"{mode}/statistics/{name}"] = buffer.numpy()
    return found


def relative(ours: np.ndarray, golden: np.ndarray) -> float:
    """max|a - b| / max|b|."""
    return float(np.abs(ours - golden).max() / np.abs(golden).max())


def report(narrow: dict[str, np.ndarray], wide: dict[str, np.ndarray]) -> None:
    """Print the largest relative error of the float32 oracle by kind of quantity."""
    worst: dict[str, tuple[float, str]] = {}
    for key, golden in wide.items():
        kind = "/".join(key.split("/")[:2])
        worst[kind] = max(worst.get(kind, (0.0, "")), (relative(narrow[key], golden), key))
    for kind, (error, key) in worst.items():
        print(f"{kind:20} {error:.2e}  {key}")


def main() -> None:
    """Run both modes in both precisions, report the margins and write the file."""
    torch.manual_seed(0)
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("resnet50.npz")
    arrays = {
        "batch_and_size": np.array([BATCH, SIZE], np.int64),
        "labels": LABELS,
    }
    for train in (False, True):
        wide = run(train, torch.float64)
        report(run(train, torch.float32), wide)
        for key, value in wide.items():
            if key.endswith(("/logits", "/loss")):
                arrays[key] = np.asarray(value, np.float32)
            else:
                arrays.update(summary(key, value.astype(np.float32), SAMPLES))
    save(path, arrays)
    print(f"{path}: {path.stat().st_size} bytes, {len(arrays)} arrays")


if __name__ == "__main__":
    main()
