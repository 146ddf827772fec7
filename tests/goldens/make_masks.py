# mypy: ignore-errors
"""Write masks.npz: torchvision's mask targets, mask head, loss, pasting and resizing of masks.

Run by hand in an environment with torch and torchvision. README.md says what each key means.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torchvision.models.detection import mask_rcnn, roi_heads, transform

sys.path.insert(0, str(Path(__file__).parent))
import recipe
import store

HEIGHT, WIDTH, OBJECTS, CLASSES = 60, 84, 4, 3
ROIS = (
    (10, 8, 41, 39), (12.3, 7.1, 39.8, 40.6), (-4, -6, 30, 25), (60, 30, 95, 70),
    (0, 0, 84, 60), (20.2, 20.1, 20.6, 20.7), (70, 50, 66, 55),
)  # fmt: skip
ROI_OBJECTS = (0, 0, 1, 2, 3, 3, 1)
OBJECT_LABELS = (1, 3, 2, 3)
PASTED = (
    (10.2, 8.7, 41.9, 30.1), (0, 0, 84, 60), (50.5, 40.2, 83.9, 59.5), (3.1, 4.2, 3.3, 4.3),
    (0.4, 20.0, 5.5, 60.0), (79.9, 0.0, 84.0, 9.0),
)  # fmt: skip


def masks() -> np.ndarray:
    """uint8[OBJECTS, HEIGHT, WIDTH]: ellipses with made holes."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    places = recipe.uniform("masks/places", (OBJECTS, 4))
    found = []
    for n, (a, b, c, d) in enumerate(places):
        middle = HEIGHT * (0.5 + 0.3 * a), WIDTH * (0.5 + 0.3 * b)
        radius = 8 + 6 * (c + 1), 8 + 9 * (d + 1)
        inside = ((y - middle[0]) / radius[0]) ** 2 + ((x - middle[1]) / radius[1]) ** 2 < 1
        found.append(inside & (recipe.uniform(f"masks/holes/{n}", (HEIGHT, WIDTH)) < 0.8))
    return np.array(found, np.uint8)


def main() -> None:
    arrays: dict[str, np.ndarray] = {"masks": masks()}
    true = torch.from_numpy(arrays["masks"])
    rois, objects = torch.tensor(ROIS, dtype=torch.float64), torch.tensor(ROI_OBJECTS)
    arrays["targets"] = roi_heads.project_masks_on_boxes(true.double(), rois, objects, 28).numpy()

    head = mask_rcnn.MaskRCNNHeads(8, (6, 6), 1).double()
    predictor = mask_rcnn.MaskRCNNPredictor(6, 6, CLASSES + 1).double()
    modules = torch.nn.ModuleDict({"mask_head": head, "mask_predictor": predictor})
    shapes = {name: tuple(p.shape) for name, p in modules.state_dict().items()}
    weights = recipe.recipe_weights(shapes)
    modules.load_state_dict({k: torch.from_numpy(v).double() for k, v in weights.items()})
    pooled = torch.from_numpy(recipe.uniform("masks/pooled", (len(ROIS), 8, 14, 14))).double()
    logits = predictor(head(pooled))
    labels = torch.tensor(OBJECT_LABELS)
    loss = roi_heads.maskrcnn_loss(logits, [rois], [true.double()], [labels], [objects])
    loss.backward()
    arrays["logits"] = logits.detach().numpy()
    arrays["loss"] = loss.detach().numpy()
    for name, p in modules.named_parameters():
        arrays[f"gradient/{name}"] = p.grad.numpy()
    found = roi_heads.maskrcnn_inference(logits, [labels[objects]])[0][:, 0]
    arrays["probabilities"] = found.detach().numpy()

    small = torch.from_numpy((recipe.uniform("masks/pasted", (len(PASTED), 1, 28, 28)) + 1) / 2)
    boxes = torch.tensor(PASTED)
    arrays["pasted"] = roi_heads.paste_masks_in_image(small, boxes, (HEIGHT, WIDTH))[:, 0].numpy()
    for short, longest in ((47, 1000), (75, 1000), (133, 150)):
        image = torch.zeros(3, HEIGHT, WIDTH)
        _, target = transform._resize_image_and_masks(
            image, float(short), float(longest), {"masks": true}
        )
        arrays[f"resized/{short}"] = target["masks"].numpy()
    path = Path(__file__).parent / "masks.npz"
    store.save(path, {k: _small(v) for k, v in arrays.items()})


def _small(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float64 else array


if __name__ == "__main__":
    main()
