"""`megbrain scale`: a model of training on many devices (docs/distributed.md)."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from megbrain_py.errors import DataError

_DEVICES = "1,2,4,8,16,32,64,128,256"
_NETWORKS = ("10gbe", "25gbe", "100gbe", "infiniband")


def add_scale(commands: Any) -> None:
    """Add the command to the program's parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "scale", help="a model of step time, efficiency and hours of an epoch on many devices"
    )
    parser.add_argument("model", nargs="?", default="r50_fpn", metavar="MODEL",
                        help="resnet50 or a detector's preset; default: r50_fpn")  # fmt: skip
    parser.add_argument("--batch", type=_count, default=2, help="images of a device; default: 2")
    parser.add_argument(
        "--size", type=_count, help="sides of a picture; default: 512, resnet50 224"
    )
    parser.add_argument("--devices", type=_counts, default=_DEVICES, metavar="N[,N...]",
                        help=f"default: {_DEVICES}")  # fmt: skip
    parser.add_argument("--speed", type=_positive, default=1.0,
                        help="of a device, in machines like this one; default: 1")  # fmt: skip
    network = parser.add_argument_group("network, of each host")
    network.add_argument("--network", choices=_NETWORKS, default="25gbe", help="default: 25gbe")
    network.add_argument("--latency", type=_positive, metavar="US", help="instead of its, in us")
    network.add_argument(
        "--bandwidth", type=_positive, metavar="GBIT", help="instead of its, Gbit/s"
    )
    hosts = parser.add_argument_group("hosts")
    hosts.add_argument("--devices-per-host", type=_count, default=1, help="default: 1")
    hosts.add_argument("--cores", type=_count,
                       help="of a host, which its devices share; default: enough")  # fmt: skip
    hosts.add_argument("--host-latency", type=_positive, metavar="US",
                       help="within a host, in us; default: measured")  # fmt: skip
    hosts.add_argument("--host-bandwidth", type=_positive, metavar="GB",
                       help="within a host, GB/s; default: measured")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="also write assumptions and rows")
    parser.add_argument(
        "--picture", metavar="FILE.png", help="also draw them, beside the talk's hours"
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {text}")
    return value


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text}")
    return value


def scale(arguments: argparse.Namespace) -> int:
    """Print the table; write what was asked for."""
    from megbrain_py import engine
    from megbrain_py.scaling import report
    from megbrain_py.scaling.predict import predict
    from megbrain_py.scaling.steps import STEPS
    from megbrain_py.training.settings import nearest

    a = arguments
    if a.model not in STEPS:
        raise DataError(f"scale: no model {a.model}{nearest(a.model, STEPS)}")
    size = a.size or (224 if a.model == "resnet50" else 512)
    cluster = _cluster(a, engine.num_threads())
    about = (
        f"{a.model}, {a.batch} images of {size} x {size} on each device; a device is "
        f"{a.speed:g} x this machine's {engine.num_threads()} threads; "
        f"{a.devices_per_host} to a host; between hosts "
        f"{1e6 * cluster.network.latency:.3g} us and {cluster.network.bandwidth / 1e9:.3g} GB/s"
    )
    print(f"{report.MODEL}: {about}")
    found = predict(lambda: STEPS[a.model](a.batch, size), a.batch, a.devices, cluster, a.speed)
    print(report.table(found))
    if a.json:
        assumed = {"model": a.model, "size": size, "speed": a.speed, **asdict(cluster)}
        report.write_json(Path(a.json), found, assumed)
    if a.picture:
        report.draw(Path(a.picture), found, about)
    return 0


def _cluster(a: argparse.Namespace, threads: int) -> Any:
    from megbrain_py.scaling.measure import local_link
    from megbrain_py.scaling.network import GBIT, NETWORKS, Cluster, Link

    network, host = NETWORKS[a.network], Link(1e-6, 1e10)  # a lone device needs no link
    if a.latency:
        network = replace(network, latency=1e-6 * a.latency)
    if a.bandwidth:
        network = replace(network, bandwidth=a.bandwidth * GBIT)
    if a.devices_per_host > 1:
        host = host if a.host_latency and a.host_bandwidth else local_link()
        if a.host_latency:
            host = replace(host, latency=1e-6 * a.host_latency)
        if a.host_bandwidth:
            host = replace(host, bandwidth=1e9 * a.host_bandwidth)
    wanted = a.devices_per_host * threads
    return Cluster(network, host, a.devices_per_host, max(1.0, wanted / (a.cores or wanted)))
