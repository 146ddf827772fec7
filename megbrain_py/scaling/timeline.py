"""A plan's instructions on a clock: what collectives add to a step, and what hides behind work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megbrain_py.ops.collective.collective import Collective
from megbrain_py.plan import Instruction, Plan
from megbrain_py.scaling.network import Cluster, Seconds


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step. compute: of all other instructions. blocking: in collectives that the
    ranks wait for at once. exposed: in those that overlap, beyond the work that hides them.
    hidden: of them, behind that work."""

    seconds: float
    compute: float
    blocking: float
    exposed: float
    hidden: float


def step_time(plan: Plan, seconds: Sequence[float], cluster: Cluster) -> StepTime:
    """seconds: of each instruction that is no collective, on a device of the cluster.

    Overlapping collectives run one after the other, beside the instructions. All ranks are equally
    fast and start together: waiting for stragglers is not in the model.
    """
    clock = channel = compute = blocking = exposed = overlapped = 0.0
    ends: dict[int, float] = {}
    for index, step in enumerate(plan.instructions):
        if step.waits_for in ends:
            late = max(0.0, ends[step.waits_for] - clock)
            clock, exposed = clock + late, exposed + late
        elif not isinstance(step.op, Collective):
            clock, compute = clock + seconds[index], compute + seconds[index]
        else:
            cost = _cost(plan, step, step.op, cluster)
            if step.op.asynchronous:
                clock, exposed = clock + cost.busy, exposed + cost.busy
                channel = ends[index] = max(clock, channel) + cost.free
                overlapped += cost.total
            else:
                clock, blocking = clock + cost.total, blocking + cost.total
    return StepTime(clock, compute, blocking, exposed, overlapped - exposed)


def _cost(plan: Plan, step: Instruction, op: Collective, cluster: Cluster) -> Seconds:
    nbytes = op.message_bytes([plan.slots[s].type for s in step.inputs])
    return cluster.seconds(op.pattern, nbytes, op.colors.count(op.colors[0]))
