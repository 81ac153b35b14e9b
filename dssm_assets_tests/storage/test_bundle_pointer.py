"""How the pointer moves, by hand."""

from __future__ import annotations

import pytest

from dssm_assets.storage.bundle_pointer import Pointer, after_publish


def published(*bundles: str) -> Pointer:
    """Returns the pointer after publishing bundles named `<day><letter>`, the day a digit."""
    pointer = None
    for bundle in bundles:
        pointer = after_publish(pointer, bundle, bundle[0])
    assert pointer is not None
    return pointer


def test_each_publication_is_served_and_remembers_the_one_before() -> None:
    assert published("1a") == Pointer("1a", None, "1", ("1a",), ("1a",))
    assert published("1a", "2b", "2c") == Pointer("2c", "2b", "2", ("1a", "2b", "2c"), ("1a", "2b", "2c"))


def test_an_earlier_day_is_stored_and_not_served() -> None:
    assert published("1a", "3b", "2c") == Pointer("3b", "1a", "3", ("1a", "3b"), ("1a", "3b", "2c"))


def test_the_same_bundle_again_moves_to_the_end() -> None:
    assert published("1a", "1b", "1a") == Pointer("1a", "1b", "1", ("1b", "1a"), ("1b", "1a"))
    assert published("1a", "1a") == Pointer("1a", None, "1", ("1a",), ("1a",))


def test_a_rollback_goes_further_back_each_time_and_the_next_publication_knows_what_was_served() -> None:
    first = published("1a", "2b", "3c").back_to("2b", "2")
    assert first == Pointer("2b", "1a", "2", ("1a", "2b"), ("1a", "2b", "3c"))
    assert first.back_to("1a", "1") == Pointer("1a", None, "1", ("1a",), ("1a", "2b", "3c"))
    assert after_publish(first, "3d", "3") == Pointer("3d", "2b", "3", ("1a", "2b", "3d"), ("1a", "2b", "3c", "3d"))
    # What was rolled back can be served again, and then has the one before it behind it.
    assert first.back_to("3c", "3") == Pointer("3c", "2b", "3", ("1a", "2b", "3c"), ("1a", "2b", "3c"))


@pytest.mark.parametrize(("keep", "gone"), [(2, ("1a", "2b")), (3, ("1a",)), (4, ()), (9, ()), (1, ("1a", "2b"))], ids=str)
def test_the_oldest_go_first_and_never_the_served_one_or_its_previous(keep: int, gone: tuple[str, ...]) -> None:
    pointer = published("1a", "2b", "3c", "4d")
    assert pointer.surplus(keep) == gone
    left = pointer.without(gone)
    assert (left.bundle_id, left.previous) == ("4d", "3c")
    assert left.stored == left.trail == tuple(kept for kept in pointer.stored if kept not in gone)


def test_after_a_rollback_the_old_ones_that_are_served_stay() -> None:
    pointer = published("1a", "2b", "3c", "4d").back_to("2b", "2")
    assert pointer.surplus(2) == ("3c", "4d")
    assert pointer.surplus(3) == ("3c",)


def test_text_and_back() -> None:
    pointer = published("1a", "2b")
    assert Pointer.from_json(pointer.to_json()) == pointer


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"bundle_id": "x", "previous": null, "ds": "1", "trail": ["y"], "stored": []}']
)
def test_what_is_no_pointer_is_refused(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Pointer.from_json(text)
