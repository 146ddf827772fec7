"""Collect detections, write them in COCO results format and score them with pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from megbrain_py.data import masks as masks_of
from megbrain_py.data.coco import CocoDataset, ImageEntry, load_json
from megbrain_py.errors import DataError

Kind = Literal["bbox", "segm"]
Result = dict[str, Any]

# The order in which pycocotools gives them: AP over IoU .50:.95, ...; AR with 1, 10, 100 detections
NUMBERS = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """COCO's 12 numbers and AP per class; NaN where there is nothing to find.

    `numbers` has the keys of NUMBERS; `ap_per_class` (IoU .50:.95) and `ap50_per_class` have class
    names, in the order of the labels.
    """

    kind: Kind
    numbers: dict[str, float]
    ap_per_class: dict[str, float]
    ap50_per_class: dict[str, float]

    def __str__(self) -> str:
        def row(name: str, *values: float) -> str:
            shown = ("   -  " if math.isnan(v) else f"{v:6.3f}" for v in values)
            return f"{name:<20} {'  '.join(shown)}"

        lines = [row(f"{self.kind} {name}", self.numbers[name]) for name in NUMBERS]
        lines.append(f"{'class':<20} {'AP':>6}  {'AP50':>6}")
        lines += [
            row(name[:20], ap, self.ap50_per_class[name]) for name, ap in self.ap_per_class.items()
        ]
        return "\n".join(lines)


class Detections:
    """Detections of a data set, picture by picture, in the coordinates of the original pictures."""

    def __init__(self, dataset: CocoDataset) -> None:
        self.dataset = dataset
        self.image_ids: list[int] = []
        self.results: list[Result] = []
        self.has_masks = False
        self._seen: set[int] = set()

    def add(
        self,
        image_id: int,
        boxes: npt.ArrayLike,
        scores: npt.ArrayLike,
        labels: npt.ArrayLike,
        *,
        image_size: Sequence[int] | None = None,
        masks: Sequence[Mapping[str, Any]] | None = None,
        maps: npt.NDArray[np.float32] | None = None,
        windows: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """Add all detections of a picture (maybe none).

        boxes [D, 4] x1, y1, x2, y2 in pixels of the picture as the network saw it, whose (height,
        width) is `image_size` (None: not resized); scores [D]; labels [D] in 1..K. Boxes are
        scaled back per axis and clipped to the picture. masks: run lengths of each detection in
        original pixels, {"size": [h, w], "counts": ...}; or maps [D, S, S]: a mask head's, in the
        boxes; with windows [D, 3] a mask generator's (masks.paste_window). DataError for a picture
        that is unknown or was added before, and for arrays that do not fit or are not finite.
        """
        image = self.dataset.by_image_id.get(image_id)
        where = f"detections of image {image_id}"
        if image is None:
            raise DataError(f"{where}: {self.dataset.annotation_file} has no such image")
        if image_id in self._seen:
            raise DataError(f"{where}: this image was added before")
        xyxy = np.array(boxes, np.float64).reshape(-1, 4)
        values = np.asarray(scores, np.float64).reshape(-1)
        classes = np.asarray(labels).reshape(-1)
        if not len(xyxy) == len(values) == len(classes) == len(xyxy if masks is None else masks):
            raise DataError(
                f"{where}: {len(xyxy)} boxes, {len(values)} scores, {len(classes)} labels"
                + ("" if masks is None else f", {len(masks)} masks")
            )
        if not (np.isfinite(xyxy).all() and np.isfinite(values).all()):
            raise DataError(f"{where}: a box or score is not finite")
        if image_size is not None:
            xyxy[:, 0::2] *= image.width / image_size[1]
            xyxy[:, 1::2] *= image.height / image_size[0]
        xyxy[:, 0::2] = xyxy[:, 0::2].clip(0, image.width)
        xyxy[:, 1::2] = xyxy[:, 1::2].clip(0, image.height)
        if maps is not None:
            seen = image_size or (image.height, image.width)
            masks = [
                self._mask(maps[row], box, None if windows is None else windows[row], image, seen)
                for row, box in enumerate(xyxy)
            ]
        self.has_masks |= masks is not None
        for row, (x1, y1, x2, y2) in enumerate(xyxy.tolist()):
            result: Result = {
                "image_id": image_id,
                "category_id": self.dataset.category_id(int(classes[row])),
                "bbox": [round(v, 4) for v in (x1, y1, x2 - x1, y2 - y1)],
                "score": float(f"{values[row]:.9g}"),  # nine digits hold any float32
            }
            if masks is not None:
                result["segmentation"] = _plain(masks[row])
            self.results.append(result)
        self._seen.add(image_id)
        self.image_ids.append(image_id)

    @staticmethod
    def _mask(
        map: npt.NDArray[np.float32],
        box: npt.NDArray[np.float64],
        window: npt.NDArray[np.float32] | None,
        image: ImageEntry,
        seen: Sequence[int],
    ) -> Result:
        size = image.height, image.width
        if window is None:
            top, left, values = masks_of.paste(map, box, *size)
        else:
            top, left, values = masks_of.paste_window(map, window, box, size, seen)
        return masks_of.encode(values > masks_of.THRESHOLD, top, left, image.height, image.width)

    def add_batch(
        self, batch: Mapping[str, npt.NDArray[Any]], found: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        """Add what `model.detect` found in a loader's batch; blank pictures (id -1) are left out.

        found: `boxes` [N, D, 4] in resized pixels, `scores` [N, D], `labels` [N, D], `count` [N],
        and `masks` [N, D, S, S] if it finds masks, `mask_windows` [N, D, 3] if on pixels.
        """
        for row, image_id in enumerate(batch["image_ids"].tolist()):
            if image_id < 0:
                continue
            n = int(found["count"][row])
            self.add(
                image_id,
                found["boxes"][row, :n],
                found["scores"][row, :n],
                found["labels"][row, :n],
                image_size=batch["image_sizes"][row].tolist(),
                maps=found["masks"][row, :n] if "masks" in found else None,
                windows=found["mask_windows"][row, :n] if "mask_windows" in found else None,
            )

    def join(self, image_ids: Sequence[int], results: Sequence[Result], has_masks: bool) -> None:
        """Take over what was found elsewhere. DataError for a picture that is here already."""
        both = self._seen.intersection(image_ids)
        if both:
            raise DataError(f"detections of image {min(both)}: this image was added before")
        self.image_ids += image_ids
        self.results += results
        self.has_masks |= has_masks
        self._seen.update(image_ids)

    def write(self, path: str | Path) -> None:
        """Write the results file; a reader never sees half of it."""
        write_results(path, self.results)

    def evaluate(self, kind: Kind = "bbox") -> Evaluation:
        """Score all pictures of the data set; one not added counts as without detections."""
        return evaluate(
            self.dataset.annotation_file,
            self.results,
            kind,
            image_ids=[image.id for image in self.dataset.images],
            category_ids=[category.id for category in self.dataset.categories],
        )


def _plain(mask: Mapping[str, Any]) -> Result:
    counts = mask["counts"]
    return {
        "size": [int(n) for n in mask["size"]],
        "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
    }


def write_results(path: str | Path, results: Iterable[Result]) -> None:
    """Write detections in COCO results format, atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            lines = ",\n".join(json.dumps(result) for result in results)
            file.write(f"[{lines}]\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _ground_truth(path: Path) -> dict[str, Any]:
    """The annotation file as pycocotools likes it.

    Annotations get the ids 1..n, as pycocotools takes id 0 for "no match" and loses annotations
    whose ids are equal; area and iscrowd, if missing, come from the box.
    """
    document = load_json(path)
    try:
        annotations = [
            {"area": a["bbox"][2] * a["bbox"][3], "iscrowd": 0, **a, "id": n}
            for n, a in enumerate(document["annotations"], 1)
        ]
        return {
            "info": {},
            "images": document["images"],
            "categories": sorted(document["categories"], key=lambda c: int(c["id"])),
            "annotations": annotations,
        }
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise DataError(
            f"{path}: is not a COCO annotation file ({error!r}); check-data says more"
        ) from None


def _checked(results: Any, truth: dict[str, Any], kind: Kind, where: str) -> list[Result]:
    """Results as fresh dictionaries with only the keys that this kind of evaluation reads."""
    images = {image["id"] for image in truth["images"]}
    classes = {category["id"] for category in truth["categories"]}
    shape = "segmentation" if kind == "segm" else "bbox"
    keys = ("image_id", "category_id", shape, "score")
    if not isinstance(results, list):
        raise DataError(f"{where}: expected a list of detections")
    checked = []
    for n, result in enumerate(results):
        missing = [key for key in keys if not isinstance(result, dict) or key not in result]
        if missing:
            raise DataError(f"{where}: detection {n} is without {', '.join(missing)}")
        if result["image_id"] not in images:
            raise DataError(f"{where}: detection {n}: image_id {result['image_id']} is unknown")
        if result["category_id"] not in classes:
            raise DataError(
                f"{where}: detection {n}: category_id {result['category_id']} is unknown"
            )
        checked.append({key: result[key] for key in keys})
    return checked


def evaluate(
    annotation_file: str | Path,
    results: str | Path | Sequence[Result],
    kind: Kind = "bbox",
    *,
    image_ids: Sequence[int] | None = None,
    category_ids: Sequence[int] | None = None,
) -> Evaluation:
    """Score detections in COCO results format (a file or a list) with pycocotools' COCOeval.

    kind "bbox" compares boxes, "segm" masks. `image_ids` restricts the pictures, `category_ids` the
    classes. DataError for detections of unknown pictures or classes, and for masks where an
    annotation has none.
    """
    scorer, categories = matched(
        annotation_file, results, kind, image_ids=image_ids, category_ids=category_ids
    )
    with contextlib.redirect_stdout(io.StringIO()):
        scorer.accumulate()
        scorer.summarize()
    return _summary(kind, scorer, categories)


def matched(
    annotation_file: str | Path,
    results: str | Path | Sequence[Result],
    kind: Kind = "bbox",
    *,
    image_ids: Sequence[int] | None = None,
    category_ids: Sequence[int] | None = None,
) -> tuple[Any, list[dict[str, Any]]]:
    """pycocotools' COCOeval after its matching of each picture, and the categories it scores.

    Arguments and errors as of `evaluate`.
    """
    import pycocotools.coco
    import pycocotools.cocoeval

    new_index: Any = pycocotools.coco.COCO  # without annotations of types
    new_scorer: Any = pycocotools.cocoeval.COCOeval
    truth = _ground_truth(Path(annotation_file))
    from_file = isinstance(results, str | Path)
    where = str(results) if from_file else "detections"
    content = load_json(Path(results)) if isinstance(results, str | Path) else list(results)
    checked = _checked(content, truth, kind, where)
    if kind == "segm":
        without = [a["id"] - 1 for a in truth["annotations"] if not a.get("segmentation")]
        if without:
            raise DataError(f"{annotation_file}: annotations[{without[0]}] has no segmentation")
    with contextlib.redirect_stdout(io.StringIO()):
        reference = new_index()
        reference.dataset = truth
        reference.createIndex()
        if checked:
            found = reference.loadRes(checked)
        else:  # loadRes looks at the first detection
            found = new_index()
            found.dataset = {**truth, "annotations": []}
            found.createIndex()
        scorer = new_scorer(reference, found, kind)
        if image_ids is not None:
            scorer.params.imgIds = sorted(set(image_ids))
        categories = truth["categories"]
        if category_ids is not None:
            by_id = {category["id"]: category for category in categories}
            categories = [by_id[key] for key in category_ids]
            scorer.params.catIds = list(category_ids)
        scorer.evaluate()
    return scorer, categories


def names_of(categories: Sequence[Mapping[str, Any]]) -> list[str]:
    """Class names; equal ones are told apart by their ids."""
    names = [str(category["name"]) for category in categories]
    if len(set(names)) < len(names):
        return [f"{category['name']} (id {category['id']})" for category in categories]
    return names


def _summary(kind: Kind, scorer: Any, categories: list[dict[str, Any]]) -> Evaluation:
    def number(value: Any) -> float:
        return math.nan if value < 0 else float(value)  # -1 says: nothing to find

    def mean(precision: npt.NDArray[np.float64]) -> float:
        valid = precision[precision > -1]
        return float(valid.mean()) if valid.size else math.nan

    # [IoU threshold, recall, class, area range (0: all), detections (2: 100)]
    precision = scorer.eval["precision"][:, :, :, 0, 2]
    names = names_of(categories)
    return Evaluation(
        kind,
        {name: number(value) for name, value in zip(NUMBERS, scorer.stats, strict=True)},
        {name: mean(precision[:, :, k]) for k, name in enumerate(names)},
        {name: mean(precision[0, :, k]) for k, name in enumerate(names)},
    )
