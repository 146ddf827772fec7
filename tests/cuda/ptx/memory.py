"""Memory that checks every access: bounds, alignment, what was never written, races."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .arithmetic import Lanes

_NOBODY, _SEVERAL = -1, -2  # in place of a thread or a block


class Fault(Exception):
    """A kernel did what CUDA does not permit; `thread` counts through the grid, if one is known."""

    def __init__(self, what: str, thread: int | None = None) -> None:
        super().__init__(what)
        self.thread = thread


@dataclass(frozen=True)
class Access:
    """What the lanes of one load or store touch, and who they are."""

    addresses: Lanes
    dtype: np.dtype
    threads: Lanes
    blocks: Lanes
    epochs: Lanes  # how many barriers the block has passed

    def of(self, chosen: Lanes) -> Access:
        """The part of these lanes."""
        return replace(self, addresses=self.addresses[chosen], threads=self.threads[chosen],
                       blocks=self.blocks[chosen], epochs=self.epochs[chosen])  # fmt: skip

    def refuse(self, wrong: Lanes, what: str) -> None:
        """Fault at the first lane where `wrong`; `what` may name {address}."""
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise Fault(what.format(address=self.addresses[first]), int(self.threads[first]))

    def refuse_misaligned(self) -> None:
        size = self.dtype.itemsize
        self.refuse(self.addresses % size != 0, f"address {{address}} is no multiple of {size}")


class Races:
    """Who last read and wrote each byte. Two threads conflict where one of them writes, unless

    they are of one block and a barrier stands between.
    """

    def __init__(self, size: int, where: str) -> None:
        self.where = where
        self.writer, self.writer_block, self.writer_epoch = np.full((3, size), _NOBODY, np.int64)
        self.reader, self.reader_block, self.reader_epoch = np.full((3, size), _NOBODY, np.int64)

    def note(self, access: Access, at: Lanes, *, write: bool) -> None:
        """Record an access to the bytes at[lane, k]; Fault at the first conflict."""
        thread, block, epoch = (
            np.broadcast_to(v[:, None], at.shape)
            for v in (access.threads, access.blocks, access.epochs)
        )
        writer, reader = self.writer[at], self.reader[at]
        ordered = (self.writer_block[at] == block) & (self.writer_epoch[at] < epoch)
        conflict = (writer != _NOBODY) & (writer != thread) & ~ordered
        if write:
            ordered = (self.reader_block[at] == block) & (self.reader_epoch[at] < epoch)
            conflict |= (reader != _NOBODY) & (reader != thread) & ~ordered
            self.writer[at], self.writer_block[at], self.writer_epoch[at] = thread, block, epoch
            conflict |= self.writer[at] != thread  # another lane of this instruction won
        else:
            same = self.reader_block[at] == block
            fresh = (reader == _NOBODY) | (same & (self.reader_epoch[at] < epoch))
            thread = np.where(fresh | (same & (reader == thread)), thread, _SEVERAL)
            block = np.where(fresh | same, block, _SEVERAL)
            self.reader[at], self.reader_block[at], self.reader_epoch[at] = thread, block, epoch
            self.reader[at[self.reader[at] != thread]] = _SEVERAL
            self.reader_block[at[self.reader_block[at] != block]] = _SEVERAL
        lanes = conflict.any(axis=1)
        first = int(at[lanes][0, 0]) if lanes.any() else 0
        access.refuse(lanes, f"race in {self.where}, byte {first}: another thread touches it too, "
                      "and no barrier stands between")  # fmt: skip


class GlobalMemory:
    """The allocations that live on the device when a kernel starts."""

    def __init__(self, allocations: list[tuple[int, Lanes]]) -> None:
        ordered = sorted(allocations, key=lambda allocation: allocation[0])
        self.starts = np.array([start for start, _ in ordered], np.uint64)
        self.blocks = [block for _, block in ordered]
        self.sizes = np.array([block.size for block in self.blocks], np.uint64)
        self.races: dict[int, Races] = {}  # by allocation, made when it is first touched

    def load(self, access: Access) -> Lanes:
        """The value that each lane reads."""
        values = np.empty(len(access.threads), access.dtype)
        for chosen, block, at in self._resolve(access, write=False):
            values[chosen] = block[at].view(access.dtype)[:, 0]
        return values

    def store(self, access: Access, values: Lanes) -> None:
        """Write each lane's value."""
        octets = np.ascontiguousarray(values).view(np.uint8).reshape(-1, access.dtype.itemsize)
        for chosen, block, at in self._resolve(access, write=True):
            block[at] = octets[chosen]

    def _resolve(self, access: Access, *, write: bool) -> Iterator[tuple[Lanes, Lanes, Lanes]]:
        """(lanes, allocation, byte offsets [lane, k]) for each allocation that is touched."""
        size = access.dtype.itemsize
        number = np.searchsorted(self.starts, access.addresses, side="right") - 1
        offset = access.addresses - self.starts[number]
        outside = (number < 0) | (offset + np.uint64(size) > self.sizes[number])
        if outside.any():
            first = int(np.flatnonzero(outside)[0])
            verb = "write" if write else "read"
            access.refuse(outside, f"{verb} out of bounds, at byte {offset[first]} of an "
                          f"allocation of {self.sizes[number[first]]} bytes")  # fmt: skip
        access.refuse_misaligned()
        for n in np.unique(number):
            chosen = np.flatnonzero(number == n)
            at = offset[chosen].astype(np.int64)[:, None] + np.arange(size)
            races = self.races.setdefault(n, Races(int(self.sizes[n]), "global memory"))
            races.note(access.of(chosen), at, write=write)
            yield chosen, self.blocks[n], at


class SharedMemory:
    """The shared arrays of all blocks of a launch; to read one before it is written is a fault."""

    def __init__(self, blocks: int, size: int) -> None:
        self.size = size
        self.bytes = np.full(blocks * size, 0xFF, np.uint8)
        self.written = np.zeros(blocks * size, bool)
        self.races = Races(blocks * size, "shared memory")

    def load(self, access: Access) -> Lanes:
        """The value that each lane reads."""
        at = self._resolve(access)
        unwritten = ~self.written[at].all(axis=1)
        access.refuse(unwritten, "read of shared memory that nobody has written, at byte {address}")
        self.races.note(access, at, write=False)
        return self.bytes[at].view(access.dtype)[:, 0]

    def store(self, access: Access, values: Lanes) -> None:
        """Write each lane's value."""
        at = self._resolve(access)
        self.races.note(access, at, write=True)
        self.bytes[at] = np.ascontiguousarray(values).view(np.uint8).reshape(at.shape)
        self.written[at] = True

    def _resolve(self, access: Access) -> Lanes:
        size = access.dtype.itemsize
        outside = access.addresses + np.uint64(size) > self.size
        access.refuse(outside, f"shared access out of bounds, at byte {{address}} of {self.size}")
        access.refuse_misaligned()
        start = access.blocks * self.size + access.addresses.astype(np.int64)
        return start[:, None] + np.arange(size)
