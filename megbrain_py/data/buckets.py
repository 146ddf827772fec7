"""Few padded picture sizes for a whole data set, so that few input signatures are compiled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from megbrain_py.data.coco import ImageEntry
from megbrain_py.data.transforms import Resize

Size = tuple[int, int]  # height, width
_FREE = 0.02  # of all pixels: what fewer input signatures are worth in padding


@dataclass(frozen=True)
class Group:
    """Pictures of like shape (indices into the data set) and their padded sizes, ascending."""

    images: tuple[int, ...]
    sizes: tuple[Size, ...]

    def fit(self, height: int, width: int) -> Size:
        """The smallest padded size that holds a picture of this size."""
        return next(size for size in self.sizes if size[0] >= height and size[1] >= width)


def _round_up(size: Size, multiple: int) -> Size:
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


def _join(a: Size, b: Size) -> Size:
    return max(a[0], b[0]), max(a[1], b[1])


def _merge(counts: Counter[Size], most: int) -> dict[Size, Size]:
    """Join sizes, the pair with the least additional padding first, until at most `most` remain
    and no further pair is nearly free; says for each size which one it became."""
    pools: dict[Size, tuple[int, list[Size]]] = {s: (n, [s]) for s, n in sorted(counts.items())}
    total = sum(n * height * width for (height, width), n in counts.items())

    def cost(a: Size, b: Size) -> int:
        height, width = _join(a, b)
        area = height * width
        return pools[a][0] * (area - a[0] * a[1]) + pools[b][0] * (area - b[0] * b[1])

    while len(pools) > 1:
        added, a, b = min((cost(a, b), a, b) for a, b in combinations(pools, 2))
        if len(pools) <= most and added > _FREE * total:
            break
        joint = _join(a, b)
        parts = [pools.pop(a), pools.pop(b)]
        if joint in pools:
            parts.append(pools.pop(joint))
        pools[joint] = (sum(n for n, _ in parts), [size for _, sizes in parts for size in sizes])
    return {member: size for size, (_, members) in pools.items() for member in members}


def group_images(
    images: Sequence[ImageEntry],
    resize: Resize,
    short_sides: Sequence[int],
    *,
    multiple: int = 32,
    most_groups: int = 4,
    most_scales: int = 3,
) -> tuple[Group, ...]:
    """Sort pictures into at most `most_groups` groups of like shape at the largest shorter side.

    A group has one padded size (height and width are multiples of `multiple`), or when several
    shorter sides may be drawn up to `most_scales` of them, one for each side if these are no more.
    The choice depends on the annotations only.
    """
    largest = max(short_sides)
    rounded = [_round_up(resize.size(im.height, im.width, largest), multiple) for im in images]
    became = _merge(Counter(rounded), most_groups)
    members: dict[Size, list[int]] = {}
    for index, size in enumerate(rounded):
        members.setdefault(became[size], []).append(index)
    scales = sorted(set(short_sides))
    if len(scales) > most_scales:
        steps = np.linspace(scales[0], largest, most_scales + 1)[1:]
        scales = sorted({max(s for s in scales if s <= step + 1e-9) for step in steps} | {largest})
    groups = []
    for envelope, indices in sorted(members.items()):
        shapes = {(images[i].height, images[i].width) for i in indices}
        sizes = {envelope}
        for side in scales[:-1]:
            size = (1, 1)
            for height, width in shapes:
                size = _join(size, resize.size(height, width, side))
            sizes.add(_round_up(size, multiple))
        groups.append(Group(tuple(indices), tuple(sorted(sizes, key=lambda s: (s[0] * s[1], s)))))
    return tuple(groups)
