"""match_feature: what a nested map holds for an outer and an inner key that two other inputs name.

How the map reads is defined in `nested_maps.py`. An entry without a value, and for numbers one whose value is no
number, is as good as absent. Every entry whose keys are asked for is a hit: an entry that stands in the map twice, or
is asked for twice, hits twice.

A key that the definition writes as "ALL" matches every key of the map. Then the values "ALL" that the column of the
other key holds do so too; where both keys are columns, "ALL" is a key like any other. Both are the reference's rules
(its match types multihit and hit).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.features import column_values
from dssm_assets.core.features.expressions import ExpressionText, Kind, parse_expression
from dssm_assets.core.features.maps import NestedMaps, nested_maps
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR
from dssm_assets.core.features.operators.hit_values import HitOperator

WILDCARD: Final = "ALL"


def _checked(text: str) -> str:
    if text != WILDCARD:
        parse_expression(text)
    return text


KeyText = Annotated[str, AfterValidator(_checked)]
"""An expression, or "ALL" for every key."""


@dataclass(frozen=True)
class _Asked:
    """Asked keys, by row.

    Attributes:
        rows: row of each.
        names: which entries' name it asks for; the name of no entry if the map has none of it.
        is_wild: whether it is "ALL".
    """

    rows: Any
    names: Any
    is_wild: Any


@dataclass(frozen=True)
class _Hits:
    """Rows, ascending, and the entries of their hits."""

    rows: Any
    entries: Any


class MatchFeature(HitOperator):
    """The combined number of a row's hits, or the texts of their values: by row, by pkey, by skey, by place in the map.

    Attributes:
        nested_map: the input that holds a map of maps.
        pkey: the input that names one outer key or several; "ALL" or "const:ALL": every one.
        skey: the same of inner keys.
        separator: what stands between keys that come as text.
        show_pkey: the text is "pkey_value"; makes it a category.
        show_skey: the text is "skey_value", with show_pkey "pkey_skey_value"; makes it a category.
        match_type: hit or multihit, which files of the reference also say; it follows from "ALL" and must agree.
    """

    feature_type: Literal["match_feature"] = "match_feature"
    nested_map: ExpressionText
    pkey: KeyText
    skey: KeyText
    separator: str = Field(default=MULTI_SEPARATOR, min_length=1)
    show_pkey: bool = False
    show_skey: bool = False
    match_type: Literal["hit", "multihit"] | None = None

    @model_validator(mode="after")
    def _match_type_agrees(self) -> MatchFeature:
        follows = "multihit" if _is_wildcard(self.pkey) or _is_wildcard(self.skey) else "hit"
        if self.match_type not in (None, follows):
            raise ValueError(f"match_type {self.match_type} contradicts the keys, which make it {follows}")
        return self

    @property
    def shows_keys(self) -> bool:
        """True if show_pkey or show_skey is."""
        return self.show_pkey or self.show_skey

    @property
    def expression_texts(self) -> Sequence[str]:
        """The map, then the keys that are no wildcards."""
        return (self.nested_map, *(key for key in (self.pkey, self.skey) if not _is_wildcard(key)))

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the combined number of each row, or the texts of its hits."""
        maps = nested_maps(inputs[0], self.where(0))
        row_count = len(inputs[0])
        if self.kind is Kind.NUMERIC:
            hits = self._hits(maps, ~np.isnan(maps.inner.numbers), inputs)
            return self.number_of_hits(hits.rows, maps.inner.numbers[maps.inner_codes[hits.entries]], row_count)
        has_text = pc.fill_null(pc.not_equal(maps.inner.values, ""), False).to_numpy(zero_copy_only=False)
        hits = self._hits(maps, has_text, inputs)
        return self.texts_of_hits(hits.rows, self._texts(maps, hits.entries), row_count)

    def _hits(self, maps: NestedMaps, is_usable: Any, inputs: Sequence[pa.Array]) -> _Hits:
        pkeys_wild, skeys_wild = _is_wildcard(self.pkey), _is_wildcard(self.skey)
        is_kept = is_usable[maps.inner_codes]
        if pkeys_wild and skeys_wild:
            return _Hits(*_everything(maps, is_kept, np.arange(len(inputs[0]))))
        if pkeys_wild or skeys_wild:
            texts, codes = (maps.inner.keys, maps.inner_codes) if pkeys_wild else (maps.pkeys, maps.pkey_codes)
            names, asked = self._asked(inputs, 1, texts)
            return _hits_of_one(maps, is_kept, names[codes], asked)
        pkey_names, pkeys = self._asked(inputs, 1, maps.pkeys)
        skey_names, skeys = self._asked(inputs, 2, maps.inner.keys)
        return _hits_of_both(maps, is_kept, (pkey_names[maps.pkey_codes], skey_names[maps.inner_codes]), (pkeys, skeys))

    def _asked(self, inputs: Sequence[pa.Array], position: int, texts: pa.Array) -> tuple[Any, _Asked]:
        """Returns the names of the keys of entries, and the asked keys by these names."""
        asked, offsets = column_values.multi_text_values(inputs[position], self.separator, self.where(position))
        both = pa.concat_arrays([texts.cast(pa.string()), asked.dictionary]).dictionary_encode()
        names = column_values.codes_of(both)
        codes = column_values.codes_of(asked)
        is_wild = pc.equal(asked.dictionary, WILDCARD).to_numpy(zero_copy_only=False)[codes]
        return names[: len(texts)], _Asked(ragged.row_of_value(offsets), names[len(texts) :][codes], is_wild)

    def _texts(self, maps: NestedMaps, entries: Any) -> pa.DictionaryArray:
        """Returns the text of each hit, built once per distinct pair of outer key and inner entry."""
        inner_count = max(len(maps.inner.keys), 1)
        pairs = maps.inner_codes[entries] + (maps.pkey_codes[entries] * inner_count if self.show_pkey else 0)
        distinct, codes = np.unique(pairs, return_inverse=True)
        inner = pa.array(distinct % inner_count)
        parts = [maps.pkeys.take(pa.array(distinct // inner_count))] if self.show_pkey else []
        parts += [maps.inner.keys.take(inner)] if self.show_skey else []
        parts.append(maps.inner.values.take(inner))
        texts = pc.binary_join_element_wise(*parts, "_")
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), texts)


def _is_wildcard(key: str) -> bool:
    return key in (WILDCARD, f"const:{WILDCARD}")


def _everything(maps: NestedMaps, is_kept: Any, rows: Any) -> tuple[Any, Any]:
    """Returns every kept entry of these rows' maps: positions in `rows`, ascending, and entries."""
    of_row = maps.map_of_row[rows]
    lengths = np.diff(maps.offsets)[of_row]
    entries = ragged.ranges(maps.offsets[of_row], lengths)
    hit = is_kept[entries]
    return np.repeat(np.arange(len(rows)), lengths)[hit], entries[hit]


def _hits_of_one(maps: NestedMaps, is_kept: Any, names: Any, asked: _Asked) -> _Hits:
    """Returns the hits where one of the two keys matches everything."""
    width = _width(names, asked.names)
    kept = np.flatnonzero(is_kept & _is_member(names, asked.names, width))
    cells = ragged.row_of_value(maps.offsets)[kept] * width + names[kept]
    exact, wild = np.flatnonzero(~asked.is_wild), np.flatnonzero(asked.is_wild)
    exact_asks, places = _matches(cells, maps.map_of_row[asked.rows[exact]] * width + asked.names[exact])
    wild_asks, wild_entries = _everything(maps, is_kept, asked.rows[wild])
    asks = np.concatenate([exact[exact_asks], wild[wild_asks]])
    order = np.argsort(asks, kind="stable") if len(wild) else np.arange(len(asks))
    return _Hits(asked.rows[asks[order]], np.concatenate([kept[places], wild_entries])[order])


def _hits_of_both(maps: NestedMaps, is_kept: Any, names: tuple[Any, Any], asked: tuple[_Asked, _Asked]) -> _Hits:
    """Returns the hits where both keys are asked for by name."""
    (pkey_names, skey_names), (pkeys, skeys) = names, asked
    widths = _width(pkey_names, pkeys.names), _width(skey_names, skeys.names)
    is_asked = _is_member(pkey_names, pkeys.names, widths[0]) & _is_member(skey_names, skeys.names, widths[1])
    kept = np.flatnonzero(is_kept & is_asked)
    # Inner maps are numbered, so that a cell of (inner map, skey) fits an integer however many keys there are.
    outer_cells = ragged.row_of_value(maps.offsets)[kept] * widths[0] + pkey_names[kept]
    inner_maps, numbers = np.unique(outer_cells, return_inverse=True)
    found, inner_map = _matches(inner_maps, maps.map_of_row[pkeys.rows] * widths[0] + pkeys.names)
    rows = pkeys.rows[found]
    # Every outer key that was found asks its inner map for all inner keys of its row.
    bounds = np.searchsorted(skeys.rows, np.arange(len(maps.map_of_row) + 1))
    counts = np.diff(bounds)[rows]
    asked_skeys = skeys.names[ragged.ranges(bounds[:-1][rows], counts)]
    asks, places = _matches(numbers * widths[1] + skey_names[kept], np.repeat(inner_map, counts) * widths[1] + asked_skeys)
    return _Hits(np.repeat(rows, counts)[asks], kept[places])


def _width(names: Any, asked: Any) -> int:
    return 1 + max(int(names.max(initial=0)), int(asked.max(initial=0)))


def _is_member(names: Any, asked: Any, width: int) -> Any:
    """Tells of each entry whether anybody asks for it; most go before anything is sorted."""
    is_asked = np.zeros(width, dtype=bool)
    is_asked[asked] = True
    return is_asked[names]


def _matches(cells: Any, asked_cells: Any) -> tuple[Any, Any]:
    """Returns the positions of all pairs of an asked cell and a cell that equals it: by asked cell, then by cell."""
    order = np.argsort(cells, kind="stable")
    first = np.searchsorted(cells, asked_cells, side="left", sorter=order)
    lengths = np.searchsorted(cells, asked_cells, side="right", sorter=order) - first
    return np.repeat(np.arange(len(asked_cells)), lengths), order[ragged.ranges(first, lengths)]
