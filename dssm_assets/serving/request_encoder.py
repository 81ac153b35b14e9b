"""The user tower's input for requests, computed by the code that computed the training rows.

An input that a request lacks is missing, as a null in a table is. A context feature without any of its inputs is missing
too, as in the stored vectors, which are computed without a context; with its inputs, the vector is one of this request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays import ragged
from dssm_assets.core.config.model import PoolingKind
from dssm_assets.core.errors import Fault, InputError, SchemaError
from dssm_assets.core.features.expressions import SEQUENCE, Kind
from dssm_assets.core.features.generator import FeatureGenerator, input_columns
from dssm_assets.core.features.requests import request_rows
from dssm_assets.core.features.spec import Feature
from dssm_assets.core.models.history_reader import HistoryReader
from dssm_assets.core.models.poolings.registry import make_pooling
from dssm_assets.core.models.tower_input import HistoryInput, SideReader, TowerInput, slice_rows
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, TowerSpec
from dssm_assets.core.samples.embedding_index import IndexedFeatures
from dssm_assets.core.statistics.bucketizer import Bucketizer


@dataclass(frozen=True)
class UserInputs:
    """The inputs that a request has for a user.

    Attributes:
        features: input name -> value, `{"age": "25-34"}` for `user:age`.
        history: input name -> list, all of one length, oldest item first: item_ids, event_times_ms, and the other inputs of
            the sequence features of fg.json. For those, a name here overrides the same name in `features`.
    """

    features: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[str, Any] = field(default_factory=dict)


NO_INPUTS: Final = UserInputs()


class RequestEncoder:
    """Computes the user tower's input for requests."""

    def __init__(self, generator: FeatureGenerator, bucketizer: Bucketizer, spec: TowerSpec) -> None:
        self._generator, self._spec = generator, spec
        own = spec.features_of(TowerSide.USER, TowerSide.CONTEXT)
        self._features = own
        self._indexed_features = _indexed(bucketizer, own)
        self._indexed_history = _indexed(bucketizer, spec.sequences)
        self._has_history = bool(spec.sequences)
        self._timed = [view.pooling for view in spec.history_views if make_pooling(view.pooling).needs_times]
        sides = [generator.spec.features_of_side(side) for side in ("user", "context")]
        inputs = [name for features in sides for feature in features for name in feature.inputs]
        sequences = generator.spec.sequence_features if self._has_history else ()
        inputs += [name for feature in sequences for name in _sequence_inputs(feature)]
        self.inputs: tuple[str, ...] = tuple(dict.fromkeys(inputs))

    def encode_each(self, inputs: Sequence[UserInputs]) -> list[tuple[TowerInput, tuple[str, ...]] | Exception]:
        """Returns the tower's input of each request, one row, and the names in it that no feature reads.

        In their place the error of a request with inputs that cannot be used, or without any input of a feature.
        Requests with the same names become rows of one table, because a table of 16 rows takes little longer than one of one row.
        """
        encoded: list[tuple[TowerInput, tuple[str, ...]] | Exception] = [InputError([])] * len(inputs)
        alike: dict[Any, list[int]] = {}
        for number, one in enumerate(inputs):
            alike.setdefault((frozenset(one.features), frozenset(one.history)), []).append(number)
        for numbers in alike.values():
            try:
                ignored = self._find_ignored(inputs[numbers[0]])
                rows = self._encode_rows([inputs[number] for number in numbers])
                for place, number in enumerate(numbers):
                    encoded[number] = slice_rows(rows, place, place + 1), ignored
            except Exception as error:
                if len(numbers) == 1:
                    encoded[numbers[0]] = error
                    continue
                for number in numbers:
                    (encoded[number],) = self.encode_each([inputs[number]])
        return encoded

    def _find_ignored(self, inputs: UserInputs) -> tuple[str, ...]:
        """Returns the names that no feature reads.

        Raises:
            InputError: none of the names is an input.
        """
        known = {*self.inputs, col.EVENT_TIMES_MS} if self._has_history else set(self.inputs)
        names = [*inputs.features, *inputs.history]
        ignored = tuple(dict.fromkeys(name for name in names if name not in known))
        if len(ignored) == len(dict.fromkeys(names)):
            expected = f"at least one of: {', '.join(self.inputs)}"
            got = ", ".join(map(str, ignored))[:200] or "nothing"
            raise InputError(
                Fault("request, features", expected, got, "use the names of fg.json without their side: age for user:age")
            )
        return ignored

    def _encode_rows(self, requests: Sequence[UserInputs]) -> TowerInput:
        """Returns a row per request; all have values for the same names."""
        faults: list[Fault] = []
        rows = TowerInput(np.zeros((len(requests), 0), np.int64))
        try:
            rows = self._encode_features([one.features for one in requests])
        except SchemaError as error:
            faults += error.faults
        if self._has_history:
            try:
                rows = self._encode_history([{**one.features, **one.history} for one in requests]).join(rows)
            except InputError as error:
                faults += error.faults
        InputError.raise_if(faults)
        return rows

    def _encode_features(self, requests: Sequence[Mapping[str, Any]]) -> TowerInput:
        user, context = (self._generator.spec.features_of_side(side) for side in ("user", "context"))
        names = list(requests[0])
        has_inputs = {feature.name: any(name in names for name in feature.inputs) for feature in context}
        sides = {"user": user, "context": context if any(has_inputs.values()) else ()}
        table = request_rows(requests, _columns([feature for part in sides.values() for feature in part], names))
        columns: dict[str, Any] = {}
        for side, features in sides.items():
            encoded = self._generator.encode(table, side) if features else pa.table({})
            columns |= dict(zip(encoded.column_names, encoded.columns, strict=True))
        for feature in context:
            columns |= {} if has_inputs[feature.name] else _missing_feature(feature, len(requests))
        indices = self._indexed_features.to_indices(pa.table(columns), "request")
        return SideReader(pa.table(indices), "request", self._features).read(np.arange(len(requests)))

    def _encode_history(self, requests: Sequence[Mapping[str, Any]]) -> HistoryInput:
        features = self._generator.spec.sequence_features
        filled = [_fill_history(request, features) for request in requests]
        table = request_rows(filled, _columns(features, list(filled[0])))
        encoded = self._generator.encode(table, SEQUENCE, is_whole=True)
        lists = {name: ragged.combine_chunks(encoded.column(name)) for name in self._indexed_history.names}
        lengths = {name: ragged.list_lengths(values).tolist() for name, values in lists.items()}
        times, starts = [], [0]
        for row, request in enumerate(requests):
            given = request.get(col.EVENT_TIMES_MS)
            length = _common_length({name: counts[row] for name, counts in lengths.items()}, given)
            times.append(self._timestamps(given, length))
            starts.append(starts[-1] + length)
        order = pa.array(
            np.concatenate([first + np.argsort(own, kind="stable") for first, own in zip(starts, times, strict=False)])
        )
        columns = {name: values.flatten().take(order) for name, values in lists.items()}
        events = {
            col.EVENT_TIME_MS: pa.array(np.concatenate([np.sort(own) for own in times])),
            **self._indexed_history.to_indices(pa.table(columns), "request, history"),
        }
        bounds = np.array(starts, np.int64)
        return HistoryReader(pa.table(events), self._spec).read(bounds[:-1], bounds[1:])

    def _timestamps(self, times: Any, length: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        where = f"request, input {col.EVENT_TIMES_MS}"
        if times is None:
            if length and self._timed:
                half_life = self._timed[0].half_life_days
                reason = "the user tower reads the time between items"
                if half_life is not None and self._timed[0].kind is not PoolingKind.SEQUENCE:
                    reason = f"an item's weight halves every {half_life:g} days"
                expected = f"the time of each item, since {reason}"
                raise InputError(Fault(where, expected, "nothing", "send unix milliseconds, oldest first"))
            return np.zeros(length, np.int64)
        try:
            if not isinstance(times, list | tuple | np.ndarray):
                raise TypeError
            return np.array(pa.array(times, pa.int64()).to_numpy(zero_copy_only=True), np.int64)
        except (pa.ArrowException, TypeError, OverflowError, ValueError) as error:
            raise InputError(Fault(where, "a list of unix milliseconds", repr(times)[:80], "send integers")) from error


def _indexed(bucketizer: Bucketizer, features: Sequence[TowerFeature]) -> IndexedFeatures:
    weighted = frozenset(feature.name for feature in features if feature.is_weighted)
    return IndexedFeatures(bucketizer.bucketize, [feature.name for feature in features], weighted)


def _columns(features: Sequence[Feature], names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for feature in features for name in input_columns(feature, names)))


def _sequence_inputs(feature: Feature) -> list[str]:
    assert feature.sequence is not None
    name = feature.sequence.sequence_name
    return [form for plain in feature.inputs for form in (plain, f"{name}__{plain}")]


def _fill_history(request: Mapping[str, Any], features: Sequence[Feature]) -> dict[str, Any]:
    """Returns the request with every absent input of the history as a list of nulls, one per item of the history."""
    names = list(request)
    delimiters: dict[str, str] = {}
    for feature in features:
        if feature.sequence is not None and feature.sub_feature is not None:
            for expression in feature.sub_feature.sequence_inputs:
                delimiters[feature.sequence.column(expression, names)] = feature.sequence.sequence_delim
    lengths = [
        _list_length(request[name], delimiter) for name, delimiter in delimiters.items() if request.get(name) is not None
    ]
    length = next((count for count in lengths if count is not None), None)
    if length is None:
        return dict(request)
    return {**request, **{name: [None] * length for name in delimiters if request.get(name) is None}}


def _list_length(value: Any, delimiter: str) -> int | None:
    """Returns the number of items in a list or a delimited text, None for any other value."""
    if isinstance(value, str):
        return len(value.split(delimiter)) if value else 0
    return len(value) if isinstance(value, list | tuple) else None


def _missing_feature(feature: Feature, count: int) -> dict[str, pa.Array]:
    """Returns the encoded columns of a feature without a value in any row."""
    one = pa.float32() if feature.kind is Kind.NUMERIC else pa.int64()
    columns = {feature.name: pa.nulls(count, pa.list_(one) if feature.depth else one)}
    return columns | ({} if feature.weights_name is None else {feature.weights_name: pa.nulls(count, pa.list_(pa.float32()))})


def _common_length(lengths: Mapping[str, int], times: Any) -> int:
    """Returns the number of items in the history.

    Raises:
        InputError: two lists of the history have different lengths.
    """
    all_lengths = {**lengths, col.EVENT_TIMES_MS: len(times)} if isinstance(times, list | tuple | np.ndarray) else lengths
    if len(set(all_lengths.values())) > 1:
        got = ", ".join(f"{name} {count}" for name, count in all_lengths.items())
        raise InputError(Fault("request, history", "lists of equal lengths", got, "send one value per item in each list"))
    return next(iter(all_lengths.values()), 0)
