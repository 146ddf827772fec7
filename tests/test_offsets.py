"""Static storage allocation: the exact search against brute force, large inputs, schedules."""

from __future__ import annotations

import itertools
import json
import random
import time

import data_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megbrain_py import _planner  # noqa: TID251
from megbrain_py.planning.intervals import read_intervals
from megbrain_py.planning.memory import Ints, check, max_live, place
from megbrain_py.planning.offsets import Window, place_events, rectangles

Rectangles = list[tuple[int, int, int]]  # lower, upper, size


def arrays(found: Rectangles) -> tuple[Ints, Ints, Ints]:
    table = np.array(found, np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def fits_below(found: Rectangles, capacity: int) -> bool:
    """Try every order of placing each rectangle at its lowest gap: one of them is optimal."""
    seen: set[tuple[tuple[int, int], ...]] = set()

    def go(placed: dict[int, int]) -> bool:
        if len(placed) == len(found):
            return True
        key = tuple(sorted(placed.items()))
        if key in seen:
            return False
        seen.add(key)
        for r, (lower, upper, size) in enumerate(found):
            if r in placed:
                continue
            at = 0
            for begin, end in sorted(
                (at, at + found[q][2])
                for q, at in placed.items()
                if found[q][0] < upper and lower < found[q][1]
            ):
                if at + size <= begin:
                    break
                at = max(at, end)
            if at + size <= capacity and go({**placed, r: at}):
                return True
        return False

    return go({})


rectangles_strategy = st.lists(
    st.builds(
        lambda lower, duration, size: (lower, lower + duration, size),
        st.integers(0, 6), st.integers(1, 4), st.integers(1, 4),
    ),
    min_size=1, max_size=7,
)  # fmt: skip

# Instances that need more than their most live bytes: 5, not 4.
GAPS: list[Rectangles] = [
    [(4, 6, 1), (2, 5, 1), (2, 6, 1), (5, 7, 2), (0, 1, 2), (0, 3, 2), (6, 7, 2), (3, 5, 1),
     (3, 4, 1)],
    [(0, 2, 2), (2, 4, 1), (5, 7, 2), (0, 3, 2), (7, 8, 2), (3, 5, 1), (6, 8, 2), (4, 6, 2),
     (2, 5, 1)],
    [(3, 7, 1), (1, 4, 2), (6, 8, 2), (7, 8, 2), (3, 6, 1), (5, 6, 1), (0, 1, 1), (2, 3, 2),
     (5, 7, 1)],
]  # fmt: skip


@given(rectangles_strategy)
@settings(max_examples=150, deadline=None)
def test_small_instances_are_solved_to_the_optimum(found: Rectangles) -> None:
    offsets, height, optimal = place(*arrays(found))
    assert optimal
    assert height == max(o + size for o, (_, _, size) in zip(offsets, found, strict=True))
    assert height == max_live(*arrays(found)) or not fits_below(found, height - 1)


@pytest.mark.parametrize("found", GAPS)
def test_an_optimum_above_the_live_bytes_is_proven(found: Rectangles) -> None:
    assert max_live(*arrays(found)) == 4
    assert not fits_below(found, 4)
    _, height, optimal = place(*arrays(found))
    assert (height, optimal) == (5, True)


def cut(count: int, time: int, height: int, seed: int) -> Rectangles:
    """A rectangle cut into `count` parts by random cuts: it can be put together again."""
    rng = random.Random(seed)
    parts = [(0, time, 0, height)]
    while len(parts) < count:
        k = rng.randrange(len(parts))
        lower, upper, bottom, top = parts[k]
        if rng.random() < 0.5 and upper - lower > 1:
            at = rng.randint(lower + 1, upper - 1)
            parts[k : k + 1] = [(lower, at, bottom, top), (at, upper, bottom, top)]
        elif top - bottom > 1:
            at = rng.randint(bottom + 1, top - 1)
            parts[k : k + 1] = [(lower, upper, bottom, at), (lower, upper, at, top)]
    rng.shuffle(parts)
    return [(lower, upper, top - bottom) for lower, upper, bottom, top in parts]


@pytest.mark.parametrize("seed", range(40))
def test_what_was_cut_is_put_together_again(seed: int) -> None:
    found = cut(12 + 2 * seed, 60, 100, seed)
    assert place(*arrays(found))[1] == 100


@pytest.mark.parametrize("name", ["A", "D", "F", "I"])
def test_challenging_instances_are_solved(name: str) -> None:
    file = data_files.REAL / "memory" / "minimalloc" / f"{name}.1048576.csv"
    if not file.exists():
        pytest.skip("MB_TEST_DATA does not point to a folder with memory/minimalloc")
    table = read_intervals(file)
    start = time.process_time()
    _, height, _ = place(table.lower, table.upper, table.size, 1048576, 600_000_000)
    assert height <= 1048576
    assert time.process_time() - start < 10


def test_the_same_input_gives_the_same_offsets() -> None:
    found = cut(150, 300, 10000, 5)
    first, again = place(*arrays(found), work=300_000), place(*arrays(found), work=300_000)
    assert first[0].tolist() == again[0].tolist()


def many(count: int, duration: int) -> tuple[Ints, Ints, Ints]:
    rng = np.random.default_rng(0)
    lower = rng.integers(0, 2 * count, count)
    upper = lower + 1 + np.minimum(rng.exponential(duration / 4, count).astype(int), duration)
    return lower, upper, 64 * rng.integers(1, 1 << 12, count)


def test_tens_of_thousands_of_buffers_take_seconds() -> None:
    found = many(30_000, 3000)
    start = time.process_time()
    _, height, _ = place(*found, work=1)
    assert time.process_time() - start < 5
    assert height < 1.1 * max_live(*found)


def test_repairs_of_windows_lower_what_greedy_attempts_find() -> None:
    found = many(4000, 100)
    greedy, repaired = place(*found, work=1)[1], place(*found, work=40_000_000)[1]
    assert max_live(*found) <= repaired < greedy


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5), st.integers(0, 6),
                          st.integers(0, 20)), max_size=12))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_the_check_finds_what_a_comparison_of_all_pairs_finds(
    found: list[tuple[int, int, int, int]],
) -> None:
    table = np.array(found, np.int64).reshape(-1, 4)
    lower, size, offset = table[:, 0], table[:, 2], table[:, 3]
    upper = lower + table[:, 1]

    def clash(a: int, b: int) -> bool:
        together = lower[a] < upper[b] and lower[b] < upper[a]
        overlap = offset[a] < offset[b] + size[b] and offset[b] < offset[a] + size[a]
        return bool(together and overlap and size[a] > 0 and size[b] > 0)

    one, other = _planner.find_overlap(lower, upper, size, offset)
    any_clash = any(clash(a, b) for a, b in itertools.combinations(range(len(found)), 2))
    assert (one >= 0) == any_clash
    if one >= 0:
        assert clash(one, other)


def test_an_overlap_is_our_own_mistake() -> None:
    lower, upper, size = arrays([(0, 2, 8), (1, 3, 8)])
    with pytest.raises(AssertionError, match="buffers 0 and 1 overlap"):
        check(lower, upper, size, np.array([0, 4]))


# --- schedules ------------------------------------------------------------------------------------

# 0 is an input; 1 = f(0), 2 = g(1) in place, 3 = h(1, 2) ...
GRAPH = {
    "tensor_bytes": [8, 4, 4, 6, 2],
    "base": [0],
    "ops": [
        {"name": "f", "inp": [0], "out": [1], "ws": 3},
        {"name": "g", "inp": [1], "out": [2], "inplace": [[2, 1]]},
        {"name": "h", "inp": [2], "out": [3]},
        {"name": "k", "inp": [3, 0], "out": [4]},
    ],
    "keep": [4],
}
EVENTS = [["run", 0, []], ["run", 1, [2]], ["run", 2, []], ["free", 2], ["run", 3, []], ["free", 3]]


def test_a_chain_of_takes_is_one_rectangle() -> None:
    found = rectangles(GRAPH, EVENTS)
    assert found.lower.tolist() == [0, 0, 2, 4]
    assert found.upper.tolist() == [3, 1, 5, 6]
    assert found.size.tolist() == [4, 3, 6, 2]
    assert found.owners == (((0, 1), (1, 2)), (), ((2, 3),), ((4, 4),))


def test_of_several_permits_for_an_output_the_first_counts() -> None:
    """As for the planner and the replayer: an event names the output only."""
    graph = {
        "tensor_bytes": [8, 8, 8],
        "base": [],
        "ops": [
            {"inp": [], "out": [0]},
            {"inp": [], "out": [1]},
            {"inp": [0, 1], "out": [2], "inplace": [[2, 0], [2, 1]]},
        ],
    }
    events = [["run", 0, []], ["run", 1, []], ["run", 2, [2]], ["free", 1]]
    placed = place_events(graph, events)
    assert placed.height == 16
    assert placed.offsets[2, 2] == placed.offsets[0, 0]


def test_a_schedule_is_placed_within_its_live_bytes() -> None:
    placed = place_events(GRAPH, EVENTS)
    assert placed.height == placed.lower_bound == 10
    assert placed.optimal
    assert placed.offsets[1, 2] == placed.offsets[0, 1]
    assert placed.live.tolist() == [7, 4, 10, 6, 8, 2]
    assert set(placed.workspaces) == {0}
    assert all(top >= live for top, live in zip(placed.tops, placed.live, strict=True))


def test_windows_say_when_the_budget_is_exceeded_and_by_how_much() -> None:
    placed = place_events(GRAPH, EVENTS, budget=8)
    lost = int((placed.tops - placed.live)[:3].max())
    assert placed.windows(9) == (Window(0, 3, over=1, lost=lost),)
    assert placed.windows(10) == ()


def test_an_output_over_a_base_tensor_needs_no_room() -> None:
    graph = {
        "tensor_bytes": [8, 8, 1], "base": [0], "keep": [1],
        "ops": [{"inp": [0], "out": [1], "inplace": [[1, 0]]}, {"inp": [1], "out": [2]}],
    }  # fmt: skip
    events = [["run", 0, [1]], ["run", 1, []], ["free", 2]]
    assert rectangles(graph, events).in_base == ((0, 1),)
    assert place_events(graph, events).height == 1


def test_offsets_are_aligned_when_asked() -> None:
    placed = place_events(GRAPH, EVENTS, alignment=64)
    assert all(offset % 64 == 0 for offset in placed.offsets.values())
    assert placed.height == 128


def program_order(graph: dict) -> list[list]:
    """Each operator once, in place where permitted, tensors freed after their last use."""
    last = {t: k for k, op in enumerate(graph["ops"]) for t in (*op["inp"], *op["out"])}
    events: list[list] = []
    for k, op in enumerate(graph["ops"]):
        kept = set(graph["keep"]) | set(graph["base"])
        pairs: dict[int, int] = {}
        for o, i in op.get("inplace", ()):
            if last[i] == k and i not in kept and o not in pairs and i not in pairs.values():
                pairs[o] = i
        events.append(["run", k, list(pairs)])
        for t in dict.fromkeys((*op["inp"], *op["out"])):
            if last[t] == k and t not in kept and t not in pairs.values():
                events.append(["free", t])
    return events


def test_schedules_of_the_benchmark_graphs_fit_their_live_bytes() -> None:
    file = data_files.REAL / "memory" / "tiny_exact_pareto.json"
    if not file.exists():
        pytest.skip("MB_TEST_DATA does not point to a folder with memory")
    document = json.loads(file.read_text())
    graphs = document if isinstance(document, list) else document["graphs"]
    assert graphs
    for graph in graphs:
        placed = place_events(graph, program_order(graph))
        assert placed.lower_bound <= placed.height
        assert placed.optimal
