"""Does `megbrain scale` predict what can be measured here: steps of 2 and 4 logical devices?

python benchmarks/scale.py [--model resnet50] [--batch 4] [--size 224] [--devices 1,2,4] [--steps 5]

All devices share this machine's processors, which the model is told; instructions cost what
they cost alone with all processors (costs.py), collectives what two ranks were measured to take.
"""

from __future__ import annotations

import argparse

import numpy as np

from megbrain_py import distributed, engine
from megbrain_py.bench.pairs import seconds
from megbrain_py.scaling.measure import local_link
from megbrain_py.scaling.network import NETWORKS, Cluster
from megbrain_py.scaling.predict import predict
from megbrain_py.scaling.steps import STEPS


def measured(model: str, batch: int, size: int, devices: int, steps: int) -> float:
    """Seconds of a step of so many logical devices, the median."""

    def program() -> float:
        made = STEPS[model](batch, size)
        step = made.compile()
        times = []
        for _ in range(steps + 1):
            distributed.barrier()
            times.append(seconds(lambda: step(**made.feeds)))
        return float(np.median(times[1:]))

    return distributed.run(program, devices)[0]


def main() -> None:
    """Print predicted and measured seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="resnet50", choices=list(STEPS))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--devices", default="1,2,4")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    model, batch, size = options.model, options.batch, options.size
    link = local_link()
    print(f"{engine.num_threads()} threads; link of two ranks: {1e6 * link.latency:.1f} us, "
          f"{link.bandwidth / 1e9:.1f} GB/s")  # fmt: skip
    for devices in map(int, options.devices.split(",")):
        cluster = Cluster(NETWORKS["10gbe"], link, devices, slowdown=float(devices))
        build = lambda: STEPS[model](batch, size)  # noqa: E731
        (found,) = predict(build, batch, [devices], cluster)
        took = measured(model, batch, size, devices, options.steps)
        print(
            f"{model}, {devices} devices of {batch} images: predicted {found.step.seconds:.3f} s, "
            f"measured {took:.3f} s, ratio {found.step.seconds / took:.3f}"
        )


if __name__ == "__main__":
    main()
