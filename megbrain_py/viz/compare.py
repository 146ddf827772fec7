"""A page of pictures on which two detectors differ: truth and both answers side by side."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_PLACES = ("truth", "first", "second")  # of the panels, in names of files
_WIDEST = 900  # pixels of a picture on the page
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1500px;
       padding: 0 1rem; color: #1c1e21; background: #fafafa; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin: 2.2rem 0 .4rem; }
table { border-collapse: collapse; background: white; margin: 1rem 0; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #e3e3e3; text-align: right;
         font-variant-numeric: tabular-nums; }
th:first-child, td:first-child, td:last-child { text-align: left; }
tr.clear td { font-weight: 600; } tr.noise td { color: #777; }
.row { display: grid; grid-template-columns: repeat(3, 1fr); gap: .6rem; }
figure { margin: 0; } figure img { width: 100%; display: block; border: 1px solid #ddd; }
figcaption { font-size: .9rem; padding: .2rem 0 0; }
"""


@dataclass(frozen=True)
class Row:
    """A line of the table: name, both figures, difference with its interval, a remark.

    clear: the difference is more than noise.
    """

    cells: tuple[str, ...]
    clear: bool


@dataclass(frozen=True)
class Table:
    """A heading, the names of the columns, the rows."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Panel:
    """One of the pictures that stand side by side, and what is written below it."""

    picture: Image.Image
    caption: str


@dataclass(frozen=True)
class Comparison:
    """A picture of the data set: its name, and panels for truth, first, second."""

    title: str
    panels: Sequence[Panel]


def write_page(
    folder: Path, title: str, note: str, tables: Sequence[Table], pictures: Sequence[Comparison]
) -> Path:
    """Write index.html and the PNG files that it shows into a folder; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(note)}</p>"]
    parts += [_table(table) for table in tables]
    for number, comparison in enumerate(pictures, 1):
        parts.append(f"<h2>{number}. {html.escape(comparison.title)}</h2>")
        figures = []
        for place, panel in enumerate(comparison.panels):
            name = f"{number:03d}_{_PLACES[place]}.png"
            _fitted(panel.picture).save(folder / name)
            figures.append(
                f'<figure><a href="{name}"><img src="{name}" alt="" loading="lazy"></a>'
                f"<figcaption>{html.escape(panel.caption)}</figcaption></figure>"
            )
        parts.append(f'<div class="row">{"".join(figures)}</div>')
    page = folder / "index.html"
    body = "\n".join(parts)
    page.write_text(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n",
        encoding="utf-8",
    )
    return page


def _fitted(picture: Image.Image) -> Image.Image:
    if picture.width <= _WIDEST:
        return picture
    return picture.resize((_WIDEST, round(picture.height * _WIDEST / picture.width)))


def _table(table: Table) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)

    rows = [
        f'<tr class="{"clear" if row.clear else "noise"}">{line(row.cells, "td")}</tr>'
        for row in table.rows
    ]
    return (
        f"<h2>{html.escape(table.title)}</h2>\n<table>\n<tr>{line(table.columns, 'th')}</tr>\n"
        + "\n".join(rows)
        + "\n</table>"
    )
