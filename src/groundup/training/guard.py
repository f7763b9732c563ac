"""The guard: a step whose loss or gradient is not to be trusted leaves weights and optimizer as they were."""

from __future__ import annotations

import math
import statistics

from groundup.run import GroundupError

WINDOW = 64
READY = 32
SPIKE = 12.0
PATIENCE = 8
LOUD = 10.0
"""Standard deviations above the median from which a loss is a spike."""
LOUD_SHARE = 0.2
"""A loss that is above the median by less than this share of it is none."""
NEW_LEVEL = 4
"""Losses refused one after another, their gradients as usual, are the new usual: the next one is believed."""
DEVIATION = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""

State = dict[str, list[float] | int]


class Guard:
    """Skips non-finite and spiking updates, counts them, and stops a run that has gone wrong.

    A gradient spikes where its norm is above ``SPIKE`` times the median of the last ``WINDOW`` accepted ones, unless
    that is 0. A loss spikes where it is above the median of the last accepted ones by ``LOUD`` of their standard
    deviations (by the median absolute deviation, which one outlier does not move) and by ``LOUD_SHARE`` of the median.
    What is skipped enters neither window. ``PATIENCE`` skipped updates in a row end the run with a diagnosis. Data
    that change their kind raise the loss for good and not the gradient: after ``NEW_LEVEL`` refusals for the loss
    alone, the window of losses begins anew.
    """

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.losses: list[float] = []
        self.skipped = 0
        self.in_a_row = 0
        self.loud = 0
        self.reason = ""

    def accepts(self, loss: float, norm: float, step: int) -> bool:
        """Whether to apply an update; ``reason`` says why not.

        Raises:
            GroundupError: too many updates in a row were refused.
        """
        self.reason = self._objection(loss, norm)
        if self.reason == "loss spike":
            self.loud += 1
            if self.loud > NEW_LEVEL:
                self.losses, self.reason = [], ""
        if not self.reason:
            self.norms = [*self.norms[-(WINDOW - 1) :], norm]
            self.losses = [*self.losses[-(WINDOW - 1) :], loss]
            self.in_a_row = self.loud = 0
            return True
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row >= PATIENCE:
            usual = f"{statistics.median(self.norms):.3g}" if self.norms else "none yet"
            raise GroundupError(
                f"training has come apart: {self.in_a_row} updates in a row were refused at step {step + 1} "
                f"({self.reason}: loss {loss:.4g}, gradient norm {norm:.4g}, usual norm {usual}). "
                "Lower the learning rates (optimizer.muon_lr, adamw_lr, embedding_lr) or lengthen "
                'schedule.warmup_fraction; precision = "fp32" tells whether rounding is to blame.'
            )
        return False

    def _objection(self, loss: float, norm: float) -> str:
        """What speaks against an update; empty where nothing does."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return "not finite"
        if len(self.norms) >= READY and 0 < SPIKE * statistics.median(self.norms) < norm:
            return "gradient spike"
        if len(self.losses) >= READY and 0 < _margin(self.losses) < loss - statistics.median(self.losses):
            return "loss spike"
        return ""

    def state(self) -> State:
        """For the checkpoint."""
        counts = {"skipped": self.skipped, "in_a_row": self.in_a_row, "loud": self.loud}
        return {"norms": self.norms, "losses": self.losses, **counts}

    def restore(self, state: State) -> None:
        """Take over what :meth:`state` gave. One that an earlier version saved knows nothing of losses."""
        known = {"losses": [], "loud": 0, **state}
        for name, kind in {"norms": list, "losses": list, "skipped": int, "in_a_row": int, "loud": int}.items():
            if not isinstance(known.get(name), kind):
                raise TypeError(f"not a guard's state: {state}")
            setattr(self, name, kind(known[name]))


def _margin(losses: list[float]) -> float:
    """How far above the median of its window a loss may be."""
    usual = statistics.median(losses)
    deviation = DEVIATION * statistics.median(abs(loss - usual) for loss in losses)
    return max(LOUD * deviation, LOUD_SHARE * abs(usual))
