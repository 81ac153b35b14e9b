"""Strategies for the body of POST /recall: JSON of the right form with values of any kind, and JSON of any form."""

from __future__ import annotations

from hypothesis import strategies as st

INPUTS = ("city", "tags", "page", "item_ids", "event_times_ms", "brand", "category", "age", "history__brand", "other")

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**63) - 2, 2**64),
    st.floats(),
    st.text(),
    st.text(st.characters(), max_size=5),
    st.sampled_from(["n0", "u", "i3", "p:1", "p:nan", "p:1e999;q", "", "1704067200000", "1" * 400]),
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=12
)
names = st.sampled_from(INPUTS) | st.text(max_size=5)
inputs = st.dictionaries(names, values, max_size=4)
length = st.shared(st.integers(0, 3), key="length")
lists = length.flatmap(lambda size: st.dictionaries(names, st.lists(leaves, min_size=size, max_size=size), max_size=4))
times = length.flatmap(lambda size: st.lists(st.integers(-(2**63) - 1, 2**63), min_size=size, max_size=size))
histories = inputs | lists | st.builds(lambda other, when: {**other, "event_times_ms": when}, lists, times)
requests = st.fixed_dictionaries(
    {},
    optional={
        "user_id": values,
        "features": inputs | values,
        "history": histories | values,
        "events": histories | values,
        "fields": st.lists(leaves, max_size=2) | values,
        "k": st.integers(-1, 30) | leaves,
        "exclude": st.lists(leaves, max_size=5) | values,
        "unknown": st.sampled_from(["popular", "404"]) | values,
        "channels": st.sampled_from(["merged", "vectors"]) | values,
    },
)
bodies = requests | values
