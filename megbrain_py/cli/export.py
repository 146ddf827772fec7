"""`megbrain export`: the weights of a run as a file that torchvision loads."""

from __future__ import annotations


def export(run: str, which: str, file: str) -> int:
    """Write the weights, under torchvision's names, as the file's ending says."""
    from megbrain_py.training.runs import find_checkpoint
    from megbrain_py.weights import write_weights

    path, found = find_checkpoint(run, which)
    write_weights(file, found.model)
    numbers = sum(array.size for array in found.model.values())
    print(f"{file}: {len(found.model)} arrays, {numbers:,} numbers of {path}")
    return 0
