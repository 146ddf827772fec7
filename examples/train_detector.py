"""Train a detector on COCO-format data and use it: what `megbrain train` and `eval` do, in Python.

usage: python examples/train_detector.py TRAIN.json VAL.json OUTPUT [key=value ...]
"""

from __future__ import annotations

import sys

from megbrain_py.data import read_coco
from megbrain_py.training import settings
from megbrain_py.training.assemble import assemble
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.detector import Detecting, detect_all, load_trained
from megbrain_py.training.progress import display
from megbrain_py.training.runs import image_folder


def main(train: str, val: str, output: str, *overrides: str) -> None:
    """Train, then load the best checkpoint and score it on the validation pictures."""
    given = [f"data.train={train}", f"data.val={val}", f"output={output}", *overrides]
    config = settings.read(TrainConfig, None, given)

    # Class names and anchor sizes come from the data; each size of batch is compiled once.
    outcome = assemble(config, display()).run()
    print(f"{outcome.step} steps, AP50 {outcome.figures['AP50']}")

    # A trained detector is a compiled function from batches of pictures to boxes.
    trained = load_trained(output)
    detecting = Detecting(trained.model)
    loader = trained.input.loader(read_coco(val, image_folder(val)), batch=4)
    found = detecting(loader.batch(0))
    print({name: array.shape for name, array in found.items()})
    print(detect_all(detecting, loader).evaluate())


if __name__ == "__main__":
    main(*sys.argv[1:])
