"""Read a picture file of any common kind into RGB bytes; a bad one is a DataError with its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from megbrain_py.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112  # the EXIF tag
_QUARTER_TURNS = (5, 6, 7, 8)


def _upright(picture: Image.Image, expected: tuple[int, int] | None) -> Image.Image:
    """Turn a picture as its EXIF data say, unless the annotations were made without turning.

    `expected` is (height, width) of the annotations: where only the unturned picture has this
    size, the turn is left out, so that boxes lie right either way.
    """
    from PIL import ImageOps

    orientation = picture.getexif().get(_ORIENTATION, 1)
    if orientation == 1:
        return picture
    unturned = (picture.height, picture.width)
    turned = unturned[::-1] if orientation in _QUARTER_TURNS else unturned
    if expected is not None and expected == unturned != turned:
        return picture
    return ImageOps.exif_transpose(picture) or picture


def _rgb(picture: Image.Image) -> Image.Image:
    """Any mode to RGB; 16-bit grey is scaled, transparency is laid on black."""
    from PIL import Image

    if picture.mode == "RGB":
        return picture
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        grey = np.asarray(picture, np.float32)
        top = 65535.0 if grey.max(initial=0.0) > 255 else 255.0
        return Image.fromarray((grey.clip(0, top) * (255.0 / top)).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, picture).convert("RGB")
    return picture.convert("RGB")


def open_rgb(path: str | Path, expected: tuple[int, int] | None = None) -> Image.Image:
    """The picture as a Pillow RGB image, upright after EXIF.

    `expected` = (height, width) that the annotations state: another size raises DataError, as
    boxes would lie wrong. DataError also for a missing, broken or truncated file.
    """
    from PIL import Image

    path = Path(path)
    try:
        with Image.open(path) as picture:
            picture.load()
            result = _rgb(_upright(picture, expected))
    except FileNotFoundError:
        raise DataError(f"{path}: the picture does not exist") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: the picture is too large: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        text = str(error).replace(str(path), "the file").replace(f"'{path}'", "the file")
        raise DataError(f"{path}: the picture cannot be decoded: {text}") from error
    if expected is not None and (result.height, result.width) != expected:
        raise DataError(
            f"{path}: the picture is {result.width}x{result.height}, "
            f"the annotations say {expected[1]}x{expected[0]}"
        )
    return result


def read_image(path: str | Path) -> npt.NDArray[np.uint8]:
    """uint8[height, width, 3]: the picture in RGB, upright after EXIF."""
    return np.asarray(open_rgb(path), np.uint8)
