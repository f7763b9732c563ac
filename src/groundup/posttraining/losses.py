"""Losses of preference learning: pure functions, tensors in and tensors out."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dpo_loss(
    policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """Direct preference optimisation, each pair's loss (Rafailov et al. 2023, arXiv 2305.18290, eq. 7).

        -log sigmoid(beta · ((log π(y_w|x) - log π_ref(y_w|x)) - (log π(y_l|x) - log π_ref(y_l|x))))

    Args:
        policy_chosen, policy_rejected, reference_chosen, reference_rejected: [...] log-probabilities of whole
            answers, summed over their tokens, the end token included, in nats.
        beta: strength of the pull to the reference, > 0.

    Returns:
        losses [...] and margins [...]: the difference of the implicit rewards, beta · (…).
    """
    margins = beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected))
    return -F.logsigmoid(margins), margins
