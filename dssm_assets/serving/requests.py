"""One request's features as the rows that the user tower reads, made by the code that made the training rows.

Belongs here: which inputs a request may give, the encoded and bucketized row of one user, the order of a given history.
Does not belong here: what a feature computes (`core/features`), what an index means to a tower (`core/models`), running
the tower (`user_tower.py`).

What is given decides: an input that a request lacks is missing, exactly as in a table. A context feature none of whose
inputs is given is missing altogether, as in the vectors that were computed ahead; a context that is given makes the
vector of this very request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.bags import Bags
from dssm_assets.core.errors import Fault, InputError, SchemaError
from dssm_assets.core.features import requests
from dssm_assets.core.features.expressions import SEQUENCE, Kind
from dssm_assets.core.features.generator import FeatureGenerator, input_columns
from dssm_assets.core.features.spec import Feature
from dssm_assets.core.models.history_pooling import HistoryReader, has_ages
from dssm_assets.core.models.tower_input import SideReader, TowerInput
from dssm_assets.core.models.tower_spec import Side, TowerFeature, TowerSpec
from dssm_assets.core.samples.embedding_index import IndexedFeatures
from dssm_assets.core.statistics.bucketizer import Bucketizer

_ONE_ROW: Final = np.zeros(1, np.int64)


@dataclass(frozen=True)
class Given:
    """What a request says about a user.

    Attributes:
        features: value by input name, `{"age": "25-34"}` for `user:age`.
        history: the user's past as lists of equal lengths, the oldest first: item_ids, event_times_ms, and whatever
            else the sequences of fg.json read. Its names win over those of `features` for the sequences.
    """

    features: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[str, Any] = field(default_factory=dict)


NOTHING: Final = Given()


class RequestRows:
    """Makes the user tower's input of one request."""

    def __init__(self, generator: FeatureGenerator, bucketizer: Bucketizer, spec: TowerSpec) -> None:
        self._generator, self._spec = generator, spec
        own = spec.of(Side.USER, Side.CONTEXT)
        self._readable = own
        self._own = _indexed(bucketizer, own)
        self._past = _indexed(bucketizer, spec.sequences)
        self._has_history = bool(spec.sequences)
        sides = [generator.spec.features_of_side(side) for side in ("user", "context")]
        inputs = [name for features in sides for feature in features for name in feature.inputs]
        sequences = generator.spec.sequence_features if self._has_history else ()
        inputs += [name for feature in sequences for name in _sequence_inputs(feature)]
        self.inputs: tuple[str, ...] = tuple(dict.fromkeys(inputs))

    def of(self, given: Given) -> tuple[TowerInput, tuple[str, ...]]:
        """Returns the tower's input of one row, and the names in the request that no feature reads.

        Raises:
            InputError: naming every input that cannot be used, or if nothing that is given is an input.
        """
        known = {*self.inputs, col.EVENT_TIMES_MS} if self._has_history else set(self.inputs)
        names = [*given.features, *given.history]
        ignored = tuple(dict.fromkeys(name for name in names if name not in known))
        if len(ignored) == len(dict.fromkeys(names)):
            expected = f"at least one of: {', '.join(self.inputs)}"
            got = ", ".join(map(str, ignored)) or "nothing"
            raise InputError(Fault("request, features", expected, got, "name the inputs as fg.json does, without their side"))
        faults: list[Fault] = []
        rows = TowerInput(np.zeros((1, 0), np.int64))
        try:
            rows = self._own_row(given.features)
        except SchemaError as error:
            faults += error.faults
        if self._has_history:
            try:
                bags, is_empty = self._history({**given.features, **given.history})
                rows = replace(rows, bags=rows.bags + bags, is_empty_history=is_empty)
            except InputError as error:
                faults += error.faults
        if faults:
            raise InputError(faults)
        return rows, ignored

    def _own_row(self, request: Mapping[str, Any]) -> TowerInput:
        user, context = (self._generator.spec.features_of_side(side) for side in ("user", "context"))
        is_given = {feature.name: any(name in request for name in feature.inputs) for feature in context}
        sides = {"user": user, "context": context if any(is_given.values()) else ()}
        table = requests.request_table(
            request, _columns([feature for part in sides.values() for feature in part], list(request))
        )
        columns: dict[str, Any] = {}
        for side, features in sides.items():
            encoded = self._generator.encode(table, side) if features else pa.table({})
            columns |= dict(zip(encoded.column_names, encoded.columns, strict=True))
        for feature in context:
            columns |= {} if is_given[feature.name] else _missing(feature)
        indices = self._own.to_indices(pa.table(columns), "request")
        return SideReader(pa.table(indices), "request", self._readable).read(_ONE_ROW)

    def _history(self, request: Mapping[str, Any]) -> tuple[tuple[Bags, ...], Any]:
        features = self._generator.spec.sequence_features
        times = request.get(col.EVENT_TIMES_MS)
        filled = _filled(request, features)
        encoded = self._generator.encode(
            requests.request_table(filled, _columns(features, list(filled))), SEQUENCE, is_whole=True
        )
        flat = {name: ragged.flatten(ragged.combine_chunks(encoded.column(name)))[0] for name in self._past.names}
        length = _common_length({name: len(values) for name, values in flat.items()}, times)
        moments = self._moments(times, length)
        order = pa.array(np.argsort(moments, kind="stable"))
        columns = {name: values.take(order) for name, values in flat.items()}
        table = {col.EVENT_TIME_MS: pa.array(np.sort(moments)), **self._past.to_indices(pa.table(columns), "request, history")}
        reader = HistoryReader(pa.table(table), self._spec)
        return reader.read(_ONE_ROW, np.array([length], np.int64))

    def _moments(self, times: Any, length: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        where = f"request, input {col.EVENT_TIMES_MS}"
        if times is None:
            aged = [view.pooling.half_life_days for view in self._spec.history_views if has_ages(view.pooling)]
            if length and aged:
                half_life = f"{aged[0]:g} days"
                expected = f"the moment of each item, since older ones count half per {half_life}"
                raise InputError(Fault(where, expected, "nothing", "give unix milliseconds, the oldest first"))
            return np.zeros(length, np.int64)
        try:
            return np.array(pa.array(times, pa.int64()).to_numpy(zero_copy_only=True), np.int64)
        except (pa.ArrowException, TypeError, OverflowError, ValueError) as error:
            raise InputError(Fault(where, "a list of unix milliseconds", repr(times)[:80], "give integers")) from error


def _indexed(bucketizer: Bucketizer, features: Sequence[TowerFeature]) -> IndexedFeatures:
    weighted = frozenset(feature.name for feature in features if feature.is_weighted)
    return IndexedFeatures(bucketizer.bucketize, [feature.name for feature in features], weighted)


def _columns(features: Sequence[Feature], given: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for feature in features for name in input_columns(feature, given)))


def _sequence_inputs(feature: Feature) -> list[str]:
    assert feature.sequence is not None
    name = feature.sequence.sequence_name
    return [form for plain in feature.inputs for form in (plain, f"{name}__{plain}")]


def _filled(request: Mapping[str, Any], features: Sequence[Feature]) -> dict[str, Any]:
    """Returns the request with an attribute of the past that is not given missing for each of the past items."""
    names = list(request)
    delimiters: dict[str, str] = {}
    for feature in features:
        if feature.sequence is not None and feature.sub_feature is not None:
            for expression in feature.sub_feature.sequence_inputs:
                delimiters[feature.sequence.column(expression, names)] = feature.sequence.sequence_delim
    given = [_elements(request[name], delimiter) for name, delimiter in delimiters.items() if request.get(name) is not None]
    length = next((count for count in given if count is not None), None)
    if length is None:
        return dict(request)
    return {**request, **{name: [None] * length for name in delimiters if request.get(name) is None}}


def _elements(value: Any, delimiter: str) -> int | None:
    """Returns how many past items a list or a text holds, None for what is neither."""
    if isinstance(value, str):
        return len(value.split(delimiter)) if value else 0
    return len(value) if isinstance(value, list | tuple) else None


def _missing(feature: Feature) -> dict[str, pa.Array]:
    """Returns the encoded columns of a feature without a value."""
    one = pa.float32() if feature.kind is Kind.NUMERIC else pa.int64()
    columns = {feature.name: pa.nulls(1, pa.list_(one) if feature.depth else one)}
    return columns | ({} if feature.weights_name is None else {feature.weights_name: pa.nulls(1, pa.list_(pa.float32()))})


def _common_length(lengths: Mapping[str, int], times: Any) -> int:
    """Returns how many past items there are.

    Raises:
        InputError: if two lists of the history have different lengths.
    """
    counted = {**lengths, col.EVENT_TIMES_MS: len(times)} if isinstance(times, list | tuple) else lengths
    if len(set(counted.values())) > 1:
        got = ", ".join(f"{name} {count}" for name, count in counted.items())
        raise InputError(Fault("request, history", "lists of equal lengths", got, "give one value per past item in each list"))
    return next(iter(counted.values()), 0)
