"""Look a COCO-format data set over for mistakes, all of them, before a training stumbles on one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from megbrain_py.data.coco import is_number, is_too_large, load_json, parse_segmentation
from megbrain_py.data.images import open_rgb
from megbrain_py.errors import DataError

Severity = Literal["error", "warning", "note"]
_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_OUTSIDE = 1.0  # pixels; labelling tools round, so less is not worth a word


@dataclass(frozen=True)
class Finding:
    """One thing noticed: `kind` groups findings, `where` names the entry or file."""

    severity: Severity
    kind: str
    where: str
    message: str


@dataclass(frozen=True)
class CheckReport:
    """All findings and the counts of what was looked at."""

    annotation_file: Path
    images: int
    objects: int
    objects_per_class: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no finding of severity "error"."""
        return not any(finding.severity == "error" for finding in self.findings)

    def __str__(self) -> str:
        return format_report(self)


class _Checker:
    """Walks through the raw JSON; nothing in it is trusted."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.per_class: Counter[str] = Counter()
        self.category_names: dict[int, str] = {}
        self.image_sizes: dict[int, tuple[int, int] | None] = {}
        self.files: dict[str, tuple[int, int] | None] = {}
        self.objects_of: Counter[int] = Counter()

    def add(self, severity: Severity, kind: str, where: str, message: str) -> None:
        self.findings.append(Finding(severity, kind, where, message))

    def entries(
        self, document: dict[str, Any], name: str, keys: Iterable[str]
    ) -> Iterable[tuple[str, dict[str, Any]]]:
        """The well-formed entries of a section with their places; the others become findings."""
        section = document.get(name)
        if not isinstance(section, list):
            self.add("error", "missing key", name, f"the file has no list '{name}'")
            return
        seen: set[int] = set()
        for i, entry in enumerate(section):
            where = f"{name}[{i}]"
            if not isinstance(entry, dict):
                self.add("error", "wrong type", where, "is not an object")
                continue
            missing = [key for key in ("id", *keys) if key not in entry]
            if missing:
                self.add("error", "missing key", where, f"without {', '.join(missing)}")
                continue
            where = f"{where} (id {entry['id']})"
            whole = [key for key in ("id", *keys) if key.endswith("id")]
            wrong = [key for key in whole if not isinstance(entry[key], int)]
            if wrong:
                self.add("error", "wrong type", where, f"{', '.join(wrong)}: not a whole number")
                continue
            if entry["id"] in seen:
                self.add("error", f"duplicate id in {name}", where, "this id appeared before")
            seen.add(entry["id"])
            yield where, entry

    def categories(self, document: dict[str, Any]) -> None:
        for where, entry in self.entries(document, "categories", ["name"]):
            name = str(entry["name"])
            if name in self.category_names.values():
                self.add("warning", "duplicate category name", where, f"'{name}' appeared before")
            self.category_names[entry["id"]] = name

    def images(self, document: dict[str, Any]) -> None:
        for where, entry in self.entries(document, "images", ["file_name", "width", "height"]):
            height, width = entry["height"], entry["width"]
            valid = all(is_number(n) and n >= 1 for n in (height, width))
            valid = valid and not is_too_large(height, width)
            if not valid:
                self.add("error", "wrong image size", where, f"{width} x {height}")
            size = (height, width) if valid else None
            self.image_sizes[entry["id"]] = size
            if not isinstance(entry["file_name"], str) or not entry["file_name"]:
                self.add("error", "wrong type", where, "file_name is not a text")
                continue
            if entry["file_name"] in self.files:
                self.add("warning", "picture used twice", where, entry["file_name"])
            self.files[entry["file_name"]] = size

    def annotations(self, document: dict[str, Any]) -> None:
        keys = ["image_id", "category_id", "bbox"]
        for where, entry in self.entries(document, "annotations", keys):
            if entry["category_id"] not in self.category_names:
                self.add("error", "unknown category", where, f"category_id {entry['category_id']}")
            else:
                self.per_class[self.category_names[entry["category_id"]]] += 1
            if entry["image_id"] not in self.image_sizes:
                self.add("error", "unknown image", where, f"image_id {entry['image_id']}")
            self.objects_of[entry["image_id"]] += 1
            self.box(where, entry["bbox"], self.image_sizes.get(entry["image_id"]))
            self.segmentation(where, entry.get("segmentation"))

    def box(self, where: str, box: Any, size: tuple[int, int] | None) -> None:
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            self.add("error", "wrong box", where, f"bbox {box} is not four finite numbers")
            return
        x, y, w, h = box
        if w < 0 or h < 0:
            self.add("error", "negative box", where, f"width {w:g}, height {h:g}")
        elif w == 0 or h == 0:
            self.add("error", "empty box", where, f"width {w:g}, height {h:g}")
        elif size is not None:
            height, width = size
            if x >= width or y >= height or x + w <= 0 or y + h <= 0:
                text = f"x {x:g}..{x + w:g}, y {y:g}..{y + h:g} in {width}x{height}"
                self.add("error", "box outside the picture", where, text)
            elif max(-x, -y, x + w - width, y + h - height) > _OUTSIDE:
                text = f"x {x:g}..{x + w:g}, y {y:g}..{y + h:g} in {width}x{height}"
                self.add("warning", "box partly outside", where, text)

    def segmentation(self, where: str, value: Any) -> None:
        try:
            parse_segmentation(value)
        except ValueError as error:
            self.add("error", "wrong segmentation", where, str(error))
            return
        if isinstance(value, list) and any(len(part) < 6 for part in value):
            self.add("warning", "flat polygon", where, "a part has fewer than three points")

    def statistics(self) -> None:
        for key, name in self.category_names.items():
            if not self.per_class[name]:
                self.add("note", "class without objects", f"category {key}", name)
        empty = [str(key) for key in self.image_sizes if not self.objects_of[key]]
        if empty:
            text = f"{len(empty)} of {len(self.image_sizes)} pictures have no objects"
            self.add("note", "picture without objects", f"image ids {', '.join(empty[:5])}", text)

    def pictures(self, folder: Path, progress: Callable[[int, int], None] | None) -> None:
        """Decode every picture, some at a time; order of findings is the order of the file."""

        def problem(item: tuple[str, tuple[int, int] | None]) -> tuple[str, str, str] | None:
            name, size = item
            path = folder / name
            if not path.is_file():
                return "missing picture", name, f"no such file in {folder}"
            try:
                open_rgb(path, size)
            except DataError as error:
                text = str(error).removeprefix(f"{path}: ")
                kind = "size mismatch" if "annotations say" in text else "corrupt picture"
                return kind, name, text
            return None

        with ThreadPoolExecutor(4) as pool:
            for done, found in enumerate(pool.map(problem, self.files.items()), 1):
                if found is not None:
                    self.add("error", *found)
                if progress is not None:
                    progress(done, len(self.files))


def check_data(
    annotation_file: str | Path,
    image_folder: str | Path | None = None,
    *,
    pictures: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Look for wrong categories, bad boxes, duplicate ids, missing, corrupt or mis-sized pictures.

    Without `image_folder` pictures are looked for in `../images` of the file's folder. With
    `pictures=False` none is opened. `progress(done, total)` is called after each picture. Nothing
    that is wrong with the data raises: it becomes a Finding, also an unreadable file.
    """
    path = Path(annotation_file)
    folder = path.parent.parent / "images" if image_folder is None else Path(image_folder)
    checker = _Checker()
    try:
        document = load_json(path)
    except DataError as error:
        text = str(error).removeprefix(f"{path}: ")
        return CheckReport(path, 0, 0, {}, (Finding("error", "unreadable file", str(path), text),))
    if not isinstance(document, dict):
        wrong = Finding("error", "wrong type", str(path), "the file does not hold an object")
        return CheckReport(path, 0, 0, {}, (wrong,))
    checker.categories(document)
    checker.images(document)
    checker.annotations(document)
    checker.statistics()
    if pictures:
        checker.pictures(folder, progress)
    counts = {name: checker.per_class[name] for name in checker.category_names.values()}
    return CheckReport(
        path,
        len(checker.image_sizes),
        sum(checker.objects_of.values()),
        counts,
        tuple(checker.findings),
    )


def format_report(report: CheckReport, examples: int = 3) -> str:
    """A table: one line a kind of finding with its number and first examples, then the verdict."""
    lines = [f"{report.annotation_file}"]
    shown = sorted(report.objects_per_class.items(), key=lambda item: -item[1])
    classes = ", ".join(f"{name} {count}" for name, count in shown[:10])
    more = f", and {len(shown) - 10} more" if len(shown) > 10 else ""
    lines.append(f"{report.images} pictures, {report.objects} objects: {classes}{more}")
    for severity in _SEVERITIES:
        kinds: dict[str, list[Finding]] = {}
        for finding in report.findings:
            if finding.severity == severity:
                kinds.setdefault(finding.kind, []).append(finding)
        for kind, findings in kinds.items():
            lines.append(f"{severity:<8} {len(findings):>6}  {kind}")
            lines += [f"{'':>16}  {f.where}: {f.message}" for f in findings[:examples]]
            if len(findings) > examples:
                lines.append(f"{'':>16}  ... and {len(findings) - examples} more")
    totals = Counter(finding.severity for finding in report.findings)
    lines.append(f"{totals['error']} errors, {totals['warning']} warnings, {totals['note']} notes")
    return "\n".join(lines)
