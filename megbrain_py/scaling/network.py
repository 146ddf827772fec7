"""What collectives cost: the alpha-beta model of links, hosts and the network between them."""

from __future__ import annotations

from dataclasses import dataclass

from megbrain_py.ops.collective.collective import Pattern


@dataclass(frozen=True)
class Link:
    """A message of m bytes takes `latency` + m / `bandwidth` seconds: alpha + beta m.

    Collectives of n ranks that each have a link of their own, h = ceil(log2 n) rounds of messages.
    Source: Thakur, Rabenseifner, Gropp, "Optimization of collective communication operations in
    MPICH" (2005). Additions count as part of the bandwidth.
    """

    latency: float
    bandwidth: float

    def seconds(self, kind: Pattern, nbytes: float, ranks: int) -> float:
        """nbytes: that each rank gives (reduce_scatter: gives in all; broadcast: the root's)."""
        if ranks <= 1:
            return 0.0
        rounds = (ranks - 1).bit_length()
        whole = nbytes / self.bandwidth
        part = whole * (ranks - 1) / ranks
        if kind == "all_gather":  # recursive doubling
            return rounds * self.latency + whole * (ranks - 1)
        if kind == "reduce_scatter":  # recursive halving
            return rounds * self.latency + part
        small = rounds * (self.latency + whole)  # everything in each round
        if kind == "broadcast":  # scattered, then gathered in a ring
            return min(small, (rounds + ranks - 1) * self.latency + 2 * part)
        return min(small, 2 * (rounds * self.latency + part))  # halving, then doubling


@dataclass(frozen=True)
class Seconds:
    """Of one collective. busy: the processors that compute do the work, so nothing hides behind
    it; free: the network does, while other instructions may run."""

    busy: float = 0.0
    free: float = 0.0

    @property
    def total(self) -> float:
        """Of a call that blocks."""
        return self.busy + self.free


@dataclass(frozen=True)
class Cluster:
    """Hosts of `devices_per_host` devices; the first ranks fill the first host.

    network: of each host, shared by its devices. host: between the devices of one host, whose
    processors copy and add themselves. slowdown: how many times longer a device computes when all
    devices of its host do, because they share its processors.
    """

    network: Link
    host: Link
    devices_per_host: int = 1
    slowdown: float = 1.0

    def seconds(self, kind: Pattern, nbytes: float, ranks: int) -> Seconds:
        """Among `ranks` neighbouring ranks: within each host, then between one rank of each."""
        inside = min(ranks, self.devices_per_host)
        hosts = -(-ranks // self.devices_per_host)
        busy = self.host.seconds(kind, nbytes, inside)
        crossing = nbytes * inside if kind == "all_gather" else nbytes
        if kind == "all_gather" and hosts > 1:  # what came from elsewhere is handed on
            busy += self.host.seconds("broadcast", nbytes * (ranks - inside), inside)
        return Seconds(busy, self.network.seconds(kind, crossing, hosts))

    def slowed(self, ranks: int) -> float:
        """The slowdown when so many ranks are there: a host that is half full is less crowded."""
        return max(1.0, self.slowdown * min(ranks, self.devices_per_host) / self.devices_per_host)


GBIT = 1e9 / 8  # bytes per second

# Stated, not measured: latency of a small message between processes, and 90 % of the nominal rate.
NETWORKS: dict[str, Link] = {
    "10gbe": Link(30e-6, 0.9 * 10 * GBIT),
    "25gbe": Link(20e-6, 0.9 * 25 * GBIT),
    "100gbe": Link(10e-6, 0.9 * 100 * GBIT),
    "infiniband": Link(2e-6, 0.9 * 100 * GBIT),  # EDR, as MegDet's cluster may have had
}
