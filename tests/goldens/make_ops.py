# mypy: ignore-errors
"""Write ops.npz: torchvision's box and RoI operators on small inputs, with the inputs' values.

Run by hand in an environment with torch and torchvision. README.md says what each key means.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from margins import nms_margin
from recipe import uniform
from store import save
from torchvision.models.detection import _utils
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign, batched_nms, box_iou, roi_align, roi_pool
from torchvision.ops.poolers import LevelMapper

# Batch index, x1, y1, x2, y2 in image pixels (scale 1/4): inside, fractional, partly outside on
# every side, wholly outside, thin, empty, inverted, one pixel, the whole map and beyond.
ROIS = (
    (0, 4.0, 8.0, 36.0, 40.0),
    (1, 3.3, 5.7, 29.9, 41.2),
    (0, -12.5, -7.25, 20.0, 18.0),
    (1, 30.0, 25.0, 90.0, 80.0),
    (0, 200.0, 200.0, 240.0, 260.0),
    (1, 10.0, 4.0, 10.4, 44.0),
    (0, 16.0, 16.0, 16.0, 16.0),
    (1, 30.0, 30.0, 20.0, 12.0),
    (0, 7.9, 7.9, 8.1, 8.1),
    (1, -10.0, -10.0, 70.0, 60.0),
)


def numbers(name: str, *shape: int) -> torch.Tensor:
    """The recipe's numbers under `ops/name`, as float64."""
    return torch.from_numpy(uniform(f"ops/{name}", shape)).double()


def stored(value: torch.Tensor) -> np.ndarray:
    """float64 as float32, others as they are."""
    array = value.detach().numpy()
    return array.astype(np.float32) if array.dtype == np.float64 else array


def roi_aligns() -> dict[str, np.ndarray]:
    """roi_align forward and gradient for every mode."""
    rois = torch.tensor(ROIS, dtype=torch.float32).double()
    arrays = {"roi_align/rois": stored(rois)}
    for aligned in (False, True):
        for ratio in (2, 0, -1):
            features = numbers("roi_align/features", 2, 3, 12, 15).requires_grad_()
            out = roi_align(features, rois, (5, 3), 0.25, ratio, aligned)
            out.backward(numbers("roi_align/weights", *out.shape))
            key = f"roi_align/{'aligned' if aligned else 'legacy'}/{ratio}"
            arrays[f"{key}/output"] = stored(out)
            arrays[f"{key}/gradient"] = stored(features.grad)
    return arrays


def roi_pools() -> dict[str, np.ndarray]:
    """roi_pool (max) forward and gradient, in float32: where it rounds decides what it reads."""
    features = numbers("roi_pool/features", 2, 3, 12, 15).float().requires_grad_()
    out = roi_pool(features, torch.tensor(ROIS, dtype=torch.float32), (5, 3), 0.25)
    out.backward(numbers("roi_pool/weights", *out.shape).float())
    return {"roi_pool/output": stored(out), "roi_pool/gradient": stored(features.grad)}


def levels() -> dict[str, np.ndarray]:
    """The level of boxes around the borders 112, 224, 448 and the pooled values of a few."""
    sides = [1, 16, 100, 111.9, 111.99, 112, 112.1, 223.9, 224, 300, 447.9, 448, 449, 900]
    wide = [(0.0, 0.0, side, side) for side in sides]
    tall = [(5.0, 3.0, 5.0 + side / 2, 3.0 + side * 2) for side in sides]
    boxes = torch.tensor(wide + tall, dtype=torch.float32)
    mapped = LevelMapper(2, 5)([boxes])
    maps = {str(k): numbers(f"levels/{k}", 1, 2, 64 >> k, 64 >> k) for k in range(4)}
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 2, 2)
    small = boxes[boxes[:, 2:].max(1).values <= 256]
    pooled = pool(maps, [small.double()], [(256, 256)])
    return {
        "levels/boxes": stored(boxes),
        "levels/level": mapped.numpy(),
        "levels/pooled_boxes": stored(small),
        "levels/pooled": stored(pooled),
    }


def nms() -> dict[str, np.ndarray]:
    """Two sizes: 300 boxes (coordinate trick) and 1100 (class by class), four classes each."""
    arrays: dict[str, np.ndarray] = {}
    for count in (300, 1100):
        for seed in range(100):
            raw = uniform(f"ops/nms/{count}/{seed}", (count, 5))
            raw = torch.from_numpy(raw)
            corner, side = raw[:, :2] * 100 + 100, raw[:, 2:4] * 30 + 40
            boxes = torch.cat([corner, corner + side], 1)
            scores = raw[:, 4] * 0.5 + 0.5
            groups = torch.arange(count) % 4
            iou, _ = nms_margin(boxes.double(), scores.double(), groups, 0.5)
            if iou > 3e-5 and len(scores.unique()) == count:
                break
        else:
            raise SystemExit("no seed with a margin")
        arrays[f"nms/{count}/boxes"], arrays[f"nms/{count}/scores"] = boxes.numpy(), scores.numpy()
        arrays[f"nms/{count}/groups"] = groups.numpy().astype(np.int32)
        arrays[f"nms/{count}/keep"] = batched_nms(boxes, scores, groups, 0.5).numpy()
        arrays[f"nms/{count}/margin"] = np.array(iou)
    return arrays


def coder() -> dict[str, np.ndarray]:
    """Encode and decode, with deltas beyond the clamp ln(1000 / 16)."""
    arrays: dict[str, np.ndarray] = {}
    raw = numbers("coder/boxes", 2, 20, 4)
    boxes = torch.cat([raw[..., :2] * 50 + 60, raw[..., :2] * 50 + 80 + raw[..., 2:] * 15], -1)
    boxes = boxes.float().double()
    deltas = numbers("coder/deltas", 20, 8) * 3
    deltas[0, 2:4], deltas[1, 6:8] = 60.0, -60.0
    arrays["coder/reference"], arrays["coder/anchors"] = stored(boxes[0]), stored(boxes[1])
    arrays["coder/deltas"] = stored(deltas)
    for name, weights in (("rpn", (1.0, 1.0, 1.0, 1.0)), ("roi", (10.0, 10.0, 5.0, 5.0))):
        box_coder = _utils.BoxCoder(weights)
        arrays[f"coder/{name}/encoded"] = stored(box_coder.encode_single(boxes[0], boxes[1]))
        arrays[f"coder/{name}/decoded"] = stored(
            box_coder.decode_single(deltas.float().double(), boxes[1])
        )
    return arrays


def matcher() -> dict[str, np.ndarray]:
    """Ties, exact thresholds and low-quality matches, from quality matrices and from boxes."""
    quality = torch.tensor(
        [
            [0.9, 0.7, 0.3, 0.25, 0.0, 0.5, 0.5, 0.69, 0.2],
            [0.9, 0.1, 0.3, 0.25, 0.0, 0.6, 0.4, 0.10, 0.2],
            [0.1, 0.2, 0.0, 0.28, 0.0, 0.1, 0.28, 0.05, 0.28],
            [0.0, 0.0, 0.0, 0.00, 0.0, 0.0, 0.00, 0.00, 0.0],
        ]
    )
    arrays = {"matcher/quality": quality.numpy()}
    for rows in (3, 4):  # with the fourth row, a ground truth without overlap ties with everything
        for low in (False, True):
            for high, below in ((0.7, 0.3), (0.5, 0.5)):
                found = _utils.Matcher(high, below, low)(quality[:rows])
                key = f"matcher/{rows}/{'low' if low else 'plain'}/{high}"
                arrays[key] = found.numpy().astype(np.int16)
    gt = torch.tensor([[16.0, 16.0, 48.0, 48.0], [0.0, 0.0, 8.0, 8.0]])
    step = torch.arange(0, 64, 8).float()
    y, x = torch.meshgrid(step, step, indexing="ij")
    boxes = torch.stack([x, y, x + 24, y + 24], -1).reshape(-1, 4)
    iou = box_iou(gt, boxes)
    arrays["matcher/gt"], arrays["matcher/boxes"] = gt.numpy(), boxes.numpy()
    arrays["matcher/iou"] = iou.numpy()
    arrays["matcher/boxes_matched"] = _utils.Matcher(0.7, 0.3, True)(iou).numpy().astype(np.int16)
    return arrays


def anchors() -> dict[str, np.ndarray]:
    """Two levels whose strides differ by axis, three sizes and ratios."""
    generator = AnchorGenerator(((16, 23), (32, 45)), ((0.5, 1.0, 2.0), (0.5, 1.0, 3.0)))
    images = ImageList(torch.zeros(1, 3, 64, 100), [(60, 97)])
    maps = [torch.zeros(1, 1, 8, 12), torch.zeros(1, 1, 4, 6)]
    found = generator(images, maps)[0]
    cells = [cell.numpy() for cell in generator.cell_anchors]
    return {"anchors/all": found.numpy(), "anchors/cell/0": cells[0], "anchors/cell/1": cells[1]}


def main() -> None:
    """Write the file."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("ops.npz")
    arrays: dict[str, np.ndarray] = {}
    for part in (roi_aligns, roi_pools, levels, nms, coder, matcher, anchors):
        arrays.update(part())
    save(path, arrays)
    print(f"{path}: {path.stat().st_size} bytes, {len(arrays)} arrays")


if __name__ == "__main__":
    main()
