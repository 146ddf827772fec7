"""The learning rate of every step: scaled to the batch, raised, dropped; and why, in words."""

from __future__ import annotations

from typing import Any

from megbrain_py import optim
from megbrain_py.training.config import OptimizerConfig, TrainConfig

REFERENCE = 16  # pictures for which optimizer.rate is given
_EPOCHS = 11.0

# MegDet's schedules: epochs in all, and (epoch, factor) of each drop. As recalled, unverified.
POLICIES = {
    "normal": (11.0, ((8, 0.1), (10, 0.1))),
    "long": (18.0, ((11, 0.1), (14, 0.1), (17, 0.5))),
}


def scaled_rate(config: TrainConfig) -> float:
    """The learning rate of a step of `step_images` pictures, by the linear rule.

    k steps of n pictures at rate r change the weights with variance k r^2 s^2 / n, where s^2 is
    that of a picture's gradient; one step of k n pictures at rate R with R^2 s^2 / (k n). They are
    equal for R = k r. Source: MegDet (Peng et al. 2018), section 3.2; the derivation is ours.
    """
    return config.optimizer.rate * config.step_images / REFERENCE


def total_steps(config: TrainConfig, images: int) -> int:
    """Steps of the whole training over a data set of this many pictures."""
    if config.steps:
        return config.steps
    usual, _ = POLICIES.get(config.optimizer.schedule, (_EPOCHS, ()))
    return max(1, round((config.epochs or usual) * images / config.step_images))


def drops(config: OptimizerConfig, steps: int) -> dict[int, float]:
    """Steps at which the rate is multiplied, and by what; of drops at one step the last counts."""
    if config.schedule in POLICIES:
        epochs, listed = POLICIES[config.schedule]
        shares = [(epoch / epochs, factor) for epoch, factor in listed]
    elif config.schedule == "multistep":
        shares = [(share, config.drop_factor) for share in sorted(config.drops)]
    else:
        shares = []
    return {max(1, round(share * steps)): factor for share, factor in shares}


def rising_steps(config: OptimizerConfig, steps: int) -> int:
    """Steps of the warm-up."""
    return min(config.warmup_steps, steps // 5)


def first_share(config: TrainConfig) -> float:
    """The rate of step 0 over that of a step: the small batch's, or `warmup_from`."""
    if config.optimizer.warmup_pictures:
        return min(1.0, config.optimizer.warmup_pictures / config.step_images)
    return config.optimizer.warmup_from


def learning_rates(config: TrainConfig, steps: int) -> optim.Schedule:
    """The schedule; drops and warm-up are placed in `steps` steps.

    Linear warm-up from the small batch's rate r to R is MegDet's: r + (R - r) t / T.
    """
    rate, chosen = scaled_rate(config), config.optimizer
    if chosen.schedule == "cosine":
        schedule = optim.cosine(rate, steps)
    elif chosen.schedule == "constant":
        schedule = optim.constant(rate)
    else:
        placed = drops(chosen, steps)
        schedule = optim.multi_step(rate, list(placed), list(placed.values()))
    rising = rising_steps(chosen, steps)
    if not rising:
        return schedule
    kind: Any = chosen.warmup
    return optim.warmup(schedule, rising, first_share(config), kind)


def describe(config: TrainConfig, steps: int) -> str:
    """Two lines: how the rate of a step comes about, and what happens to it."""
    chosen, rate = config.optimizer, scaled_rate(config)
    lines = [
        f"learning rate {chosen.rate:g} for {REFERENCE} pictures x {config.step_images}/16 = "
        f"{rate:g} a step (linear scaling: one large step then changes the weights with the "
        "variance of the small steps it replaces)"
    ]
    parts = []
    rising, first = rising_steps(chosen, steps), first_share(config)
    if rising and first < 1.0:
        parts.append(f"{chosen.warmup} warm-up from {rate * first:g} in {rising} steps")
    parts += [f"x {factor:g} at step {step}" for step, factor in drops(chosen, steps).items()]
    lines.append(f"schedule {chosen.schedule}: {', '.join([*parts, f'{steps} steps'])}")
    return "\n".join(lines)
