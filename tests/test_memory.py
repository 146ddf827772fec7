"""Process memory is what the plans say: one scratch arena, as large as the largest plan."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import numpy as np
import megbrain_py as mb
from megbrain_py import engine

def resident():
    with open("/proc/self/status") as status:
        line = next(l for l in status if l.startswith("VmRSS"))
    return int(line.split()[1]) * 1024

@mb.function
def work(x):
    parts = [mb.functional.softmax(x * float(k), 0) for k in range(2, 8)]
    y = parts[0]
    for part in parts[1:]:
        y = y * part
    total = parts[0]
    for part in parts[1:]:
        total = total + part  # keeps every part alive: six live tensors
    return {"y": mb.functional.sum(y + total)}

work(x=np.zeros(1000))
before = resident()
sizes = [int(s) for s in sys.argv[1].split(",")]
feed = np.ones(max(sizes), np.float32)
for size in sizes:
    work(x=feed[:size])
plans = [work.specialize(x=mb.tensor_type((s,))) for s in sizes]
print(resident() - before - feed.nbytes, engine.arena_bytes(), max(p.peak_bytes for p in plans))
"""


def measure(sizes: list[int]) -> tuple[int, int, int]:
    text = ",".join(map(str, sizes))
    output = subprocess.run(
        [sys.executable, "-c", SCRIPT, text], capture_output=True, text=True, check=True
    ).stdout
    grown, arena, peak = map(int, output.split())
    return grown, arena, peak


def test_five_signatures_take_the_memory_of_the_largest() -> None:
    sizes = [1_000_000, 5_000_000, 2_000_000, 4_000_000, 3_000_000]
    grown, arena, peak = measure(sizes)
    alone, arena_alone, peak_alone = measure([5_000_000])
    assert arena == peak == arena_alone == peak_alone
    assert peak >= 6 * 4 * 5_000_000
    assert abs(grown - peak) < 0.03 * peak, "what the process takes is what the plan says"
    assert grown < 1.02 * alone
