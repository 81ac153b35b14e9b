"""match_feature: looks up outer and inner keys in a map of maps. The map and the two kinds of keys are three inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ids import find_positions
from dssm_assets.core.arrays.ragged import IntArray, Mask, repeat_rows
from dssm_assets.core.features import column_values
from dssm_assets.core.features.expressions import ExpressionText, Kind, parse_expression
from dssm_assets.core.features.maps import NestedMaps, nested_maps
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR
from dssm_assets.core.features.operators.hit_values import HitOperator, find_hits

WILDCARD: Final = "ALL"


def _check_key(text: str) -> str:
    if text != WILDCARD:
        parse_expression(text)
    return text


KeyText = Annotated[str, AfterValidator(_check_key)]
"""An input expression, or "ALL" for every key."""


class MatchFeature(HitOperator):
    """Looks up pairs of keys in a map of maps. The values found are combined to one number, or kept as texts.

    `maps.nested_maps` reads the map. An inner entry is a hit if both of its keys are requested. A repetition in the map or
    in the request hits again. Hits are ordered by pkey, then skey, then position in the map. An entry without a value is
    ignored. If numbers are combined, an entry without a number is ignored too.

    A key defined as "ALL" matches every key of the map. Then a value "ALL" in the column of the other key is a wildcard too.
    If both keys are columns, "ALL" is an ordinary key. These are the reference's rules (match types multihit and hit).

    Attributes:
        nested_map: the input that holds a map of maps.
        pkey: the input with the requested outer keys; "ALL" or "const:ALL" matches every key.
        skey: the input with the requested inner keys; "ALL" or "const:ALL" matches every key.
        show_pkey: writes texts as "pkey_value"; makes the feature a category (default false).
        show_skey: writes texts as "skey_value", with show_pkey as "pkey_skey_value"; makes the feature a category (default false).
        match_type: hit or multihit, as in files of the reference (default: not given). It must agree with the use of "ALL".
    """

    feature_type: Literal["match_feature"] = "match_feature"
    nested_map: ExpressionText
    pkey: KeyText
    skey: KeyText
    separator: str = Field(default=MULTI_SEPARATOR, min_length=1)
    show_pkey: bool = False
    show_skey: bool = False
    match_type: Literal["hit", "multihit"] | None = None
    category_keys = ("need_discrete", "show_pkey", "show_skey")

    @model_validator(mode="after")
    def _match_type_agrees(self) -> MatchFeature:
        follows = "multihit" if _is_wildcard(self.pkey) or _is_wildcard(self.skey) else "hit"
        if self.match_type not in (None, follows):
            raise ValueError(f"match_type {self.match_type} contradicts the keys: by these it is {follows}")
        return self

    @property
    def expression_texts(self) -> Sequence[str]:
        """The map, and each key that is not a wildcard."""
        return (self.nested_map, *(key for key in (self.pkey, self.skey) if not _is_wildcard(key)))

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        maps = nested_maps(inputs[0], self.where(0))
        rows, entries = self._hits(maps, self.is_usable(maps.inner)[maps.inner_codes], inputs)
        if self.kind is Kind.NUMERIC:
            return self.values_from_numbers(rows, maps.inner.numbers[maps.inner_codes[entries]], len(inputs[0]))
        return self.values_from_texts(rows, self._texts(maps, entries), len(inputs[0]))

    def _hits(self, maps: NestedMaps, is_kept: Mask, inputs: Sequence[pa.Array]) -> tuple[IntArray, IntArray]:
        """Returns row (ascending) and inner entry of each hit. Only the entries marked in `is_kept` are searched."""
        is_any_pkey, is_any_skey = _is_wildcard(self.pkey), _is_wildcard(self.skey)
        if is_any_pkey and is_any_skey:
            return _select_all(maps, is_kept, np.arange(len(inputs[0])))
        if is_any_pkey or is_any_skey:
            texts, codes = (maps.inner.keys, maps.inner_codes) if is_any_pkey else (maps.pkeys, maps.pkey_codes)
            numbers, requested = self._requested(inputs, 1, texts)
            return _hits_by_one_key(maps, is_kept, numbers[codes], requested)
        pkey_numbers, pkeys = self._requested(inputs, 1, maps.pkeys)
        skey_numbers, skeys = self._requested(inputs, 2, maps.inner.keys)
        return _hits_by_both_keys(maps, is_kept, pkey_numbers[maps.pkey_codes], skey_numbers[maps.inner_codes], pkeys, skeys)

    def _requested(self, inputs: Sequence[pa.Array], position: int, texts: pa.Array) -> tuple[IntArray, _RequestedKeys]:
        """Numbers the requested keys. Returns the number of each text in `texts` (-1: no row requests it), and the requests."""
        keys, offsets = column_values.multi_text_values(inputs[position], self.separator, self.where(position))
        names, codes = keys.dictionary, column_values.dictionary_codes(keys)
        is_wildcard = pc.equal(names, WILDCARD).to_numpy(zero_copy_only=False)[codes]
        numbers = find_positions(names, names)[codes]
        return find_positions(texts, names), _RequestedKeys(ragged.row_of_value(offsets), numbers, is_wildcard, len(names))

    def _texts(self, maps: NestedMaps, entries: IntArray) -> pa.DictionaryArray:
        """Returns the text of each hit. Each distinct pair of outer key and inner entry is written once."""
        inner_count = max(len(maps.inner.keys), 1)
        pairs = maps.inner_codes[entries] + (maps.pkey_codes[entries] * inner_count if self.show_pkey else 0)
        distinct, codes = np.unique(pairs, return_inverse=True)
        inner = pa.array(distinct % inner_count)
        parts = [maps.pkeys.take(pa.array(distinct // inner_count))] if self.show_pkey else []
        parts += [maps.inner.keys.take(inner)] if self.show_skey else []
        parts.append(maps.inner.values.take(inner))
        texts = pc.binary_join_element_wise(*parts, "_")
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), texts)


@dataclass(frozen=True)
class _RequestedKeys:
    """The requested keys: the row of each, its number (equal keys have equal numbers), and whether it is "ALL"."""

    rows: IntArray
    numbers: IntArray
    is_wildcard: Mask
    count: int
    """One above the highest number."""


def _is_wildcard(key: str) -> bool:
    return key in (WILDCARD, f"const:{WILDCARD}")


def _select_all(maps: NestedMaps, is_kept: Mask, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Returns every kept entry of these rows' maps: the position in `rows` (ascending), and the entry."""
    of_row = maps.map_of_row[rows]
    lengths = np.diff(maps.offsets)[of_row]
    entries = ragged.ranges(maps.offsets[of_row], lengths)
    is_hit = is_kept[entries]
    return repeat_rows(lengths)[is_hit], entries[is_hit]


def _hits_by_one_key(
    maps: NestedMaps, is_kept: Mask, entry_keys: IntArray, requested: _RequestedKeys
) -> tuple[IntArray, IntArray]:
    """Returns row and entry of each hit, if one of the two keys matches everything."""
    kept = np.flatnonzero(is_kept & (entry_keys >= 0))
    cells = ragged.row_of_value(maps.offsets)[kept] * requested.count + entry_keys[kept]
    exact, wildcards = np.flatnonzero(~requested.is_wildcard), np.flatnonzero(requested.is_wildcard)
    exact_cells = maps.map_of_row[requested.rows[exact]] * requested.count + requested.numbers[exact]
    exact_requests, positions = find_hits(cells, exact_cells)
    wildcard_requests, wildcard_entries = _select_all(maps, is_kept, requested.rows[wildcards])
    requests = np.concatenate([exact[exact_requests], wildcards[wildcard_requests]])
    order = np.argsort(requests, kind="stable") if len(wildcards) else np.arange(len(requests))
    return requested.rows[requests[order]], np.concatenate([kept[positions], wildcard_entries])[order]


def _hits_by_both_keys(
    maps: NestedMaps, is_kept: Mask, entry_pkeys: IntArray, entry_skeys: IntArray, pkeys: _RequestedKeys, skeys: _RequestedKeys
) -> tuple[IntArray, IntArray]:
    """Returns row and entry of each hit, if both keys are requested by name."""
    kept = np.flatnonzero(is_kept & (entry_pkeys >= 0) & (entry_skeys >= 0))
    # Inner maps are numbered, so that a pair (inner map, skey) fits an integer, whatever the number of keys.
    outer_cells = ragged.row_of_value(maps.offsets)[kept] * pkeys.count + entry_pkeys[kept]
    inner_maps, inner_map_of_entry = np.unique(outer_cells, return_inverse=True)
    found, inner_map = find_hits(inner_maps, maps.map_of_row[pkeys.rows] * pkeys.count + pkeys.numbers)
    rows = pkeys.rows[found]
    # For each outer key found, all inner keys of its row are looked up in its inner map.
    bounds = np.searchsorted(skeys.rows, np.arange(len(maps.map_of_row) + 1))
    counts = np.diff(bounds)[rows]
    requested_skeys = skeys.numbers[ragged.ranges(bounds[:-1][rows], counts)]
    requests, positions = find_hits(
        inner_map_of_entry * skeys.count + entry_skeys[kept], np.repeat(inner_map, counts) * skeys.count + requested_skeys
    )
    return np.repeat(rows, counts)[requests], kept[positions]
