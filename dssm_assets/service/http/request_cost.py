"""The work of requests: how many items batches ask for, and how many requests are computed at once.

A list costs its items, and the conditions of its filter: each is compared with every item of the bundle, unless the request before had
the same filter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from dssm_assets.core.errors import InputError
from dssm_assets.core.retrieval.item_filter import count_conditions
from dssm_assets.service.engine.recall_engine import DEFAULT_K, MAX_K, UserRequest

COMPUTED_TOGETHER: Final = 100
"""Requests that are computed at once, at most: FAISS needs memory for all of them."""
ITEMS_TOGETHER: Final = COMPUTED_TOGETHER * DEFAULT_K
"""Items that they ask for, at most, unless it is one request."""
COMPARED_TOGETHER: Final = 10_000_000
"""Comparisons of an item with a condition that they need, at most, unless it is one request: about .1 s."""


def count_items(requests: Sequence[UserRequest | InputError]) -> int:
    """Returns the number of items that a batch asks for; each column of `fields` counts as much again."""
    return sum(_count_items(one) for one in requests if isinstance(one, UserRequest))


def split_by_cost(requests: Sequence[UserRequest], item_count: int) -> Iterator[Sequence[UserRequest]]:
    """Yields requests that are computed at once, of all in their order; together they take about .1 s at most, unless it is one.

    Args:
        item_count: items of the bundle.
    """
    start, items, compared, before = 0, 0, 0, ""
    for place, request in enumerate(requests):
        more_items, filters = _count_items(request), repr(request.options.filters)  # 1 and true are equal, their texts are not
        more_compared = 0 if filters == before else item_count * _count_conditions(request.options.filters)
        before = filters
        is_full = place - start >= COMPUTED_TOGETHER or items + more_items > ITEMS_TOGETHER
        if place > start and (is_full or compared + more_compared > COMPARED_TOGETHER):
            yield requests[start:place]
            start, items, compared = place, 0, 0
        items, compared = items + more_items, compared + more_compared
    if start < len(requests):
        yield requests[start:]


def _count_items(request: UserRequest) -> int:
    options = request.options
    return min(max(options.k, 0), MAX_K) * (1 + len(set(options.fields)))


def _count_conditions(filters: Any) -> int:
    """Returns the number of conditions of a filter, 0 of one that will be refused."""
    try:
        return count_conditions(filters)
    except InputError:
        return 0
