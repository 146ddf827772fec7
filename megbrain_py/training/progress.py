"""What a person sees while a training runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, Protocol, TypeVar

from megbrain_py import ranks

T = TypeVar("T")

_WINDOW = 50  # steps over which the rate is taken
_BAR_AND_CLOCK = 55  # columns that the losses leave free on a terminal
_PLAIN_SECONDS = 10.0  # between lines when there is no terminal


class Display(Protocol):
    """Where a trainer shows its state."""

    def start(self, step: int, steps: int) -> None:
        """The training runs from `step` to `steps`."""

    def update(self, step: int, losses: Mapping[str, float], status: Mapping[str, Any]) -> None:
        """`step` steps are done. status: rate (pictures/s), rank_rates (each rank's, where there
        are several), seconds_left, lr, signatures."""

    def message(self, text: str) -> None:
        """A line that stays."""

    def close(self) -> None:
        """Leave the terminal tidy."""


class Rate:
    """Pictures a second and time left, from the last steps; steps that compiled do not count."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, float]] = deque(maxlen=_WINDOW)

    def add(self, images: int, seconds: float, *, usual: bool = True) -> None:
        """A step of this many pictures took so long. `usual`: nothing was compiled in it."""
        if usual:
            self._steps.append((images, seconds))

    @property
    def images_per_second(self) -> float | None:
        """None until a step without compilation was seen."""
        seconds = sum(s for _, s in self._steps)
        return sum(n for n, _ in self._steps) / seconds if seconds > 0 else None

    def seconds_left(self, steps: int) -> float | None:
        """How long this many steps will take."""
        if not self._steps:
            return None
        return steps * sum(s for _, s in self._steps) / len(self._steps)


class Waits(Iterator[T]):
    """The items of an iterator, and how long each let us wait."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)
        self._seconds = 0.0

    def __next__(self) -> T:
        started = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self._seconds += time.perf_counter() - started

    def take(self) -> float:
        """Seconds of waiting since this was asked last."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def clock(seconds: float | None) -> str:
    """3:05 or 1:02:03; "?" when it is not known."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def losses_text(losses: Mapping[str, float]) -> str:
    """The total first, then the parts by their short names."""
    parts = [f"loss {losses['loss']:.3f}"] if "loss" in losses else []
    rest = {k.removeprefix("loss_"): v for k, v in losses.items() if k != "loss"}
    return " ".join([*parts, *(f"{name} {value:.3f}" for name, value in rest.items())])


def _rate_text(status: Mapping[str, Any]) -> str:
    rate, each = status.get("rate"), status.get("rank_rates")
    if rate is None:
        return "compiling"
    ranks_text = f" on {len(each)} ranks, {min(each):.1f}-{max(each):.1f} each" if each else ""
    return f"{rate:.1f} img/s{ranks_text}"


class PlainDisplay:
    """A line every ten seconds, and at the first and last step; for files and pipes."""

    def __init__(self, stream: IO[str] | None = None, seconds: float = _PLAIN_SECONDS) -> None:
        self.stream = stream or sys.stdout
        self.seconds = seconds
        self._steps = 0
        self._last = -float("inf")

    def start(self, step: int, steps: int) -> None:
        """Remember how many steps there are."""
        self._steps = steps

    def update(self, step: int, losses: Mapping[str, float], status: Mapping[str, Any]) -> None:
        """Print a line if it is time for one."""
        now = time.monotonic()
        if now - self._last < self.seconds and step != self._steps:
            return
        self._last = now
        self.message(
            f"step {step}/{self._steps}  {losses_text(losses)}  lr {status['lr']:.2g}  "
            f"{_rate_text(status)}  left {clock(status.get('seconds_left'))}  "
            f"sizes {status['signatures']}"
        )

    def message(self, text: str) -> None:
        """Print a line."""
        print(text, file=self.stream, flush=True)

    def close(self) -> None:
        """Nothing to tidy."""


class SilentDisplay:
    """Shows nothing: of many ranks one speaks."""

    def start(self, step: int, steps: int) -> None:
        """Nothing."""

    def update(self, step: int, losses: Mapping[str, float], status: Mapping[str, Any]) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class BarDisplay:
    """A progress bar with losses, rate and time left; needs a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[rate]}  {task.fields[left]} left"),
            TextColumn("[dim]{task.fields[detail]}[/dim]"),
            console=Console(),
            refresh_per_second=4,
        )
        self._task: Any = None

    def start(self, step: int, steps: int) -> None:
        """Show the bar."""
        self._task = self._progress.add_task(
            "train", total=steps, completed=step, rate="compiling", left="?", detail=""
        )
        self._progress.start()

    def update(self, step: int, losses: Mapping[str, float], status: Mapping[str, Any]) -> None:
        """Move the bar."""
        texts = [
            f"{losses_text(losses)}  lr {status['lr']:.2g}  sizes {status['signatures']}",
            losses_text(losses),
            losses_text({k: v for k, v in losses.items() if k == "loss"}),
        ]
        room = self._progress.console.width - _BAR_AND_CLOCK
        detail = next((text for text in texts if len(text) <= room), texts[-1])
        self._progress.update(
            self._task, completed=step, rate=_rate_text(status),
            left=clock(status.get("seconds_left")), detail=detail,
        )  # fmt: skip

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stop drawing."""
        self._progress.stop()


class Passes:
    """One line for work on many pictures: how many are done, rate, time left.

    A terminal shows it all the time, other streams get a line every ten seconds.
    """

    def __init__(
        self, pictures: int, stream: IO[str] | None = None, seconds: float = _PLAIN_SECONDS
    ) -> None:
        self.pictures, self.done = pictures, 0
        self.stream = stream or sys.stderr
        self.seconds = 0.0 if self.stream.isatty() else seconds
        self._rate = Rate()
        self._last = self._shown = time.monotonic()
        self._width = 0

    def add(self, pictures: int, what: str = "") -> None:
        """So many pictures more are done; `what` says which part of the work this was."""
        now = time.monotonic()
        self._rate.add(pictures, now - self._last)
        self._last = now
        self.done += pictures
        finished = self.done >= self.pictures
        if now - self._shown < self.seconds and not finished:
            return
        self._shown = now
        rate = self._rate.images_per_second
        left = (self.pictures - self.done) / rate if rate else None
        text = f"{self.done}/{self.pictures} pictures  {rate or 0:.1f} img/s  left {clock(left)}"
        text += f"  {what}" if what else ""
        if self.stream.isatty():
            end = "\n" if finished else ""
            print(f"\r{text:<{self._width}}", end=end, file=self.stream, flush=True)
            self._width = len(text)
        else:
            print(text, file=self.stream, flush=True)


def display() -> Display:
    """A bar when the output is a terminal, otherwise plain lines; on rank 0 only."""
    if ranks.current().rank != 0:
        return SilentDisplay()
    return BarDisplay() if sys.stdout.isatty() else PlainDisplay()
