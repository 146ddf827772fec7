"""Layers without weights."""

from __future__ import annotations

from megbrain_py import functional as F
from megbrain_py.errors import GraphError
from megbrain_py.graph import Var, user_origin
from megbrain_py.nn.mode import current_mode
from megbrain_py.nn.module import Module


class Identity(Module):
    """x itself."""

    def forward(self, x: Var) -> Var:
        return x


class ReLU(Module):
    """max(x, 0)"""

    def forward(self, x: Var) -> Var:
        return F.relu(x)


class GELU(Module):
    """x times the normal distribution function of x."""

    def forward(self, x: Var) -> Var:
        return F.gelu(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))"""

    def forward(self, x: Var) -> Var:
        return F.sigmoid(x)


class Tanh(Module):
    """tanh(x)"""

    def forward(self, x: Var) -> Var:
        return F.tanh(x)


class Flatten(Module):
    """All axes from `start` on as one."""

    def __init__(self, start: int = 1) -> None:
        self.start = start

    def forward(self, x: Var) -> Var:
        return F.flatten(x, self.start)


class MaxPool2d(Module):
    """Maximum over windows of each channel."""

    def __init__(self, kernel: int, *, stride: int | None = None, padding: int = 0) -> None:
        self.kernel = kernel
        self.stride = kernel if stride is None else stride
        self.padding = padding

    def forward(self, x: Var) -> Var:
        return F.max_pool2d(x, self.kernel, stride=self.stride, padding=self.padding)


class Dropout(Module):
    """Zeroes a share p of the elements in training and scales the rest by 1 / (1 - p).

    Draws from the key of `train_mode(key)`.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0.0 <= p < 1.0:
            raise ValueError(f"Dropout: p must be in [0, 1), is {p}")
        self.p = p

    def forward(self, x: Var) -> Var:
        mode = current_mode()
        if mode is None or self.p == 0.0:
            return x
        if mode.key is None:
            raise GraphError(
                f"Dropout: expected a key to draw from, found none; build the graph inside "
                f"nn.train_mode(key)\n  x: {x.type}\n  at {user_origin()}"
            )
        return F.dropout(x, mode.key, self.p, salt=mode.next_salt())
