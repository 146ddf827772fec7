"""Part f: average precision of every way to train, over seeds, and what the trainings drew."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from examples.large_batch.pretraining import backbone_weights
from examples.large_batch.setting import LARGE, PHASES, SMALL, Study, loader_of, new_detector
from examples.large_batch.training import (
    ARMS,
    SWEEP,
    SYNC,
    TWICE,
    Arm,
    Arrays,
    prepare_norms,
    train,
)
from megbrain_py.nn.serialize import load, save
from megbrain_py.training.detector import Detecting, detect_all, figures
from megbrain_py.training.precise_bn import PreciseNorms

_SCORED_AT_ONCE = 16  # pictures; the result does not depend on it
_PRECISE = 256  # training pictures over which statistics are taken anew


def result(study: Study, arm: Arm, seed: int, devices: int = 1) -> dict[str, Any]:
    """AP with the running statistics and with precise ones, and what each epoch was like."""
    name = f"{arm.name}_{seed}" + (f"_on{devices}" if devices > 1 else "")
    found: dict[str, Any] = study.once(
        f"accuracy/{name}", lambda: _measured(study, arm, seed, devices)
    )
    return found


def finished(study: Study, arm: Arm) -> list[dict[str, Any]]:
    """The results of an arm that are there, by seed."""
    paths = [study.out / "accuracy" / f"{arm.name}_{seed}.json" for seed in range(study.seeds)]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def phases(study: Study) -> dict[str, Arrays]:
    """Weights before, early in and after the training by SYNC with seed 0."""
    result(study, SYNC, 0)
    return {phase: load(study.out / "phases" / f"{phase}.safetensors") for phase in PHASES}


def _measured(study: Study, arm: Arm, seed: int, devices: int) -> dict[str, Any]:
    found = train(study, arm, seed, backbone_weights(study), devices)
    if (arm, seed, devices) == (SYNC, 0, 1):
        (study.out / "phases").mkdir(parents=True, exist_ok=True)
        for phase, weights in found["phases"].items():
            save(study.out / "phases" / f"{phase}.safetensors", weights)
    log = found["log"]
    converged = len(log) == found["steps"] and all(map(math.isfinite, log[-1].values()))
    scores = _scores(study, arm, found["phases"]["late"]) if converged else dict.fromkeys(_NAMES, 0)
    epochs = np.array_split(np.arange(len(log)), max(1, round(study.epochs)))
    return {
        "arm": arm.name, "seed": seed, "devices": devices, "converged": converged,
        "steps": len(log), "seconds": found["seconds"], **scores,
        "epochs": [_summary([log[i] for i in steps]) for steps in epochs if len(steps)],
    }  # fmt: skip


_NAMES = ("AP", "AP50", "precise_AP", "precise_AP50")


def _scores(study: Study, arm: Arm, weights: Arrays) -> dict[str, float]:
    """On the validation scenes."""
    net = new_detector(0, weights)
    prepare_norms(net, arm.bn_size and 1, 1)  # alone: only whether they are frozen matters
    detecting = Detecting(net)
    own = _score(study, detecting)
    norms = PreciseNorms(net)
    if not norms:
        return {**own, **{f"precise_{name}": value for name, value in own.items()}}
    loader = loader_of(study.data[0], _SCORED_AT_ONCE)
    some = min(_PRECISE, study.train) // _SCORED_AT_ONCE
    with norms.in_use((loader.batch(number) for number in range(some)), seed=0):
        precise = _score(study, detecting)
    return {**own, **{f"precise_{name}": value for name, value in precise.items()}}


def _score(study: Study, detecting: Detecting) -> dict[str, float]:
    loader = loader_of(study.data[1], _SCORED_AT_ONCE)
    found = figures(detect_all(detecting, loader, workers=0))
    return {name: float(found[name] or 0.0) for name in ("AP", "AP50")}


def _summary(log: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of some steps: the mean loss; of each part's draws the positive ratio and its spread."""
    losses = [sum(v for n, v in line.items() if n.startswith("loss")) for line in log]
    summary = {"loss": float(np.mean(losses))}
    for part in ("rpn", "roi"):
        positives, drawn = (
            np.array([line[f"{part}_{what}"] for line in log]) for what in ("positives", "drawn")
        )
        ratios = positives / np.maximum(drawn, 1)
        summary[f"{part}_ratio"] = float(positives.sum() / max(drawn.sum(), 1))
        summary[f"{part}_spread"] = float(ratios.std() / max(ratios.mean(), 1e-9))
    return summary


def run(study: Study) -> None:
    """All trainings that are missing; seed by seed, so that what there is can be compared."""
    for arms in (ARMS, TWICE, SWEEP):
        for seed in range(study.seeds):
            for arm in arms:
                _tell(result(study, arm, seed))


def on_devices(study: Study) -> None:
    """The trainings of seed 0 once more, each two pictures on a logical device of their own."""
    for arm in ARMS:
        if arm.batch == LARGE and arm.bn_size:
            _tell(result(study, arm, 0, LARGE // SMALL))


def _tell(found: dict[str, Any]) -> None:
    state = f"AP {found['AP']:.3f}" if found["converged"] else "did not converge"
    print(
        f"accuracy, seed {found['seed']}, {found['arm']}, devices {found['devices']}: {state}, "
        f"with precise statistics {found['precise_AP']:.3f} ({found['seconds']:.0f} s)", flush=True,
    )  # fmt: skip
