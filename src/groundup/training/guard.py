"""The guard: a step whose loss or gradient is not to be trusted leaves weights and optimizer as they were."""

from __future__ import annotations

import math
import statistics

from groundup.run import GroundupError

WINDOW = 64
READY = 32
SPIKE = 12.0
PATIENCE = 8


class Guard:
    """Skips non-finite and spiking updates, counts them, and stops a run that has gone wrong.

    A spike is a gradient norm above ``SPIKE`` times the median of the last ``WINDOW`` accepted ones, unless that is 0.
    A skipped norm does not enter the window. ``PATIENCE`` skipped updates in a row end the run with a diagnosis.
    """

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.skipped = 0
        self.in_a_row = 0

    def accepts(self, loss: float, norm: float, step: int) -> bool:
        """Whether to apply an update.

        Raises:
            GroundupError: too many updates in a row were refused.
        """
        finite = math.isfinite(loss) and math.isfinite(norm)
        spike = finite and len(self.norms) >= READY and 0 < SPIKE * statistics.median(self.norms) < norm
        if finite and not spike:
            self.norms = [*self.norms[-(WINDOW - 1) :], norm]
            self.in_a_row = 0
            return True
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row >= PATIENCE:
            usual = f"{statistics.median(self.norms):.3g}" if self.norms else "none yet"
            raise GroundupError(
                f"training has come apart: {self.in_a_row} updates in a row were refused at step {step} "
                f"(loss {loss:.4g}, gradient norm {norm:.4g}, usual norm {usual}). "
                "Lower the learning rates (optimizer.muon_lr, adamw_lr, embedding_lr) or lengthen "
                'schedule.warmup_fraction; precision = "fp32" tells whether rounding is to blame.'
            )
        return False

    def state(self) -> dict[str, list[float] | int]:
        """For the checkpoint."""
        return {"norms": self.norms, "skipped": self.skipped, "in_a_row": self.in_a_row}

    def restore(self, state: dict[str, list[float] | int]) -> None:
        """Take over what :meth:`state` gave."""
        norms, skipped, in_a_row = state["norms"], state["skipped"], state["in_a_row"]
        if not isinstance(norms, list) or isinstance(skipped, list) or isinstance(in_a_row, list):
            raise TypeError(f"not a guard's state: {state}")
        self.norms, self.skipped, self.in_a_row = list(norms), skipped, in_a_row
