"""Users with several vectors: which of them an item meets.

Belongs here: the choice in training. Does not belong here: where the vectors come from (`two_tower`), the search
(`retrieval/interests`).

Letters: B rows, K interests, D vector width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def chosen_interests(interests: Tensor, items: Tensor) -> Tensor:
    """Returns of each row's vectors [B, K, D] the one whose product with the row's item [B, D] is largest [B, D].

    Label-aware attention of MIND (Li et al. 2019, section 3.4) in the limit of an infinite power, which its section 4.3
    finds best: an item is learned by the interest that finds it in a search, where the best of a user's vectors counts. A
    finite power would mix vectors into one that no search asks with, and means nothing for cosines below 1, whose powers
    vanish. Among equals the first is taken. No gradient goes through the choice.
    """
    with torch.no_grad():
        best = (interests * items[:, None]).sum(2).argmax(1)
    return interests[torch.arange(len(interests), device=interests.device), best]
