# mypy: ignore-errors
"""Print how far our detectors are from torchvision's, stage by stage, with the same made weights.

    PYTHONPATH=. <python with torch and torchvision> tests/side_by_side.py [options]

Both run in float32, as they are used, but torchvision's training step in float64. Presets with all
their numbers. Every stage of ours is fed with torchvision's tensors of the stage before. Then comes
a training step on torchvision's samples, with all gradients, and images to detections with the
goldens' smaller counts. Ends with 1 when a difference is larger than its bar.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import numpy as np
import torch
from both_sides import Table, build, compiled, config_of, pictures
from golden_detector import BAR, padded
from make_faster_rcnn import (
    OPTIONS,
    SIZES,
    detection_margins,
    flat_rpn,
    proposal_margins,
)
from side_by_side_training import training
from torchvision.models.detection.roi_heads import maskrcnn_inference
from torchvision.ops import box_iou

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.data import masks as masks_of
from megbrain_py.data.transforms import MEAN, STD, Resize, bilinear, normalise_into
from megbrain_py.models.rpn import Proposals
from megbrain_py.models.rpn.rpn import Candidates

MARGIN = 1e-4  # of every decision on the way to the final sets


def transformed(images, resize: Resize, shape) -> np.ndarray:
    """Our transform of the pictures, at the size of torchvision's batch."""
    batch = np.zeros(shape, np.float32)
    for out, image in zip(batch, images, strict=True):
        pixels = image.numpy().transpose(1, 2, 0) * np.float32(255)
        normalise_into(out, bilinear(pixels, *resize.size(*pixels.shape[:2])), MEAN, STD)
    return batch


def reference(theirs, images) -> dict:
    """torchvision's tensors of every stage, in eval mode."""
    heads = theirs.roi_heads
    with torch.no_grad():
        batch, _ = theirs.transform(images)
        body = list(theirs.backbone.body(batch.tensors).values())
        features = theirs.backbone.fpn({str(k): v for k, v in enumerate(body)})
        logits, deltas, per_level, *_ = flat_rpn(theirs, features)
        anchors = theirs.rpn.anchor_generator(batch, list(features.values()))
        boxes = theirs.rpn.box_coder.decode(deltas, anchors).view(2, -1, 4)
        proposals, scores = theirs.rpn.filter_proposals(boxes, logits, batch.image_sizes, per_level)
        pooled = heads.box_roi_pool(features, proposals, batch.image_sizes)
        kinds, offsets = heads.box_predictor(heads.box_head(pooled))
        found = heads.postprocess_detections(kinds, offsets, proposals, batch.image_sizes)
        result = {
            "batch": batch, "body": body, "levels": list(features.values()), "logits": logits,
            "deltas": deltas.reshape(2, -1, 4), "ends": np.cumsum([0, *per_level]),
            "anchors": anchors[0], "proposals": proposals, "scores": scores, "pooled": pooled,
            "kinds": kinds, "offsets": offsets, "found": found,
        }  # fmt: skip
        if heads.has_mask():
            pooled = heads.mask_roi_pool(features, found[0], batch.image_sizes)
            result["mask_logits"] = heads.mask_predictor(heads.mask_head(pooled))
            maps = maskrcnn_inference(result["mask_logits"], found[2])
            result["mask_maps"] = torch.cat(maps)[:, 0]
    return result


def stage_feeds(config, true: dict) -> dict[str, np.ndarray]:
    """torchvision's tensors as the inputs of our stages."""
    counts = [len(part) for part in true["proposals"]]
    rows, shots = config.rpn.post_nms_test, config.roi.detections

    def split(parts, size, dtype=np.float32):
        return padded([part.numpy() for part in parts], size, dtype)

    offsets = true["offsets"].reshape(len(true["offsets"]), -1, 4)
    feeds = {
        "images": true["batch"].tensors.numpy(),
        "sizes": np.array(true["batch"].image_sizes, np.int32),
        **{f"C{k + 2}": v.numpy() for k, v in enumerate(true["body"])},
        **{f"P{k + 2}": v.numpy() for k, v in enumerate(true["levels"])},
        "logits": true["logits"].numpy(),
        "deltas": true["deltas"].numpy(),
        "rois": split(true["proposals"], rows),
        "count": np.array(counts, np.int32),
        "kinds": split(true["kinds"].split(counts), rows),
        "offsets": split(offsets.split(counts), rows),
    }
    if "mask_logits" in true:
        feeds["boxes"] = split(true["found"][0], shots)
        feeds["labels"] = split(true["found"][2], shots, np.int32)
        feeds["shots"] = np.array([len(boxes) for boxes in true["found"][0]], np.int32)
    return feeds


def stage_outputs(ours, x, ends, padding):
    """Every stage of ours, each on its own inputs."""
    pyramid = [x[f"P{k}"] for k in range(2, 7)]
    heads = ours.roi_heads
    head = ours.rpn.candidates(pyramid, padding)
    parts = [(int(a), int(b)) for a, b in pairwise(ends)]
    given = Candidates(
        [x["logits"][:, a:b] for a, b in parts], [x["deltas"][:, a:b] for a, b in parts],
        head.anchors,
    )  # fmt: skip
    kept = ours.rpn.proposals(given, x["sizes"], training=False)
    kinds, offsets = heads.predict(pyramid, x["rois"], x["count"])
    blank = mb.graph.constant(np.zeros(x["rois"].shape[:2], np.float32))
    proposals = Proposals(x["rois"], blank, x["count"])
    last = heads.detections(x["kinds"], x["offsets"], proposals, x["sizes"])
    fpn = ours.backbone.fpn([x[f"C{k}"] for k in range(2, 6)])
    made = {
        **ours.backbone.body.stages(x["images"]),
        **{f"P{k + 2}": level for k, level in enumerate(fpn)},
        "rpn_logits": F.concat(head.logits, 1),
        "rpn_deltas": F.concat(head.deltas, 1),
        "anchors": F.concat(head.anchors, 0),
        "proposals": kept.boxes,
        "proposal_scores": F.sigmoid(kept.scores),
        "proposal_count": kept.count,
        "pooled": heads.pooled(pyramid, x["rois"], x["count"]),
        "class_logits": F.reshape(kinds, (-1, kinds.shape[-1])),
        "box_deltas": F.reshape(offsets, (-1, offsets.shape[2] * 4)),
        **{f"found_{name}": value for name, value in last.items()},
    }
    if ours.has_masks:
        made["mask_logits"] = heads.mask_logits(pyramid, x["boxes"], x["shots"])
        maps = heads.masks(pyramid, x["boxes"], x["labels"], x["shots"])["masks"]
        made["mask_maps"] = F.reshape(maps, (-1, *maps.shape[2:]))
    return made


def stages(table: Table, args) -> None:
    """Eval mode with the preset's numbers, each stage on torchvision's tensors."""
    config = config_of(args, None)
    theirs, ours = build(args, config, {"min_size": args.short, "max_size": args.long})
    images = pictures(args.seed)
    true = reference(theirs.eval(), images)
    batch = true["batch"].tensors
    feeds = stage_feeds(config, true)
    padding = tuple(batch.shape[2:])
    got = compiled(lambda x: stage_outputs(ours, x, true["ends"], padding), feeds)

    resize = Resize(args.short, args.long, "torchvision")
    table.worst("transform", [(transformed(images, resize, batch.shape), batch)])
    for first, name, values in ((2, "C", true["body"]), (2, "P", true["levels"])):
        for k, value in enumerate(values, first):
            table.worst(f"{name}{k}", [(got[f"{name}{k}"], value)])
    table.worst("RPN logits", [(got["rpn_logits"], true["logits"])])
    table.worst("RPN deltas", [(got["rpn_deltas"], true["deltas"])])
    table.worst("anchors", [(got["anchors"], true["anchors"])], 0.0)
    boxes, scores = (
        [row[:n] for row, n in zip(got[name], got["proposal_count"], strict=True)]
        for name in ("proposals", "proposal_scores")
    )
    rows = [nearest_rows(a, b.numpy()) for a, b in zip(boxes, true["proposals"], strict=True)]
    mine = [part[at] for part, at in zip(boxes, rows, strict=True)]
    table.worst("proposals", zip(mine, true["proposals"], strict=True))
    mine = [part[at] for part, at in zip(scores, rows, strict=True)]
    table.worst("objectness of proposals", zip(mine, true["scores"], strict=True))
    counts = feeds["count"]
    for stage, name in (("pooled", "pooled"), ("class_logits", "kinds"), ("box_deltas", "offsets")):
        mine = valid_rows(got[stage], config.rpn.post_nms_test, counts)
        table.worst(stage.replace("_", " "), [(mine, true[name])])
    names = ("boxes", "scores", "labels")
    own = [{n: got[f"found_{n}"][i, :count] for n in names} for i, count in
           enumerate(got["found_count"])]  # fmt: skip
    golden = [dict(zip(names, part, strict=True)) for part in zip(*true["found"], strict=True)]
    same_sets(table, "final sets", own, golden)
    for name in ("mask_logits", "mask_maps") if ours.has_masks else ():
        mine = valid_rows(got[name], config.roi.detections, feeds["shots"])
        table.worst(name.replace("_", " "), [(mine, true[name])])


def nearest_rows(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Which row of ours each of theirs is: we order by logits, torchvision by rounded sigmoids."""
    at = np.array([np.abs(ours - row).max(1).argmin() for row in theirs], np.intp)
    return at if len(set(at.tolist())) == len(ours) else np.arange(len(ours))


def valid_rows(flat: np.ndarray, rows: int, counts) -> np.ndarray:
    """Of [N * rows, ...] the first counts[n] rows of each image."""
    whole = flat.reshape(len(counts), rows, *flat.shape[1:])
    return np.concatenate([whole[i, :n] for i, n in enumerate(counts)])


def same_sets(table: Table, stage: str, ours, theirs) -> None:
    """Each of torchvision's detections is ours too: label, IoU > 0.999, |score difference|."""
    apart, scores = 0.0, 0.0
    for mine, golden in zip(ours, theirs, strict=True):
        if len(mine["labels"]) != len(golden["labels"]):
            apart = 1.0
            continue
        iou = box_iou(golden["boxes"], torch.from_numpy(mine["boxes"])).numpy()
        iou[golden["labels"].numpy()[:, None] != mine["labels"][None]] = 0
        for row in range(len(iou)):
            partner = int(iou[row].argmax())
            apart = max(apart, 1 - float(iou[row, partner]))
            gap = abs(float(golden["scores"][row]) - float(mine["scores"][partner]))
            scores = max(scores, gap)
            iou[:, partner] = 0
    total = sum(len(part["labels"]) for part in theirs)
    table.row(f"{stage}: 1 - IoU of {total} boxes", apart, 1e-3)
    table.row(f"{stage}: score difference", scores, BAR)


def whole(table: Table, args) -> None:
    """Images to detections with the goldens' counts, where every decision has a margin."""
    config = config_of(args, OPTIONS)
    theirs, ours = build(args, config, OPTIONS)
    theirs.eval()
    resize = Resize(OPTIONS["min_size"], OPTIONS["max_size"], "torchvision")
    wanted = args.sets
    for seed in range(100):
        images = pictures(seed)
        with torch.no_grad():
            batch, _ = theirs.transform(images)
            features = theirs.backbone(batch.tensors)
            logits, deltas, per_level, *_ = flat_rpn(theirs, features)
            anchors = theirs.rpn.anchor_generator(batch, list(features.values()))
            boxes = theirs.rpn.box_coder.decode(deltas, anchors).view(2, -1, 4)
            margins = proposal_margins(theirs, logits, boxes, per_level, batch.image_sizes,
                                       theirs.rpn.pre_nms_top_n())  # fmt: skip
            proposals, _ = theirs.rpn.filter_proposals(boxes, logits, batch.image_sizes, per_level)
            heads = theirs.roi_heads
            pooled = heads.box_roi_pool(features, proposals, batch.image_sizes)
            last = detection_margins(theirs, *heads.box_predictor(heads.box_head(pooled)),
                                     proposals, batch.image_sizes)  # fmt: skip
            margin = min([*margins.values(), *last.values()])
            if margin < MARGIN:
                continue
            found = theirs(images)
        feeds = {"images": transformed(images, resize, batch.tensors.shape),
                 "sizes": np.array(batch.image_sizes, np.int32)}  # fmt: skip
        got = compiled(lambda x: ours.detect(x["images"], x["sizes"]), feeds)
        own = []
        for i, size in enumerate(SIZES):
            n = got["count"][i]
            scale = (np.array(size) / feeds["sizes"][i])[[1, 0, 1, 0]]
            boxes = (got["boxes"][i, :n] * scale).astype(np.float32)
            own.append({"boxes": boxes, "scores": got["scores"][i, :n],
                        "labels": got["labels"][i, :n]})  # fmt: skip
        same_sets(table, f"whole, seed {seed}", own, found)
        if config.mask == "head":
            pasted = [
                np.stack([paste(got["masks"][i, k], b, SIZES[i]) for k, b in enumerate(own_boxes)])
                for i, own_boxes in enumerate(part["boxes"] for part in own)
            ]
            pairs = [(ordered(p, o, f), f["masks"][:, 0]) for p, o, f in
                     zip(pasted, own, found, strict=True)]  # fmt: skip
            table.worst(f"whole, seed {seed}: pasted masks", pairs, 1e-3)
        wanted -= 1
        if not wanted:
            return
    raise SystemExit("too few seeds with a margin")


def ordered(pasted: np.ndarray, own, found) -> np.ndarray:
    """Our masks in torchvision's order: boxes of one score may have changed places."""
    iou = box_iou(found["boxes"], torch.from_numpy(own["boxes"])).numpy()
    iou[found["labels"].numpy()[:, None] != own["labels"][None]] = 0
    return pasted[iou.argmax(1)]


def paste(small: np.ndarray, box: np.ndarray, size) -> np.ndarray:
    picture = np.zeros(size, np.float32)
    top, left, values = masks_of.paste(small, box, *size)
    picture[top : top + values.shape[0], left : left + values.shape[1]] = values
    return picture


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("fasterrcnn", "maskrcnn"), default="fasterrcnn")
    parser.add_argument("--eps", type=float, default=1e-5, help="of the frozen norms; COCO_V1: 0")
    parser.add_argument("--short", type=int, default=800, help="pixels of the shorter side")
    parser.add_argument("--long", type=int, default=1333, help="most pixels of the longer side")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--sets", type=int, default=2, help="seeds from images to detections")
    parser.add_argument("--verbose", action="store_true", help="the gradient of each parameter")
    parser.add_argument("--parts", default="stages,training,whole")
    args = parser.parse_args()
    table = Table()
    print(f"{args.model}, eps {args.eps:g}, {args.short}/{args.long} pixels")
    print(f"| {'stage':<34} | {'relative':>8} | {'bar':>7} |\n|{'-' * 36}|---------:|--------:|")
    for part in args.parts.split(","):
        {"stages": stages, "training": training, "whole": whole}[part](table, args)
    return 0 if table.held else 1


if __name__ == "__main__":
    raise SystemExit(main())
