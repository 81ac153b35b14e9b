"""match_feature: the values that a map of maps, one input, has for the outer and inner keys of two other inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import IntArray, Mask
from dssm_assets.core.features import column_values
from dssm_assets.core.features.expressions import ExpressionText, Kind, parse_expression
from dssm_assets.core.features.maps import NestedMaps, nested_maps
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR
from dssm_assets.core.features.operators.hit_values import HitOperator

WILDCARD: Final = "ALL"


_Keys = tuple[str | None, str | None]
"""Outer and inner key, None for any."""


def _check_key(text: str) -> str:
    if text != WILDCARD:
        parse_expression(text)
    return text


KeyText = Annotated[str, AfterValidator(_check_key)]
"""An expression, or "ALL" for every key."""


class MatchFeature(HitOperator):
    """The combined number of the hits of a row, or the texts of their values.

    `maps.nested_maps` defines how a map of maps is read. Every inner entry with two requested keys is a hit, so an
    entry that the map has twice, or that is requested twice, hits twice. Hits are in the order of pkey, then skey, then
    position in the map. An entry without a value is ignored, and so is an entry without a number where numbers are
    combined.

    A key that the definition gives as "ALL" matches every key of the map. Then the value "ALL" in the column of the other
    key is a wildcard as well; where both keys are columns, "ALL" is a key like any other. These are the rules of the
    reference (its match types multihit and hit).

    Attributes:
        nested_map: the input that holds a map of maps.
        pkey: the input with the requested outer keys; "ALL" or "const:ALL" matches all of them.
        skey: the input with the requested inner keys; likewise.
        separator: separates keys that come as text (default: the character 0x1d).
        show_pkey: texts are "pkey_value"; makes the feature a category (default false).
        show_skey: texts are "skey_value", with show_pkey "pkey_skey_value"; makes the feature a category (default false).
        match_type: hit or multihit, as files of the reference give it (default: not given). It follows from "ALL", and must
            agree with it.
        default_value, combiner, need_discrete, value_dim, normalizer: see `HitOperator`.
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
        return self.show_pkey or self.show_skey

    @property
    def expression_texts(self) -> Sequence[str]:
        """The map and the keys that are not wildcards."""
        return (self.nested_map, *(key for key in (self.pkey, self.skey) if not _is_wildcard(key)))

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        maps = nested_maps(inputs[0], self.where(0))
        row_count = len(inputs[0])
        if self.kind is Kind.NUMERIC:
            rows, entries = self._hits(maps, ~np.isnan(maps.inner.numbers), inputs)
            return self.values_from_numbers(rows, maps.inner.numbers[maps.inner_codes[entries]], row_count)
        has_text = pc.fill_null(pc.not_equal(maps.inner.values, ""), False).to_numpy(zero_copy_only=False)
        rows, entries = self._hits(maps, has_text, inputs)
        return self.values_from_texts(rows, self._texts(maps, entries), row_count)

    def _hits(self, maps: NestedMaps, is_usable: Mask, inputs: Sequence[pa.Array]) -> tuple[IntArray, IntArray]:
        """Returns row (ascending) and inner entry of each hit."""
        requested = iter(enumerate(inputs[1:], 1))
        pkeys, skeys = (None if _is_wildcard(key) else self._read_keys(*next(requested)) for key in (self.pkey, self.skey))
        is_multihit = pkeys is None or skeys is None
        outer, inner = (
            texts.take(pa.array(codes)).to_pylist()
            for texts, codes in ((maps.pkeys, maps.pkey_codes), (maps.inner.keys, maps.inner_codes))
        )
        usable, bounds = is_usable[maps.inner_codes].tolist(), maps.offsets.tolist()
        rows, hits = list[int](), list[int]()
        for row, number in enumerate(maps.map_of_row.tolist()):
            index: dict[_Keys, list[int]] = {}
            for entry in range(bounds[number], bounds[number + 1]):
                if usable[entry]:
                    pkey, skey = outer[entry], inner[entry]
                    for keys in ((pkey, skey), (None, skey), (pkey, None), (None, None))[: 4 if is_multihit else 1]:
                        index.setdefault(keys, []).append(entry)
            for pkey in [None] if pkeys is None else pkeys[row]:
                for skey in [None] if skeys is None else skeys[row]:
                    wanted = [None if is_multihit and key == WILDCARD else key for key in (pkey, skey)]
                    hits += index.get((wanted[0], wanted[1]), ())
            rows += [row] * (len(hits) - len(rows))
        return np.array(rows, np.int64), np.array(hits, np.int64)

    def _read_keys(self, position: int, array: pa.Array) -> list[list[str]]:
        texts, offsets = column_values.multi_text_values(array, self.separator, self.where(position))
        keys: list[list[str]] = ragged.build_lists(texts.cast(pa.string()), offsets).to_pylist()
        return keys

    def _texts(self, maps: NestedMaps, entries: IntArray) -> pa.DictionaryArray:
        """Returns the text of each hit; the text of each distinct pair of outer key and inner entry is built once."""
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
