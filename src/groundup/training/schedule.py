"""The learning-rate schedule: warm-up, stable, decay; cosine; the inverse square root of the original transformer."""

from __future__ import annotations

import math

from groundup.recipe import ScheduleTable


def lr_factor(step: int, steps: int, table: ScheduleTable) -> float:
    """The share of the peak learning rate at update ``step`` (from 0) of ``steps``.

    wsd: rises in a line over the warm-up, holds 1, and falls in a line to ``final_lr_fraction`` over the cool-down
    (WSD, Hu et al. 2024, arXiv 2404.06395, section 4; a linear decay to near zero is the best of the shapes tried in
    Hägele et al. 2024, arXiv 2405.18392).

    cosine: the same with a fall along half a cosine, by default over all steps after the warm-up (Loshchilov and Hutter
    2017, arXiv 1608.03983, eq. 5, one cycle).

    inverse_sqrt: min(n / w, sqrt(w / n)) for the n-th update, counted from 1, of w that warm up, which is eq. 3 of
    Vaswani et al. 2017 (arXiv 1706.03762, section 5.3) over its peak; times the fall of the cool-down (Zhai et al.
    2021, arXiv 2106.04560, section 3.5). A warm-up of no step counts as one.
    """
    warmup = round(table.warmup_fraction * steps)
    cooldown = round(table.cooldown_fraction * steps)
    falling = 1.0
    if cooldown and step >= steps - cooldown:
        left = (steps - step) / cooldown
        if table.kind == "cosine":
            left = (1 - math.cos(math.pi * left)) / 2
        falling = table.final_lr_fraction + (1 - table.final_lr_fraction) * left
    if table.kind == "inverse_sqrt":
        number, warmup = step + 1, max(1, warmup)
        return min(number / warmup, math.sqrt(warmup / number)) * falling
    rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return min(rising, falling)
