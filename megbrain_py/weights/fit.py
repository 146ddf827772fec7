"""Brings tensors to a model's names: torchvision's older ones too; what does not fit is listed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from megbrain_py.dtypes import Array, TensorType
from megbrain_py.errors import DataError

_LISTED = 8  # names shown of each kind
_COUNTER = "num_batches_tracked"  # torch counts the batches of its batch norms
_PARALLEL = "module."  # before every name of torch's DataParallel
_BODY = "backbone.body."
_CLASSIFIER = "fc"
_OLDER = (  # names before torchvision 0.13 (weights version 1)
    (re.compile(r"(.*\bfpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)"), r"{0}.0.{1}"),
    (re.compile(r"(.*\brpn\.head\.conv)\.(weight|bias)"), r"{0}.0.0.{1}"),
)
_OLDER_MASK = re.compile(r"(.*\bmask_head)\.mask_fcn(\d+)\.(weight|bias)")


@dataclass(frozen=True)
class Fit:
    """How a file's tensors go into a model.

    arrays: by the model's names. fresh: the model's names that keep their values. unused: names
    of the file that go nowhere. notes: why, for the person who asked.
    """

    arrays: Mapping[str, Array]
    fresh: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def fit(
    given: Mapping[str, Array], own: Mapping[str, TensorType], leave_out: Sequence[str] = ()
) -> Fit:
    """Every tensor of `given` for its place in `own`, or DataError with the lists of what is not.

    leave_out: names, or what they begin with ("roi_heads.box_predictor"), that are not taken: the
    model keeps its values there. A classifier's weights go into a detector's backbone; its last
    layer, and the parts of the detector beside the backbone, are left out then.
    """
    notes: list[str] = []
    named = _current(given, notes)
    left = list(leave_out)
    idle = [part for part in left if not any(_begins(n, [part]) for n in (*named, *own))]
    if idle:
        raise DataError(f"left out: nothing is named {', '.join(idle)}")
    if _BODY + "conv1.weight" in own and "conv1.weight" in named:
        notes.append("a classifier's weights, for the backbone of the detector")
        named = {n if _begins(n, [_CLASSIFIER]) else _BODY + n: a for n, a in named.items()}
        left += [_CLASSIFIER, *(name for name in own if not name.startswith(_BODY))]
    fresh = tuple(name for name in own if _begins(name, left))
    unused = tuple(name for name in named if _begins(name, left))
    wanted = {name: type for name, type in own.items() if name not in fresh}
    offered = {name: array for name, array in named.items() if name not in unused}
    _refuse_misfits(offered, wanted)
    if fresh:
        notes.append(f"{len(fresh)} arrays keep the model's values: {_listed(_parts(fresh))}")
    if unused:
        notes.append(f"{len(unused)} arrays of the file are not used: {_listed(_parts(unused))}")
    return Fit(offered, fresh, unused, tuple(notes))


def _begins(name: str, parts: Sequence[str]) -> bool:
    """Is the name one of these, or within a part of that name?"""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def current_name(name: str) -> str:
    """torchvision's name of today for one of its names before 0.13; others as they are."""
    for older, newer in _OLDER:
        if (found := older.fullmatch(name)) is not None:
            return newer.format(*found.groups())
    if (found := _OLDER_MASK.fullmatch(name)) is not None:
        head, number, kind = found.groups()
        return f"{head}.{int(number) - 1}.0.{kind}"
    return name


def _current(given: Mapping[str, Array], notes: list[str]) -> dict[str, Array]:
    """The tensors under today's names, without counters of batches; `notes` says what changed."""
    kept = {name: array for name, array in given.items() if not _is_counter(name)}
    if len(kept) < len(given):
        notes.append(f"{len(given) - len(kept)} counters of batches (*.{_COUNTER}): not needed")
    if kept and all(name.startswith(_PARALLEL) for name in kept):
        notes.append(f"the names' {_PARALLEL!r} (DataParallel) is taken off")
        kept = {name.removeprefix(_PARALLEL): array for name, array in kept.items()}
    named = {current_name(name): array for name, array in kept.items()}
    if len(named) < len(kept):
        raise DataError("has arrays under torchvision's older names and its new ones as well")
    renamed = sum(name not in kept for name in named)
    if renamed:
        notes.append(f"{renamed} arrays have torchvision's older names")
    return named


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == _COUNTER


def _refuse_misfits(offered: Mapping[str, Array], wanted: Mapping[str, TensorType]) -> None:
    """DataError unless both have the same names, with equal shapes and kinds of element."""
    missing = [name for name in wanted if name not in offered]
    unknown = [name for name in offered if name not in wanted]
    wrong = {
        name: f"{name}: the model has {wanted[name]}, the file {_type(array)}"
        for name, array in offered.items()
        if name in wanted and not _fits(array, wanted[name])
    }
    if not (missing or unknown or wrong):
        return
    lines = ["the weights do not fit the model"]
    for words, names in (
        ("missing in the file", missing),
        ("unknown to the model", unknown),
        ("of another shape", list(wrong.values())),
    ):
        if names:
            lines.append(f"  {words} ({len(names)}): {_listed(names, '; ')}")
    parts = ",".join(_parts([*missing, *unknown, *wrong]))
    lines.append(f"  model.leave_out={parts} leaves these parts out")
    raise DataError("\n".join(lines))


def _fits(array: Array, type: TensorType) -> bool:
    return array.shape == type.shape and np.can_cast(array.dtype, type.dtype.numpy, "same_kind")


def _type(array: Array) -> str:
    return f"{array.dtype}[{','.join(map(str, array.shape))}]"


def _parts(names: Iterable[str]) -> list[str]:
    """The parts of a network that the names lie in: "roi_heads.box_predictor"."""
    owners = (name.rpartition(".")[0] or name for name in names)
    return list(dict.fromkeys(".".join(owner.split(".")[:2]) for owner in owners))


def _listed(names: Sequence[str], between: str = ", ") -> str:
    more = [f"and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return between.join([*names[:_LISTED], *more])
