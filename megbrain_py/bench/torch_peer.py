"""torch's side of the comparisons: the only file that knows torch, run by worker.py alone.

Each workload does what the one of the same name in ours.py does, on the same numbers.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

# Beside this file; in the peer's process there is no package.
inputs: Any = importlib.import_module("inputs")

MOMENTUM, DECAY, RATE = 0.9, 1e-4, 0.001
Workload = tuple[Callable[[], object], dict[str, Any]]


def resnet50(
    built: Any,
    batch: int,
    size: int,
    compile: bool = False,
    activation_budget: float | None = None,
    checkpoint: bool = False,
) -> Workload:
    """An SGD step of ResNet-50, channels_last, eager unless `compile`.

    activation_budget: torch.compile's, a share of what it would save for the backward pass.
    checkpoint: each block's inner values are made again.
    """
    torch: Any = importlib.import_module("torch")
    torchvision: Any = importlib.import_module("torchvision")
    model = torchvision.models.resnet50().to(memory_format=torch.channels_last)
    if checkpoint:
        again: Any = importlib.import_module("torch.utils.checkpoint")
        for module in model.modules():
            if isinstance(module, torchvision.models.resnet.Bottleneck):
                module.forward = functools.partial(
                    again.checkpoint, module.forward, use_reentrant=False
                )
    if activation_budget is not None:
        config: Any = importlib.import_module("torch._functorch.config")
        config.activation_memory_budget = activation_budget
    forward = torch.compile(model) if compile else model
    return _classifier(torch, built, model, forward, *inputs.classification(batch, size))


def resnet1001(built: Any, batch: int, size: int, depth: int = 1001, segments: int = 0) -> Workload:
    """An SGD step of the pre-activation network, channels_last; segments: of checkpoint_sequential,
    none with 0."""
    torch: Any = importlib.import_module("torch")
    again: Any = importlib.import_module("torch.utils.checkpoint")
    nets: Any = importlib.import_module("torch_preactivation")
    classes = 10
    model = nets.PreactivationResNet(depth, classes).to(memory_format=torch.channels_last)
    if segments:
        model.through = lambda blocks, x: again.checkpoint_sequential(
            blocks, segments, x, use_reentrant=False
        )
    return _classifier(torch, built, model, model, *inputs.classification(batch, size, classes))


def _classifier(
    torch: Any, built: Any, model: Any, forward: Any, pictures: Any, labels: Any
) -> Workload:
    x = torch.from_numpy(pictures).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels)
    built()
    sgd = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)

    def step() -> float:
        sgd.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward(x), y)
        loss.backward()
        sgd.step()
        return float(loss.detach())

    return step, _facts(torch)


def _facts(torch: Any) -> dict[str, Any]:
    return {"version": torch.__version__, "threads": torch.get_num_threads()}


def _faster_rcnn(torchvision: Any, size: int) -> Any:
    """torchvision's Faster R-CNN R50-FPN, all of it trained; pictures are not resized."""
    return torchvision.models.detection.fasterrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=inputs.CLASSES + 1,
        min_size=size,
        max_size=size,
    )


def detector(
    built: Any, batch: int, size: int, boxes: int, channels_last: bool = False
) -> Workload:
    """An SGD step of Faster R-CNN, as torchvision has it or with weights in channels_last."""
    torch: Any = importlib.import_module("torch")
    torchvision: Any = importlib.import_module("torchvision")
    fed = inputs.detection(batch, size, boxes)
    model = _faster_rcnn(torchvision, size).train()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    pictures = [torch.from_numpy(picture) for picture in fed["images"]]
    truth = [
        {"boxes": torch.from_numpy(b), "labels": torch.from_numpy(kinds.astype("int64"))}
        for b, kinds in zip(fed["boxes"], fed["labels"], strict=True)
    ]
    built()
    sgd = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)

    def step() -> float:
        sgd.zero_grad()
        loss = sum(model(pictures, truth).values())
        loss.backward()
        sgd.step()
        return float(loss.detach())

    return step, _facts(torch)


def detect(built: Any, size: int, channels_last: bool = False) -> Workload:
    """Faster R-CNN finds objects in one picture."""
    torch: Any = importlib.import_module("torch")
    torchvision: Any = importlib.import_module("torchvision")
    model = _faster_rcnn(torchvision, size).eval()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    picture = torch.from_numpy(inputs.detection(1, size, 0)["images"][0])
    built()

    def step() -> Any:
        with torch.inference_mode():
            return model([picture])

    return step, _facts(torch)


def roi_align(built: Any, rois: int, channels: int, side: int) -> Workload:
    """Forward and backward."""
    torch: Any = importlib.import_module("torch")
    ops: Any = importlib.import_module("torchvision.ops")
    case = inputs.roi_align(rois, channels, side)
    x = torch.from_numpy(case.features).requires_grad_()
    boxes, dy = torch.from_numpy(case.boxes), torch.from_numpy(case.gradient)
    built()

    def step() -> None:
        x.grad = None
        ops.roi_align(x, [boxes], 7, case.scale, sampling_ratio=2).backward(dy)

    return step, _facts(torch)


def prroi(built: Any, rois: int, channels: int, side: int) -> Workload:
    """RoI Align, which detectors use instead: torchvision has no Precise RoI Pooling."""
    return roi_align(built, rois, channels, side)


def nms(built: Any, boxes: int) -> Workload:
    """Which of many random boxes stay."""
    torch: Any = importlib.import_module("torch")
    ops: Any = importlib.import_module("torchvision.ops")
    fed, scores = (torch.from_numpy(a) for a in inputs.nms(boxes))
    built()
    kept = len(ops.nms(fed, scores, inputs.NMS_IOU))
    return lambda: ops.nms(fed, scores, inputs.NMS_IOU), {**_facts(torch), "kept": kept}


WORKLOADS = {
    "resnet50": resnet50,
    "resnet1001": resnet1001,
    "detector": detector,
    "detect": detect,
    "roi_align": roi_align,
    "prroi": prroi,
    "nms": nms,
}
