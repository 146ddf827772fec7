"""Masks against torchvision's: targets, mask head, loss, pasting, resizing (goldens/masks.npz)."""

from __future__ import annotations

import ast

import numpy as np
import pytest
from golden_detector import BAR, GOLDENS, GRADIENT_BAR, Array, Goldens, error, goldens, recipe

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import nn
from megbrain_py.data import masks as masks_of
from megbrain_py.data.coco import ImageEntry
from megbrain_py.data.transforms import Draw, resized_size
from megbrain_py.graph import constant
from megbrain_py.models.mask import MaskHead, MaskHeadConfig, MaskPredictor, mask_loss, of_class

HEIGHT, WIDTH, CLASSES = 60, 84, 3


@pytest.fixture(scope="module")
def golden() -> Goldens:
    return goldens("masks")


def _constant(name: str) -> Array:
    """A table of make_masks.py, which cannot be imported without torch."""
    text = (GOLDENS / "make_masks.py").read_text()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return np.array(ast.literal_eval(node.value))
    raise KeyError(name)


class _Branch(nn.Module):
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.mask_head = MaskHead(8, MaskHeadConfig(14, convs=2, channels=6), rng)
        self.mask_predictor = MaskPredictor(6, 6, CLASSES, rng)


@pytest.fixture(scope="module")
def found(golden: Goldens) -> Goldens:
    """Targets, outputs, loss and gradients of our mask branch on the goldens' inputs."""
    branch = _Branch()
    shapes = {name: p.shape for name, p in branch.named_state().items()}
    branch.load_state_dict(recipe.recipe_weights(shapes))
    cropped = [masks_of.crop(mask) for mask in golden["masks"]]
    pixels = np.zeros((1, 9000), np.uint8)
    places = np.zeros((1, len(cropped), 5), np.int32)
    masks_of.pack(cropped, pixels[0], places[0])
    objects = _constant("ROI_OBJECTS").astype(np.int32)
    labels = _constant("OBJECT_LABELS").astype(np.int32)[objects]
    pooled = mb.placeholder("pooled", (len(objects), 8, 14, 14))
    logits = branch.mask_predictor(branch.mask_head(pooled))
    target = F.mask_targets(
        constant(pixels), constant(places), constant(np.array([[HEIGHT, WIDTH]], np.int32)),
        constant(_constant("ROIS").astype(np.float32)[None]), constant(objects[None]),
        constant(np.array([len(objects)], np.int32)), 28,
    )  # fmt: skip
    loss = mask_loss(logits, constant(labels), target, constant(np.ones(len(objects), np.bool_)))
    named = branch.named_parameters()
    gradients = mb.gradients(loss, list(named.values()))
    step = mb.compile(
        {
            "targets": target, "logits": logits, "loss": loss,
            "probabilities": F.sigmoid(of_class(logits, constant(labels))),
            **{f"gradient/{k}": g for k, g in zip(named, gradients, strict=True)},
        }
    )  # fmt: skip
    return dict(step(pooled=recipe.uniform("masks/pooled", (len(objects), 8, 14, 14))))


@pytest.mark.parametrize("name", ["targets", "logits", "probabilities", "loss"])
def test_outputs(name: str, found: Goldens, golden: Goldens) -> None:
    assert error(found[name], golden[name]) <= BAR


def test_every_gradient(found: Goldens, golden: Goldens) -> None:
    names = [name for name in golden if name.startswith("gradient/")]
    assert len(names) == 8
    assert max(error(found[name], golden[name]) for name in names) <= GRADIENT_BAR


def test_pasting(golden: Goldens) -> None:
    boxes = _constant("PASTED").astype(np.float32)
    maps = (recipe.uniform("masks/pasted", (len(boxes), 1, 28, 28)) + 1) / 2
    whole = np.zeros_like(golden["pasted"])
    for n, box in enumerate(boxes):
        top, left, values = masks_of.paste(maps[n, 0], box, HEIGHT, WIDTH)
        whole[n, top : top + values.shape[0], left : left + values.shape[1]] = values
    assert error(whole, golden["pasted"]) <= BAR
    assert np.array_equal(whole > 0, golden["pasted"] > 0)


@pytest.mark.parametrize(("short", "longest"), [(47, 1000), (75, 1000), (133, 150)])
def test_resizing(short: int, longest: int, golden: Goldens) -> None:
    """Bit-equal, although only the cropped masks are resized."""
    image = ImageEntry(1, "a.png", HEIGHT, WIDTH, ())
    size = resized_size(HEIGHT, WIDTH, short, longest)
    cropped = [masks_of.crop(mask) for mask in golden["masks"]]
    expected = golden[f"resized/{short}"]
    for flip in (False, True):
        resized = masks_of.training_masks(image, cropped, Draw(*size, flip=flip))
        for n, mask in enumerate(resized):
            whole = np.zeros(size, np.uint8)
            h, w = mask.pixels.shape
            whole[mask.top : mask.top + h, mask.left : mask.left + w] = mask.pixels
            assert np.array_equal(whole, expected[n][:, ::-1] if flip else expected[n])
