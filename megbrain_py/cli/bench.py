"""`megbrain bench`: times training steps, operators and the loader (docs/profiling.md)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

_RESNET = {"batch": 16, "size": 224}
_DETECTOR = {"batch": 2, "size": 512, "boxes": 8}
_ROIS = {"rois": 512, "channels": 256, "side": 128}
_WORKLOADS: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "resnet50": ("training step of ResNet-50", _RESNET),
    "resnet1001": ("training step of ResNet-1001 for CIFAR-10", {"batch": 32, "size": 32}),
    "detector": ("training step of Faster R-CNN R50-FPN", _DETECTOR),
    "detect": ("Faster R-CNN R50-FPN on one picture", {"size": 512}),
    "roi_align": ("RoI Align, forward and backward", _ROIS),
    "prroi": ("Precise RoI Pooling, forward and backward, against RoI Align", _ROIS),
    "nms": ("non-maximum suppression of random boxes", {"boxes": 12000}),
}  # fmt: skip


def add_bench(commands: Any) -> None:
    """The command and what it takes."""
    parser = commands.add_parser("bench", help="time training steps, operators, the loader")
    benches = parser.add_subparsers(dest="bench", required=True, metavar="what")
    for name, (help, options) in _WORKLOADS.items():
        one = benches.add_parser(name, help=f"{help}, beside torch where it is installed")
        _add_sizes(one, options)
        one.add_argument("--pairs", type=int, default=15, help="turns of both sides")
        one.add_argument("--threads", type=int, help="of both sides; default: their own choice")
        one.add_argument("--memory", action="store_true", help="memory of a step instead of time")
        one.add_argument("--tuned", action="store_true", help="torch with its best known settings")
        one.add_argument("--compile", action="store_true", help="torch.compile (resnet50)")
        one.add_argument("--peer-python", metavar="PYTHON", help="an interpreter that has torch")
    ops = benches.add_parser("ops", help="operators on sizes that matter, beside the roof")
    ops.add_argument("name", nargs="*", default=["all"], metavar="NAME", help="default: all")
    conv = benches.add_parser("conv", help="3x3 convolutions: the direct kernel and Winograd's")
    conv.add_argument("--pairs", type=int, default=15, help="turns of both sides")
    benches.add_parser("roof", help="measure what arithmetic and memory give at most")
    loader = benches.add_parser("loader", help="share of the loader in a detector's step")
    _add_sizes(loader, _DETECTOR)
    loader.add_argument("--pairs", type=int, default=15)
    loader.add_argument("--preset", default="r50_fpn", help=argparse.SUPPRESS)


def _add_sizes(parser: argparse.ArgumentParser, options: Mapping[str, int]) -> None:
    for name, default in options.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")


def bench(arguments: argparse.Namespace) -> int:
    """Run the benchmark that was named."""
    if arguments.bench == "ops":
        from megbrain_py.bench.ops import bench_ops
        from megbrain_py.cli.test_op import rooms_named

        bench_ops(rooms_named(arguments.name))
        return 0
    if arguments.bench == "conv":
        from megbrain_py.bench.conv import bench_conv

        bench_conv(arguments.pairs)
        return 0
    if arguments.bench == "roof":
        from megbrain_py.instruments.roof import renew

        print(renew())
        return 0
    if arguments.bench == "loader":
        from megbrain_py.bench.loader import loader_share

        found = loader_share(
            arguments.batch, arguments.size, arguments.boxes,
            count=arguments.pairs, preset=arguments.preset,
        )  # fmt: skip
        print(f"a step with the loader {found.ours:.4g} s, without {found.theirs:.4g} s")
        print(
            f"the loader costs {100 * (found.ratio - 1):.1f} % of a step "
            f"[{100 * (found.low - 1):.1f}, {100 * (found.high - 1):.1f}]"
        )
        return 0
    from megbrain_py.bench import compare

    options = {name: getattr(arguments, name) for name in _WORKLOADS[arguments.bench][1]}
    request = compare.Request(
        arguments.bench, options, arguments.pairs, arguments.tuned, arguments.compile,
        arguments.peer_python, arguments.threads,
    )  # fmt: skip
    compare.memory(request) if arguments.memory else compare.speed(request)
    return 0
