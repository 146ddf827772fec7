"""Train a small network with an operator from outside the tree, built by `megbrain build-op`."""

from pathlib import Path

import numpy as np

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import nn, optim

clipping = mb.load_library(Path(__file__).parent / "soft_clip")


class SoftClip(nn.Module):
    """The operator as a layer."""

    def forward(self, x: mb.Var) -> mb.Var:
        y: mb.Var = clipping.soft_clip(x, limit=2.0)
        return y


# Points of two rings, the inner one in class 1.
rng = np.random.default_rng(0)
ring = np.arange(256) % 2
radius = np.where(ring == 1, 1.0, 2.0) + 0.1 * rng.standard_normal(256)
angle = rng.uniform(0, 2 * np.pi, 256)
points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)

x, label = mb.placeholder("x", (256, 2)), mb.placeholder("label", (256,), "int64")
net = nn.Sequential(nn.Linear(2, 32), SoftClip(), nn.Linear(32, 2))
logits = net(x)
loss = F.cross_entropy(logits, label)
updates = optim.SGD(net.parameters()).updates(loss, mb.placeholder("lr", ()))
step = mb.compile({"loss": loss, "logits": logits}, updates=updates)
for _ in range(300):
    found = step(x=points, label=ring, lr=0.5)
right = np.mean(found["logits"].argmax(1) == ring)
print(f"loss {found['loss']:.4f}, {right:.1%} of the points in the right ring")
