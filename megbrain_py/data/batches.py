"""Batches computed ahead by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy.typing as npt

from megbrain_py.errors import DataError
from megbrain_py.instruments.trace import span

Batch = dict[str, npt.NDArray[Any]]


class Batches:
    """An iterator over batches that are computed ahead; `state` is the step that comes next."""

    def __init__(
        self,
        batch_of: Callable[[int], Batch],
        start: int,
        stop: int | None,
        workers: int,
        ahead: int,
    ) -> None:
        if start < 0 or workers < 0 or ahead < 1:
            raise DataError(
                f"loader: start {start} and workers {workers} must be at least 0, ahead {ahead} 1"
            )
        self.state = start
        self._batch_of, self._stop, self._ahead = batch_of, stop, max(ahead, workers)
        self._next = start  # the first step that is not under way
        self._futures: deque[Future[Batch]] = deque()
        self._pool = ThreadPoolExecutor(workers, "mb-loader") if workers else None
        self._closed = False

    def __iter__(self) -> Iterator[Batch]:
        return self

    @span("wait for a batch")
    def __next__(self) -> Batch:
        if self._closed or (self._stop is not None and self.state >= self._stop):
            self.close()
            raise StopIteration
        if self._pool is None:
            batch = self._batch_of(self.state)
        else:
            self._submit()
            try:
                batch = self._futures.popleft().result()
            except BaseException:
                self.close()
                raise
            self._next = max(self._next, self.state + 1)
        self.state += 1
        if not self._closed:
            self._submit()
        return batch

    def _submit(self) -> None:
        while (
            self._pool is not None
            and len(self._futures) < self._ahead
            and (self._stop is None or self._next < self._stop)
        ):
            self._futures.append(self._pool.submit(self._batch_of, self._next))
            self._next += 1

    def close(self) -> None:
        """Stop the threads: batches not begun are dropped, one under way is finished first."""
        self._closed = True
        for future in self._futures:
            future.cancel()
        self._futures.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Batches:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
