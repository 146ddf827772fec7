"""Is one set of detections better than another, or only luckier? Paired bootstrap over pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megbrain_py.data.evaluation import NUMBERS, Kind, Result, matched, names_of

Floats = npt.NDArray[np.float64]

_AT_ONCE = 4_000_000  # numbers of an intermediate matrix
_AREAS = ("all", "small", "medium", "large")  # the order of pycocotools
_IOU_75 = 5  # index of the IoU threshold .75


@dataclass(frozen=True)
class Cell:
    """All detections of a class in a range of areas, in falling order of score, as matched.

    image, rank [D]: index of the picture, place within it; scores [D]; hit, counted bool[T, D]: at
    each IoU threshold, found an object; is a hit or a false alarm (and not ignored).
    objects [I]: how many there are to find in each picture.
    """

    image: npt.NDArray[np.int64]
    rank: npt.NDArray[np.int64]
    scores: Floats
    hit: npt.NDArray[np.bool_]
    counted: npt.NDArray[np.bool_]
    objects: npt.NDArray[np.int64]


@dataclass(frozen=True)
class MatchTable:
    """The matches of a set of detections, from which its figures follow for any choice of pictures.

    cells: [class][range of areas].
    """

    kind: Kind
    image_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    recalls: Floats
    cells: tuple[tuple[Cell, ...], ...]

    def figures(self, weights: npt.ArrayLike) -> dict[str, Floats]:
        """COCO's numbers and `AP NAME` of each class, [B] each, for weights [B, I].

        A weight says how many times a picture is there. With ones the figures are pycocotools';
        NaN where there is nothing to find.
        """
        every = np.asarray(weights, np.float64)
        most = max((len(cell.image) for row in self.cells for cell in row), default=0)
        size = max(1, _AT_ONCE // max(1, most))
        parts = [self._figures(every[at : at + size]) for at in range(0, len(every), size)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _figures(self, weights: Floats) -> dict[str, Floats]:
        found = [[_measure(cell, weights, self.recalls) for cell in row] for row in self.cells]
        made: dict[str, Floats] = {}
        for a, area in enumerate(_AREAS):
            precision = [row[a][0] for row in found]
            recall = [row[a][1] for row in found]
            if area == "all":
                made["AP"] = _mean([p.mean(1) for p in precision])
                made["AP50"] = _mean([p[:, 0] for p in precision])
                made["AP75"] = _mean([p[:, _IOU_75] for p in precision])
                made |= {f"AR_{n}": _mean([r[n] for r in recall]) for n in (1, 10, 100)}
                own = zip(self.class_names, precision, strict=True)
                per_class = {f"AP {name}": p.mean(1) for name, p in own}
            else:
                made[f"AP_{area}"] = _mean([p.mean(1) for p in precision])
                made[f"AR_{area}"] = _mean([r[100] for r in recall])
        return {name: made[name] for name in NUMBERS} | per_class

    def counts(self, least: float) -> npt.NDArray[np.int64]:
        """[I, 3]: hits, false alarms and misses at IoU .5 among detections of a score >= least."""
        made = np.zeros((len(self.image_ids), 3), np.int64)
        for cell, *_ in self.cells:
            sure = (cell.scores >= least) & cell.counted[0]
            hits = np.bincount(cell.image, sure & cell.hit[0], len(made)).astype(np.int64)
            false = np.bincount(cell.image, sure & ~cell.hit[0], len(made)).astype(np.int64)
            made += np.stack([hits, false, cell.objects - hits], 1)
        return made


def _mean(classes: Sequence[Floats]) -> Floats:
    """The mean over the classes that are not NaN, for each of [B]."""
    every = np.stack(classes)
    valid = np.isfinite(every)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(valid, every, 0).sum(0) / valid.sum(0)
    return mean


def _measure(cell: Cell, weights: Floats, recalls: Floats) -> tuple[Floats, dict[int, Floats]]:
    """Average precision [B, T], and the recall [B] of the first 1, 10, 100 detections (mean over
    T); NaN where the weights leave no object. As COCOeval.accumulate."""
    objects = weights @ cell.objects
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(objects > 0, 1 / objects, np.nan)
    own = weights[:, cell.image]
    precision = np.empty((len(weights), len(cell.hit)))
    for t, (hit, counted) in enumerate(zip(cell.hit, cell.counted, strict=True)):
        at = np.flatnonzero(hit)
        hits = np.cumsum(own[:, at], axis=1)
        seen = np.cumsum(own * counted, axis=1)[:, at]
        heights = hits / (seen + np.spacing(1))
        heights = np.maximum.accumulate(heights[:, ::-1], axis=1)[:, ::-1]  # at least what follows
        with np.errstate(divide="ignore", invalid="ignore"):
            reached = np.searchsorted(recalls, hits / objects[:, None], side="right")
        new = np.diff(reached, axis=1, prepend=0)  # points of recall that this hit reaches first
        precision[:, t] = (heights * new).sum(1) / len(recalls)
    precision[objects == 0] = np.nan
    recall = {}
    for n in (1, 10, 100):
        early = (cell.hit & (cell.rank < n)).mean(0)
        recall[n] = weights @ np.bincount(cell.image, early, weights.shape[1]) * share
    return precision, recall


def match_table(
    annotation_file: str | Path,
    results: str | Path | Sequence[Result],
    kind: Kind = "bbox",
    *,
    image_ids: Sequence[int] | None = None,
    category_ids: Sequence[int] | None = None,
) -> MatchTable:
    """Match detections with the objects, once; arguments and errors as of `evaluate`."""
    scorer, categories = matched(
        annotation_file, results, kind, image_ids=image_ids, category_ids=category_ids
    )
    images, areas = len(scorer.params.imgIds), len(scorer.params.areaRng)
    thresholds = len(scorer.params.iouThrs)
    cells = [
        _cell(scorer.evalImgs[at * images : (at + 1) * images], thresholds)
        for at in range(len(categories) * areas)
    ]
    return MatchTable(
        kind,
        tuple(scorer.params.imgIds),
        tuple(names_of(categories)),
        np.asarray(scorer.params.recThrs),
        tuple(tuple(cells[k : k + areas]) for k in range(0, len(cells), areas)),
    )


def _cell(pictures: Sequence[dict[str, Any] | None], thresholds: int) -> Cell:
    """What COCOeval.evaluateImg says of a class and a range of areas in each picture."""
    found = [(i, picture) for i, picture in enumerate(pictures) if picture is not None]
    sizes = [len(picture["dtScores"]) for _, picture in found]
    scores = np.concatenate([np.zeros(0), *(picture["dtScores"] for _, picture in found)])
    order = np.argsort(-scores, kind="mergesort")
    none = np.zeros((thresholds, 0))
    matches = np.concatenate([none, *(p["dtMatches"] for _, p in found)], axis=1)[:, order]
    ignored = np.concatenate([none, *(p["dtIgnore"] for _, p in found)], axis=1)[:, order]
    counted = ignored == 0
    objects = np.zeros(len(pictures), np.int64)
    for i, picture in found:
        objects[i] = np.count_nonzero(np.asarray(picture["gtIgnore"]) == 0)
    image = np.repeat(np.array([i for i, _ in found], np.int64), sizes)[order]
    rank = np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in sizes)])[order]
    used = counted.any(0)  # the others change nothing at any threshold
    return Cell(
        image[used], rank[used], scores[order][used],
        ((matches != 0) & counted)[:, used], counted[:, used], objects,
    )  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """A figure of two sets of detections, and where second - first lies in 95 of 100 resamples."""

    name: str
    first: float
    second: float
    low: float
    high: float

    @property
    def within_noise(self) -> bool:
        """Whether the interval contains 0: the difference may come from the choice of pictures."""
        return not (self.low > 0 or self.high < 0)


def differences(
    first: MatchTable, second: MatchTable, *, resamples: int = 1000, seed: int = 0
) -> list[Difference]:
    """Every figure of both, with percentile intervals of the paired bootstrap over pictures.

    In each resample as many pictures are drawn, with repetition, as there are; both sets of
    detections are scored on the same ones.
    """
    images = len(first.image_ids)
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), resamples)
    weights = np.concatenate([np.ones((1, images), np.int64), drawn])
    one, two = first.figures(weights), second.figures(weights)
    made = []
    for name, values in one.items():
        moved = (two[name] - values)[1:]
        moved = moved[np.isfinite(moved)]
        low, high = np.percentile(moved, [2.5, 97.5]) if len(moved) else (math.nan, math.nan)
        both = float(values[0]), float(two[name][0])
        made.append(Difference(name, *both, float(low), float(high)))
    return made


def of_each_picture(table: MatchTable) -> Floats:
    """AP [I] of each picture alone; NaN where it has no objects."""
    return table.figures(np.eye(len(table.image_ids)))["AP"]
