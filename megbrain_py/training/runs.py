"""Folders of runs and data: finds the checkpoint of a run and the pictures of annotations."""

from __future__ import annotations

from pathlib import Path

from megbrain_py.errors import DataError
from megbrain_py.training import checkpoint, settings
from megbrain_py.training.checkpoint import Checkpoint
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.trainer import BEST_FILE, CHECKPOINTS, CONFIG_FILE


def find_checkpoint(path: str | Path, which: str = "best") -> tuple[Path, Checkpoint]:
    """The checkpoint at a path: the file itself, or of a run's folder "best" or "latest".

    A configuration file (.toml) stands for the folder that its `output` names. Without a best one
    (nothing was measured) the latest is taken. DataError when there is none.
    """
    path = Path(path)
    if path.suffix == ".toml":
        path = Path(settings.read(TrainConfig, path).output)
    if path.is_file():
        return path, checkpoint.load(path)
    best = path / BEST_FILE
    if which == "best" and best.is_file():
        return best, checkpoint.load(best)
    folder = path / CHECKPOINTS
    found = checkpoint.latest(folder)
    if found is None:
        what = (
            "no run's folder, and no checkpoint" if not folder.is_dir() else "no valid checkpoint"
        )
        raise DataError(f"{path}: {what}")
    return checkpoint.path_of(folder, found.step), found


def is_run(path: str | Path) -> bool:
    """Does a path look like what `find_checkpoint` takes, and not like a picture?"""
    path = Path(path)
    if path.is_dir():
        return any((path / name).exists() for name in (CONFIG_FILE, BEST_FILE, CHECKPOINTS))
    return path.suffix in (".toml", ".safetensors")


def image_folder(annotations: str | Path, given: str = "") -> Path:
    """Where the pictures of an annotation file lie: as given, or looked for beside the file.

    Looked at: ../images, images and the file's own folder; the first that holds the first picture
    of the file. DataError names them when none does.
    """
    from megbrain_py.data.coco import load_json

    if given:
        if not Path(given).is_dir():
            raise DataError(f"{given}: there is no such folder of pictures")
        return Path(given)
    path = Path(annotations)
    places = [path.parent.parent / "images", path.parent / "images", path.parent]
    document = load_json(path)
    images = document.get("images") if isinstance(document, dict) else None
    first = images[0].get("file_name") if images and isinstance(images[0], dict) else None
    if not isinstance(first, str):
        return next((place for place in places if place.is_dir()), path.parent)
    for place in places:
        if (place / first).is_file():
            return place
    looked = ", ".join(str(place) for place in places)
    raise DataError(f"{path}: its first picture {first} is in none of {looked}; say where they lie")
