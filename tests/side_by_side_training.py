# mypy: ignore-errors
"""The training step of side_by_side.py: losses and all gradients on torchvision's samples."""

from __future__ import annotations

import numpy as np
import torch
from both_sides import Table, build, compiled, config_of, pictures, truth
from golden_detector import GRADIENT_BAR, padded
from torchvision.ops import box_iou

import megbrain_py as mb
from megbrain_py.data import masks as masks_of
from megbrain_py.models.faster_rcnn.mask_heads import TrueMasks
from megbrain_py.models.faster_rcnn.roi_heads import Drawn

MOST_TRUE = 4  # rows of the padded ground truth


def training(table: Table, args) -> None:
    """Losses and all gradients of one step on torchvision's samples."""
    config = config_of(args, None)
    theirs, ours = build(args, config, {"min_size": args.short, "max_size": args.long})
    theirs.double().train()
    torch.manual_seed(args.seed)
    caught = {}
    sampler, select = theirs.rpn.fg_bg_sampler, theirs.roi_heads.select_training_samples

    def sample_anchors(labels):
        caught["rpn"] = sampler(labels)
        return caught["rpn"]

    def select_rois(proposals, targets):
        caught["roi"] = select(proposals, targets)
        return caught["roi"]

    theirs.rpn.fg_bg_sampler, theirs.roi_heads.select_training_samples = sample_anchors, select_rois
    has_masks = config.mask == "head"
    images = [image.double() for image in pictures(args.seed)]
    targets = [{k: v.double() if v.is_floating_point() else v for k, v in target.items()}
               for target in truth(has_masks)]  # fmt: skip
    losses = theirs(images, targets)
    sum(losses.values()).backward()
    batch, ground = theirs.transform(images, targets)
    feeds = step_feeds(config, theirs, batch, ground, caught, has_masks)

    def outputs(x):
        levels = ours.backbone(x["images"])
        found = ours.rpn.candidates(levels, tuple(batch.tensors.shape[2:]))
        names = ("rois", "roi_truth", "roi_labels", "roi_positives", "roi_total")
        objects = x["roi_objects"] if has_masks else x["roi_labels"]  # only masks need them
        drawn = Drawn(*(x[name] for name in names), objects)
        made = {
            **ours.roi_heads.losses(levels, drawn),
            **ours.rpn.losses_of(found, x["boxes"], x["matches"], x["drawn"],
                                 x["rpn_positives"], x["rpn_total"]),
        }  # fmt: skip
        if has_masks:
            true = TrueMasks(x["masks"], x["places"], x["sizes"])
            made["loss_mask"] = ours.roi_heads.mask_loss(levels, drawn, true)
        total = None
        for value in made.values():
            total = value if total is None else total + value
        named = ours.named_parameters()
        gradients = mb.gradients(total, list(named.values()))
        return {**made, **{f"d {n}": g for n, g in zip(named, gradients, strict=True)}}

    got = compiled(outputs, feeds)
    assert set(losses) == {name for name in got if not name.startswith("d ")}
    for name, value in losses.items():
        table.worst(name, [(np.asarray(got[name]), value)])
    parameters = {n: p for n, p in theirs.named_parameters() if p.requires_grad}
    assert {f"d {name}" for name in parameters} == {name for name in got if name.startswith("d ")}
    parts = ("backbone.body", "backbone.fpn", "rpn", "roi_heads")
    for part in parts:
        pairs = [(got[f"d {n}"], p.grad) for n, p in parameters.items() if n.startswith(part)]
        table.worst(f"{len(pairs)} gradients of {part}", pairs, GRADIENT_BAR)
        if args.verbose:
            for name, p in parameters.items():
                if name.startswith(part):
                    table.worst(name, [(got[f"d {name}"], p.grad)], GRADIENT_BAR)


def step_feeds(config, theirs, batch, ground, caught, has_masks):
    """The batch, its truth and torchvision's samples, positives first."""
    positive, negative = ([torch.where(m)[0].numpy() for m in part] for part in caught["rpn"])
    both = [np.concatenate(pair) for pair in zip(positive, negative, strict=True)]
    with torch.no_grad():
        features = theirs.backbone(batch.tensors)
        anchors = theirs.rpn.anchor_generator(batch, list(features.values()))
        matches = [theirs.rpn.proposal_matcher(box_iou(t["boxes"], a))
                   for t, a in zip(ground, anchors, strict=True)]  # fmt: skip
    rois, objects, labels = ([v.numpy() for v in part] for part in caught["roi"][:3])
    order = [np.argsort(row == 0, kind="stable") for row in labels]
    boxes = [t["boxes"].numpy() for t in ground]

    def rows(values, dtype):
        picked = [v[at] for v, at in zip(values, order, strict=True)]
        return padded(picked, config.roi.samples, dtype)

    def counts(values):
        return np.array([len(v) for v in values], np.int32)

    feeds = {
        "images": batch.tensors.numpy(),
        "boxes": padded(boxes, MOST_TRUE, np.float32),
        "matches": np.stack([m.numpy() for m in matches]).astype(np.int32),
        "drawn": padded(both, config.rpn.samples, np.int32),
        "rpn_positives": counts(positive),
        "rpn_total": counts(both),
        "rois": rows(rois, np.float32),
        "roi_truth": rows([b[o] for b, o in zip(boxes, objects, strict=True)], np.float32),
        "roi_labels": rows(labels, np.int32),
        "roi_positives": counts([row[row > 0] for row in labels]),
        "roi_total": counts(labels),
    }
    if has_masks:
        feeds["roi_objects"] = rows(objects, np.int32)
        cropped = [[masks_of.crop(m) for m in t["masks"].numpy()] for t in ground]
        pixels = max(sum(c.pixels.size for c in part) for part in cropped)
        feeds["sizes"] = np.array(batch.image_sizes, np.int32)
        feeds["masks"] = np.zeros((2, pixels), np.uint8)
        feeds["places"] = np.zeros((2, MOST_TRUE, 5), np.int32)
        for i, part in enumerate(cropped):
            masks_of.pack(part, feeds["masks"][i], feeds["places"][i])
    return feeds
