"""Gradient clipping by the global norm and by value, as graph."""

from __future__ import annotations

from collections.abc import Sequence

from megbrain_py import functional as F
from megbrain_py.graph import Var, constant


def global_norm(gradients: Sequence[Var]) -> Var:
    """The 2-norm of all gradients taken as one vector: a float32 scalar."""
    total: Var = constant(0.0)
    for gradient in gradients:
        total = total + F.sum(gradient * gradient)
    return F.sqrt(total)


def clip_by_global_norm(gradients: Sequence[Var], max_norm: Var | float) -> tuple[list[Var], Var]:
    """The gradients, scaled down together where their norm is above `max_norm`; and the norm.

    The factor is max_norm / (norm + 1e-6), at most 1, as torch.nn.utils.clip_grad_norm_ has it. A
    norm that is not finite makes every gradient NaN, which the trainer's guard finds.
    """
    norm = global_norm(gradients)
    factor = F.minimum(F.div(max_norm, norm + 1e-6), 1.0)
    return [gradient * factor for gradient in gradients], norm


def clip_by_value(gradients: Sequence[Var], limit: float) -> list[Var]:
    """Every element of the gradients held within -limit..limit. NaN stays NaN."""
    return [F.clip(gradient, -limit, limit) for gradient in gradients]
