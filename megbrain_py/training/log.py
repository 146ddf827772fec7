"""The log of a run: JSON lines that a resumed training cuts back to where it starts again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from megbrain_py.errors import DataError
from megbrain_py.nn.serialize import write_atomically

Line = dict[str, Any]


class RunLog:
    """Appends one JSON object a line; each has `kind` and `step` (steps done so far).

    Kinds: "train" (losses, lr, rate in pictures/s, seconds), "val" (validation losses) and "eval"
    (COCO figures). A line is handed to the system at once: a killed process loses none. Each is
    then told to `listeners`. Where ranks train together only the first one's log `keeps` lines; the
    others' stay empty.
    """

    def __init__(self, path: Path, *, keeps: bool = True) -> None:
        self.path = path
        self.keeps = keeps
        self.listeners: list[Callable[[Line], None]] = []
        self._stream: IO[str] | None = None

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append a line."""
        if not self.keeps:
            return
        if self._stream is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("a", encoding="utf-8")
        line = {"kind": kind, "step": step, **values}
        self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._stream.flush()
        for listener in self.listeners:
            listener(line)

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def cut(self, step: int) -> None:
        """Forget everything after `step`, and a line that was half written."""
        self.close()
        if self.path.exists():
            kept = [line for line in read_log(self.path) if line["step"] <= step]
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
            write_atomically(self.path, text.encode())

    def lines(self, kind: str | None = None) -> list[Line]:
        """What was written so far."""
        if not self.keeps or not self.path.exists():
            return []
        return [line for line in read_log(self.path) if kind in (None, line["kind"])]


def read_log(path: str | Path) -> list[Line]:
    """The lines of a log. A last line without its end is left out (a process died writing it).

    DataError names the file and the number of any other line that is no log line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"log {path}: cannot be read: {error.strerror or error}") from None
    *whole, _ = text.split("\n")
    lines: list[Line] = []
    for number, one in enumerate(whole, 1):
        try:
            line = json.loads(one)
            lines.append({**line, "kind": str(line["kind"]), "step": int(line["step"])})
        except (ValueError, KeyError, TypeError):
            raise DataError(f"log {path}: line {number} is no log line: {one[:60]!r}") from None
    return lines
