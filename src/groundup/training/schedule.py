"""The learning-rate schedule: warm-up, stable, decay."""

from __future__ import annotations

from groundup.recipe import ScheduleTable


def lr_factor(step: int, steps: int, table: ScheduleTable) -> float:
    """The share of the peak learning rate at update ``step`` (from 0) of ``steps``.

    Rises in a line over the warm-up, holds 1, and falls in a line to ``final_lr_fraction`` over the cool-down
    (WSD, Hu et al. 2024, arXiv 2404.06395, section 4; a linear decay to near zero is the best of the shapes tried in
    Hägele et al. 2024, arXiv 2405.18392).
    """
    warmup = round(table.warmup_fraction * steps)
    cooldown = round(table.cooldown_fraction * steps)
    rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if cooldown and step >= steps - cooldown:
        left = (steps - step) / cooldown
        falling = table.final_lr_fraction + (1 - table.final_lr_fraction) * left
        return min(rising, falling)
    return rising
