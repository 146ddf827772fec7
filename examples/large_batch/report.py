"""The study's tables in Markdown, from the files that its parts wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from examples.large_batch import balance, equality, moments, results
from examples.large_batch.accuracy import finished
from examples.large_batch.gradients import NORMS, PARTS
from examples.large_batch.intervals import Interval, student
from examples.large_batch.pictures import title
from examples.large_batch.setting import LARGE, PHASES, SMALL, Study
from examples.large_batch.training import ARMS, SWEEP, SYNC, TWICE, Arm


def text(study: Study) -> str:
    """Tables of those parts that are there."""
    parts = {
        "gradients/late.json": _gradients, "walks/late.json": _linear_rule,
        "moments/late.json": _moments, "equality.json": _equality, "balance/late.json": _balance,
        "accuracy": _accuracy,
    }  # fmt: skip
    there = [part for path, part in parts.items() if (study.out / path).exists()]
    return "\n".join(line for part in there for line in (*part(study), ""))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def _gradients(study: Study) -> Iterator[str]:
    yield f"Gradient variance over batches of {study.batches[0]} to {study.batches[-1]}: slopes"
    yield ""

    def rows() -> Iterator[list[str]]:
        for phase in PHASES:
            for part in ("all", *PARTS):
                slopes = [results.gradient_variance(study, phase, n, part).slope for n in NORMS]
                yield [phase, part, *(f"{one.text(2)}{_hits(one, -1)}" for one in slopes)]

    yield from _table(
        ["weights", "gradient of", "running statistics", "batch's statistics"], rows()
    )
    yield ""
    for phase in PHASES:
        yield f"Noise scale, {phase}: {results.noise_scale(study, phase).text()} pictures"


def _hits(found: Interval, theory: float) -> str:
    return "" if found.holds(theory) else f" (not {theory:g})"


def _linear_rule(study: Study) -> Iterator[str]:
    yield f"{results.large(study) // SMALL} small steps over one large one"
    yield ""

    def rows() -> Iterator[list[str]]:
        for phase in PHASES:
            frozen = [results.frozen_ratio(study, phase, norms).text(2) for norms in NORMS]
            walk = results.real_walk(study, phase)
            means = (walk.distance, walk.length, walk.cosine)
            yield [phase, *frozen, walk.ratio.text(2), *(one.text(2) for one in means)]

    yield from _table(
        ["weights", "variance: frozen, running statistics", "frozen, batch's", "weights move",
         "mean: distance", "length", "cosine"], rows(),
    )  # fmt: skip


def _moments(study: Study) -> Iterator[str]:
    for phase in PHASES:
        found = moments.errors(study, phase)
        for kind in ("mean", "var"):
            slopes = [Interval(**one["slopes"][kind]) for one in found.values()]
            within = sum(one.holds(-0.5) for one in slopes)
            steepest, flattest = min(s.value for s in slopes), max(s.value for s in slopes)
            yield (
                f"Error of the {kind}, {phase}: slopes {steepest:.2f} to {flattest:.2f}, "
                f"-1/2 within the interval of {within} of {len(slopes)} norms"
            )
    yield ""

    def rows() -> Iterator[list[str]]:
        for name, one in moments.errors(study, "late").items():
            slopes = [Interval(**one["slopes"][kind]) for kind in ("mean", "var")]
            independent = 1 / one["mean"][0]["value"] ** 2
            at_small = study.batches.index(SMALL)
            yield [
                name.removeprefix("backbone.body."), str(one["pixels"]), f"{independent:.1f}",
                *(f"{100 * one[kind][at]['value']:.0f} %" for kind in ("mean", "var")
                  for at in (at_small, -1)),
                *(s.text(2) + _hits(s, -0.5) for s in slopes),
            ]  # fmt: skip

    big = study.batches[-1]
    yield from _table(
        ["norm (late)", "pixels", "worth, independent", f"mean, batch {SMALL}", f"batch {big}",
         f"variance, batch {SMALL}", f"batch {big}", "slope of the mean", "of the variance"],
        rows(),
    )  # fmt: skip


def _equality(study: Study) -> Iterator[str]:
    rows = [
        [name, *(f"{found[kind]:.1e}" for kind in ("loss", "gradient", "statistic"))]
        for name, found in equality.differences(study).items()
    ]
    yield from _table(["against one device", "losses", "gradients", "running statistics"], rows)


def _balance(study: Study) -> Iterator[str]:
    def rows() -> Iterator[list[str]]:
        for phase in PHASES:
            for part in balance.PARTS:
                found = balance.statistics(study, phase, part)
                for size in (study.batches[0], SMALL, study.batches[-1]):
                    at = study.batches.index(size)
                    figures = found.mean[at], found.spread[at], found.low[at]
                    yield [phase, part, str(size), *(f"{100 * one.value:.1f} %" for one in figures)]
                slope = found.slope.text(2) + _hits(found.slope, -0.5)
                yield [phase, part, "slope", "", slope, ""]
                yield [phase, part, "slope, shuffled", "", found.shuffled.text(2), ""]

    yield from _table(["weights", "drawn", "batch", "mean", "spread", "5 % quantile"], rows())


def _accuracy(study: Study) -> Iterator[str]:
    for rate, reference, arms in (
        (study.rate, SYNC, (*ARMS, *SWEEP)), (2 * study.rate, TWICE[0], TWICE),
    ):  # fmt: skip
        if any(finished(study, arm) for arm in arms):
            yield f"Rate {rate:g} for 16 pictures"
            yield ""
            yield from _accuracy_at(study, reference, arms)
            yield ""


def _accuracy_at(study: Study, reference: Arm, arms: Sequence[Arm]) -> Iterator[str]:
    def rows() -> Iterator[list[str]]:
        for arm in arms:
            runs = finished(study, arm)
            if not runs:
                continue
            converged = sum(f["converged"] for f in runs)
            cells = [title(arm), f"{converged} of {len(runs)}"]
            for figure in ("AP", "precise_AP"):
                values = list(results.accuracies(study, arm, figure).values())
                apart = results.difference(study, arm, reference, figure)
                cells.append(student(values).text(3) if values else "")
                cells.append("" if arm == reference else _verdict(apart))
            yield cells

    against = f"minus batch {LARGE} sync"
    yield from _table(
        ["way", "converged", "AP", against, "AP, precise statistics", against], rows()
    )


def _verdict(found: Interval | None) -> str:
    if found is None:
        return ""
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]" + (
        ", within noise" if found.holds(0) else ""
    )
