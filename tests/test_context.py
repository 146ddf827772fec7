"""The context extractor: what it adds, that it adds nothing at the start, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from golden_detector import recipe
from test_faster_rcnn import CONFIG, _is_finite
from test_mask_head import WITH_MASKS, _masked

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import optim
from megbrain_py.models.faster_rcnn import PRESETS, FasterRCNN, FasterRCNNConfig
from megbrain_py.models.mask import MaskGeneratorConfig
from megbrain_py.models.roi_features import ContextConfig, ContextExtractor, Pooler

CONTEXTS = [
    ContextConfig("neighbours"),
    ContextConfig("all", "max"),
    ContextConfig("neighbours", "max", global_map=True, map_size=5),
    ContextConfig("same", global_map=True),
]
POOLINGS = ["roi_align", "prroi", "roi_pool", "prroi"]
SCALES = (1 / 4, 1 / 8, 1 / 16)


def _outputs(model: FasterRCNN, batch: dict[str, Any]) -> dict[str, np.ndarray]:
    """Losses of a batch, and what the second stage says of its proposals, by name."""
    x = {k: mb.placeholder(k, v.shape, v.dtype.name) for k, v in batch.items()}
    found = {**model.losses(**x), **model.detect(x["images"], x["image_sizes"])}
    return dict(mb.compile(found)(**batch))


def _baseline(config: FasterRCNNConfig) -> dict[str, np.ndarray]:
    """Weights as of a trained detector: with clear opinions."""
    shapes = {name: p.shape for name, p in FasterRCNN(config, rng=0).named_state().items()}
    return recipe.recipe_weights(shapes)


@pytest.mark.parametrize(
    ("context", "pooling"), list(zip(CONTEXTS, POOLINGS, strict=True)), ids=str
)
def test_switched_on_in_a_trained_detector_it_changes_nothing(
    context: ContextConfig, pooling: Any
) -> None:
    """Bar: 1e-6, of every loss and of detections with their masks."""
    plain_config = replace(WITH_MASKS, roi=replace(CONFIG.roi, score=0.0, pooling=pooling))
    weights, batch = _baseline(plain_config), _masked([3, 5])
    found = []
    for config in (plain_config, replace(plain_config, context=context)):
        model = FasterRCNN(config, rng=1)
        model.load_state_dict(weights, strict=False)
        found.append(_outputs(model, batch))
    plain, extended = found
    assert plain["count"].min() > 0 and np.array_equal(plain["count"], extended["count"])
    for name, value in plain.items():
        far = np.abs(value - extended[name]).max()
        assert far <= 1e-6 * max(np.abs(value).max(), 1), name


def test_switching_the_generator_on_leaves_boxes_as_they_are() -> None:
    """It has weights of its own; boxes, scores and the other losses stay, bit by bit."""
    head = replace(WITH_MASKS, roi=replace(CONFIG.roi, score=0.0))
    generator = MaskGeneratorConfig(window=16, grid=7, convs=1, channels=6, skip=4)
    weights, batch = _baseline(head), _masked([3, 5])
    found = []
    for config in (head, replace(head, mask="generator", mask_generator=generator)):
        model = FasterRCNN(config, rng=1)
        own = model.named_state()
        model.load_state_dict({k: v for k, v in weights.items() if k in own}, strict=False)
        found.append(_outputs(model, batch))
    for name, value in found[0].items():
        if "mask" not in name:
            assert np.array_equal(value, found[1][name]), name


@pytest.mark.parametrize(
    ("context", "mask"),
    [
        (ContextConfig("neighbours", "sum", True), "head"),
        (ContextConfig("neighbours", "sum", True), "generator"),
        (ContextConfig("all", "max"), "generator"),
    ],
    ids=str,
)
def test_a_trained_detector_goes_on_learning_with_them(context: ContextConfig, mask: Any) -> None:
    """Some steps on the same boxes: the losses fall, and every new weight has moved."""
    config = replace(
        WITH_MASKS, context=context, mask=mask, roi=replace(CONFIG.roi, pooling="prroi"),
        mask_generator=MaskGeneratorConfig(window=16, grid=7, convs=1, channels=6, skip=4),
    )  # fmt: skip
    model = FasterRCNN(config, rng=1)
    own = model.named_state()
    weights = {k: v for k, v in _baseline(WITH_MASKS).items() if k in own}
    model.load_state_dict(weights, strict=False)
    new = {k: p.value.copy() for k, p in model.named_parameters().items() if k not in weights}
    assert any("context" in name for name in new)
    assert any("mask_generator" in name for name in new) == (mask == "generator")
    batch = _masked([3, 5])
    x = {k: mb.placeholder(k, v.shape, v.dtype.name) for k, v in batch.items()}
    losses = model.losses(**x)
    goal = losses["loss_classifier"] + losses["loss_box_reg"] + losses["loss_mask"]
    learning = [p for k, p in model.named_parameters().items() if k.startswith("roi_heads")]
    clipped, _ = optim.clip_by_global_norm(mb.gradients(goal, learning), 5.0)
    updates = optim.SGD(learning).updates(
        dict(zip(learning, clipped, strict=True)), mb.placeholder("lr", ())
    )
    step = mb.compile({"loss": goal, "mask": losses["loss_mask"]}, updates=updates)
    found = [step(**batch, lr=np.float32(0.01)) for _ in range(30)]
    assert _is_finite(found[-1])
    assert found[-1]["loss"] < 0.7 * found[0]["loss"]
    assert found[-1]["mask"] < 0.97 * found[0]["mask"]
    state = model.named_state()
    still = [name for name, value in new.items() if np.array_equal(state[name].value, value)]
    assert not still


@cache
def _features() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(1, 3, 64 // s, 64 // s)).astype(np.float32) for s in (4, 8, 16)]


def _extract(config: ContextConfig, change: Any) -> tuple[np.ndarray, np.ndarray]:
    """(what the extractor gives for three boxes, plain pooling), its mixers changed."""
    extractor = ContextExtractor(config, 3, 3)
    change(extractor)
    pooler = Pooler("prroi", SCALES, 56.0)
    rois = np.array([[[3, 4, 20, 24], [10, 5, 50, 44], [0, 0, 64, 64]]], np.float32)
    sizes = np.array([[64, 64]], np.int32)
    maps = [mb.placeholder(f"p{n}", m.shape) for n, m in enumerate(_features())]
    boxes, count = mb.placeholder("rois", rois.shape), mb.placeholder("count", (1,), "int32")
    around = extractor.around(pooler, maps, mb.placeholder("sizes", (1, 2), "int32"))
    outputs = {
        "found": extractor(pooler, maps, boxes, count, 4, around),
        "plain": pooler(maps, boxes, count, 4),
        **{f"l{n}": pooler(maps, boxes, count, 4, F.roi_levels(boxes, SCALES, canonical_scale=56.0)
                           + mb.graph.constant(np.int32(n - 1))) for n in (0, 2)},
    }  # fmt: skip
    given = {f"p{n}": m for n, m in enumerate(_features())}
    given |= {"rois": rois, "count": np.array([3], np.int32)}
    if around is not None:
        given["sizes"] = sizes
    found = mb.compile(outputs)(**given)
    return found["found"] - found["plain"], np.stack([found["l0"], found["l2"]])


def test_neighbours_are_the_levels_beside_and_missing_ones_drop_out() -> None:
    """With identity mixers the sum of both neighbours is added; at the pyramid's ends one."""

    def identity(extractor: ContextExtractor) -> None:
        for mixer in extractor.others:
            mixer.weight.set(np.eye(3, dtype=np.float32)[:, :, None, None])  # type: ignore[attr-defined]

    added, beside = _extract(ContextConfig("neighbours"), identity)
    assert np.allclose(added, beside.sum(0), atol=1e-5)
    assert np.abs(beside[1, 0]).max() > 0 == np.abs(beside[0, 0]).max()  # finest: none below
    assert np.abs(beside[0, 2]).max() > 0 == np.abs(beside[1, 2]).max()  # coarsest: none above
    added, _ = _extract(ContextConfig("neighbours", "max"), identity)
    assert np.allclose(added, beside.max(0), atol=1e-5)


def test_the_global_map_is_of_the_whole_image() -> None:
    """It changes a box's features by pixels far from the box; without it nothing does."""
    for on in (False, True):
        config = replace(CONFIG, context=ContextConfig(global_map=on, levels="neighbours"))
        model = FasterRCNN(config, rng=0)
        if on:
            assert model.roi_heads.context is not None
            mixer = model.roi_heads.context.from_map
            mixer.weight.set(np.ones(mixer.weight.shape, np.float32))
        levels = [mb.placeholder(f"p{n}", (1, 16, 24 >> n, 24 >> n)) for n in range(4)]
        sizes = mb.placeholder("sizes", (1, 2), "int32")
        rois, count = mb.placeholder("rois", (1, 1, 4)), mb.placeholder("count", (1,), "int32")
        heads = model.roi_heads
        pooled = heads.pooled(levels, rois, count, heads.around(levels, sizes))
        step = mb.compile({"y": pooled})
        rng = np.random.default_rng(0)
        maps = {f"p{n}": rng.random(v.shape).astype(np.float32) for n, v in enumerate(levels)}
        given = {"rois": np.array([[[4, 4, 20, 20]]], np.float32), "count": np.ones(1, np.int32)}
        if on:
            given["sizes"] = np.array([[96, 96]], np.int32)
        before = step(**maps, **given)["y"]
        maps["p3"] = maps["p3"].copy()
        maps["p3"][:, :, 1, 1] += 1  # of 3 x 3 pixels: the middle, beyond the enlarged box
        after = step(**maps, **given)["y"]
        assert (np.abs(after - before).max() > 1e-3) == on


def test_the_preset_has_all_of_it_and_says_so() -> None:
    config = PRESETS["megdet"]
    assert config.roi.pooling == "prroi" and config.mask == "generator"
    assert config.context == ContextConfig("neighbours", "sum", True)
    text = str(config)
    for line in ("roi.pooling = 'prroi'", "mask = 'generator'", "context.levels = 'neighbours'"):
        assert line in text.splitlines()
