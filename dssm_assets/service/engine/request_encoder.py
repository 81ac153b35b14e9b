"""Runs the user tower of a bundle on requests. Requests are encoded by the same code as the rows of the training.

An input that a request lacks counts as missing, like a null in a table. A context feature without any input is missing, as in the
stored vectors. A request without user features uses the user's stored features, one without history the stored history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import IntArray, combine_chunks, flatten
from dssm_assets.core.channels.channel import OwnItems
from dssm_assets.core.config.features import HashFunction
from dssm_assets.core.config.model import PoolingKind
from dssm_assets.core.errors import DssmError, Fault, InputError, SchemaError, StorageError
from dssm_assets.core.features.expressions import SEQUENCE, Expression, Kind
from dssm_assets.core.features.generator import FeatureGenerator, input_columns
from dssm_assets.core.features.operators.sequence_feature import SequenceFeature
from dssm_assets.core.features.requests import request_rows
from dssm_assets.core.features.spec import Feature
from dssm_assets.core.file_names import BundleFile
from dssm_assets.core.models.poolings import make_pooling
from dssm_assets.core.models.tower_input import HistoryReader, SideReader, TowerInput, feature_columns, select_rows
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, TowerSpec
from dssm_assets.core.samples.embedding_index import IndexedFeatures
from dssm_assets.core.statistics.bucketizer import Bucketizer
from dssm_assets.service.bundle.bundle_contents import EVENT_TIMES_MS, ITEM_ROWS, history_column
from dssm_assets.service.bundle.bundle_store import broken
from dssm_assets.service.bundle.onnx_session import open_session
from dssm_assets.service.bundle.tower_layout import OUTPUT, TowerLayout, tower_layout
from dssm_assets.service.engine.bundle_reader import Bundle
from dssm_assets.storage.local_files import read_rows

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class UserInputs:
    """The inputs that a request sends for a user.

    Attributes:
        features: input name -> value, `{"age": "25-34"}` for `user:age`.
        history: input name -> list, oldest item first: item_ids, event_times_ms, and other inputs of fg.json's sequence features.
            All lists have the same length. A name given here wins over the same name in `features`.
        events: like `history`, but added to the stored history. Without a stored history, they are the history.
    """

    features: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[str, Any] = field(default_factory=dict)
    events: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.features or self.history or self.events)


NO_INPUTS: Final = UserInputs()


class RequestUser(NamedTuple):
    """The user of a request, from `RequestUsers.look_up`.

    Attributes:
        row: the user's row in the bundle; -1 if the user is not stored.
        read_own: returns the user's items.
        features: see `UserInputs`.
        lists: the sent history, or the new events.
        replaced: `features` and `history`, if the request replaced the stored ones.
        ignored: names in the request that nothing reads.
        needs_tower: whether the vector must be computed, because the stored vector does not apply.
    """

    row: int
    read_own: Callable[[], OwnItems]
    features: Mapping[str, Any] = NO_INPUTS.features
    lists: Mapping[str, Any] = NO_INPUTS.history
    replaced: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    needs_tower: bool = False


class StoredUsers:
    """The stored inputs of a bundle's users, read from a memory-mapped file."""

    def __init__(self, bundle: Bundle, spec: TowerSpec) -> None:
        """Maps the file. Raises a StorageError if it does not match the bundle's users and tower."""
        self._table = bundle.read_arrow(BundleFile.USER_INPUTS)
        self._features = list(feature_columns(spec.features_of(TowerSide.USER)))
        self._history = [history_column(feature.name) for feature in spec.sequences]
        lacking = {*self._features, *self._history, ITEM_ROWS, EVENT_TIMES_MS} - set(self._table.column_names)
        if lacking or self._table.num_rows != len(bundle.users):
            rows = f"{self._table.num_rows} rows for {len(bundle.users)} users"
            raise broken(bundle.bundle_id, f"user_inputs.arrow has {rows}, without {', '.join(sorted(lacking)) or 'nothing'}")

    def features(self, rows: Sequence[int]) -> dict[str, pa.Array]:
        """Returns the columns of user features: embedding indices and weights [B]."""
        table = read_rows(self._table.select(self._features), rows)
        return {name: table.column(name).chunk(0) for name in self._features}

    def history(self, rows: Sequence[int]) -> tuple[IntArray, list[pa.Array], IntArray]:
        """Returns the times of all events, their embedding indices per sub-feature, and the start of each user's events [B + 1]."""
        table = read_rows(self._table.select([EVENT_TIMES_MS, *self._history]), rows)
        (times, offsets), *features = (flatten(combine_chunks(column)) for column in table.columns)
        return times.to_numpy(), [values for values, _ in features], offsets

    def item_rows(self, row: int) -> list[int]:
        """Returns the item rows of a user's latest events, in the order of `history`; -1 for items outside the bundle."""
        rows: list[int] = self._table.column(ITEM_ROWS)[row].as_py()
        return rows

    def events(self, row: int) -> set[tuple[int, int]]:
        """Returns pairs of item row and unix milliseconds for a user's latest events. Items outside the bundle are left out."""
        table = self._table.select([ITEM_ROWS, EVENT_TIMES_MS]).slice(row, 1)
        items, times = (column[0].values.to_pylist() for column in table.columns)
        return {(item, time_ms) for item, time_ms in zip(items, times, strict=True) if item >= 0}


class RequestEncoder:
    """Computes the user tower's input for requests.

    Attributes:
        inputs: names that a request may send.
        user_inputs: names of the inputs of user features.
        history_inputs: names of lists with a value per event. If `features` has such a name, user and context features get it first.
        item_names: other names for item_ids.
        has_history: whether the tower reads the history.
        stored: inputs of stored users, None if the bundle has none.
    """

    def __init__(
        self, generator: FeatureGenerator, bucketizer: Bucketizer, spec: TowerSpec, stored: StoredUsers | None = None
    ) -> None:
        self._generator, self._spec, self.stored = generator, spec, stored
        self._features = spec.features_of(TowerSide.USER, TowerSide.CONTEXT)
        self._indexed_features = _indexed(bucketizer, self._features)
        self._indexed_history = _indexed(bucketizer, spec.sequences)
        self.has_history = bool(spec.sequences)
        self._timed = [view.pooling for view in spec.history_views if make_pooling(view.pooling).needs_times]
        user, context = (
            [name for feature in generator.spec.features_of_side(side) for name in feature.inputs]
            for side in ("user", "context")
        )
        sequences = generator.spec.sequence_features if self.has_history else ()
        plain = {
            form: expression.name
            for sequence, expression in _sequence_inputs(sequences)
            for form in (f"{sequence.sequence_name}__{expression.name}", expression.name)
        }
        plain |= {col.EVENT_TIMES_MS: col.EVENT_TIMES_MS} if self.has_history else {}
        further = [name for feature in sequences for name in feature.inputs]
        self.inputs: tuple[str, ...] = tuple(dict.fromkeys([*user, *context, *further, *plain]))
        self.item_names = [form for form, name in plain.items() if name == col.ITEM_IDS != form]
        self.user_inputs, self._shared_inputs = frozenset(user), frozenset(plain) & {*user, *context}
        self.history_inputs = frozenset(plain) - self._shared_inputs

    def encode(self, users: Sequence[RequestUser]) -> Iterator[tuple[list[int], TowerInput | DssmError]]:
        """Yields positions of users, with the tower's input for them (a row each) or the error of their inputs.

        Users with the same input names are encoded together, because 16 rows take little longer than one.
        """
        alike: dict[Any, list[int]] = {}
        for number, user in enumerate(users):
            kind = frozenset(user.features), frozenset(user.lists), user.row >= 0, user.replaced
            alike.setdefault(kind, []).append(number)
        groups = list(alike.values())
        while groups:
            numbers = groups.pop()
            try:
                yield numbers, self._encode_rows([users[number] for number in numbers])
            except DssmError as error:
                if len(numbers) == 1:
                    yield numbers, error
                else:
                    groups += [[number] for number in numbers]

    def encode_without(self, user: RequestUser, sent_rows: Sequence[int], most: int) -> tuple[IntArray, TowerInput]:
        """Returns the items of a user's latest events [n], and rows of the tower's input [1 + n].

        The first row has all events. Row 1 + i lacks the events of item i.

        Args:
            sent_rows: rows of the items in `user.lists`.
            most: at most so many items, the latest.
        """
        inputs = self._encode_features([user.features], self._known_features([user]))
        if not self.has_history:
            return np.empty(0, np.int64), inputs
        known = self._known_events([user])
        table, order, _ = self._read_events([user], known)
        stored_rows = [] if known is None or self.stored is None else self.stored.item_rows(user.row)
        rows = np.array([*stored_rows, *sent_rows], np.int64)[order]
        latest = np.array(list(dict.fromkeys(rows[rows >= 0][::-1].tolist()))[:most], np.int64)
        kept = [np.arange(len(rows)), *(np.flatnonzero(rows != item) for item in latest)]
        bounds = ragged.offsets_of([len(one) for one in kept])
        history = HistoryReader(table, self._spec).read_events(np.concatenate(kept), bounds)
        return latest, select_rows(inputs, np.zeros(len(kept), np.int64)).with_history(history)

    def _encode_rows(self, users: Sequence[RequestUser]) -> TowerInput:
        """Returns a row per user. All users must send and replace the same names. Either all users are stored or none is."""
        faults: list[Fault] = []
        inputs = TowerInput(np.zeros((len(users), 0), np.int64))
        try:
            inputs = self._encode_features([user.features for user in users], self._known_features(users))
        except SchemaError as error:
            faults += error.faults
        if self.has_history:
            try:
                table, _, bounds = self._read_events(users, self._known_events(users))
                inputs = inputs.with_history(HistoryReader(table, self._spec).read(bounds[:-1], bounds[1:]))
            except InputError as error:
                faults += error.faults
        InputError.raise_if(faults)
        return inputs

    def _known_features(self, users: Sequence[RequestUser]) -> dict[str, pa.Array]:
        if self.stored is None or users[0].row < 0 or "features" in users[0].replaced:
            return {}
        return self.stored.features([user.row for user in users])

    def _known_events(self, users: Sequence[RequestUser]) -> tuple[IntArray, list[pa.Array], IntArray] | None:
        if self.stored is None or users[0].row < 0 or "history" in users[0].replaced:
            return None
        return self.stored.history([user.row for user in users])

    def _encode_features(self, requests: Sequence[Mapping[str, Any]], known: Mapping[str, pa.Array]) -> TowerInput:
        """Returns a row per request. `known`: columns of user features that are embedding indices already."""
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
        indices = {**self._indexed_features.to_indices(pa.table(columns), "request"), **known}
        return SideReader(pa.table(indices), "request", self._features).read(np.arange(len(requests)))

    def _read_events(
        self, users: Sequence[RequestUser], known: tuple[IntArray, list[pa.Array], IntArray] | None
    ) -> tuple[pa.Table, IntArray, IntArray]:
        """Merges the stored events (`known`, from `StoredUsers.history`) and the sent events of all users.

        Returns the events (user by user, oldest first), each event's position among the stored and then the sent events, and the
        start of each user's events [B + 1].
        """
        requests = [
            {**{name: user.features[name] for name in user.features if name not in self._shared_inputs}, **user.lists}
            for user in users
        ]
        features = self._generator.spec.sequence_features
        filled = [_fill_history(request, features) for request in requests]
        table = request_rows(filled, _columns(features, list(filled[0])))
        encoded = self._generator.encode(table, SEQUENCE, is_whole=True)
        lists = {name: combine_chunks(encoded.column(name)) for name in self._indexed_history.names}
        lengths = {name: ragged.list_lengths(values).tolist() for name, values in lists.items()}
        before, stored_values, stored_bounds = known or (np.empty(0, np.int64), [], np.zeros(len(requests) + 1, np.int64))
        sent_times = []
        for row, request in enumerate(requests):
            given, end = request.get(col.EVENT_TIMES_MS), stored_bounds[row + 1]
            own = self._timestamps(given, _common_length({name: counts[row] for name, counts in lengths.items()}, given))
            # Without times, sent events count as newer than all stored events.
            sent_times.append(own + before[end - 1] if given is None and end > stored_bounds[row] else own)
        rows, sent_counts = np.arange(len(requests)), [len(own) for own in sent_times]
        owner = np.concatenate([np.repeat(rows, np.diff(stored_bounds)), np.repeat(rows, sent_counts)])
        times = np.concatenate([before, *sent_times])
        order = np.lexsort((times, owner))  # for equal times, stored events come first
        columns = {name: values.flatten() for name, values in lists.items()}
        sent = self._indexed_history.to_indices(pa.table(columns), "request, history")
        if stored_values:
            sent = {name: pa.concat_arrays([old, new]) for old, (name, new) in zip(stored_values, sent.items(), strict=True)}
        events = {name: values.take(pa.array(order)) for name, values in sent.items()}
        bounds = ragged.offsets_of(np.bincount(owner, minlength=len(requests)))
        return pa.table({col.EVENT_TIME_MS: times[order], **events}), order, bounds

    def _timestamps(self, times: Any, length: int) -> IntArray:
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
            if not isinstance(times, list | tuple | np.ndarray) or any(isinstance(one, float | np.floating) for one in times):
                raise TypeError  # Arrow would cut off fractions
            return np.array(pa.array(times, pa.int64()).to_numpy(zero_copy_only=True), np.int64)
        except (pa.ArrowException, TypeError, OverflowError, ValueError) as error:
            raise InputError(Fault(where, "a list of unix milliseconds", repr(times)[:80], "send integers")) from error


class UserTower:
    """Computes user vectors from features. Safe for any number of threads."""

    def __init__(self, encoder: RequestEncoder, layout: TowerLayout, session: Any) -> None:
        self.encoder, self._layout, self._session = encoder, layout, session

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> UserTower:
        """Opens the user tower. Raises a StorageError if its files cannot be read or do not match."""
        try:
            spec = TowerSpec.model_validate(bundle.read_json(BundleFile.TOWERS)["spec"])
            function = HashFunction(bundle.manifest.get("hash_function") or HashFunction.MURMUR)
            fg = bundle.read_json(BundleFile.FG)
            generator = FeatureGenerator.from_fg_json(fg, hash_function=function, read_file=bundle.read_bytes)
            bucketizer = Bucketizer(
                bundle.read_parquet(BundleFile.FEATURE_CONFIG), bundle.read_parquet(BundleFile.FEATURE_COUNTS)
            )
            session = open_session(bundle.path(BundleFile.USER_TOWER), num_threads=1)  # one row is too little to split
        except StorageError:
            raise
        except Exception as error:  # each library has its own errors, and all mean an unusable tower
            raise broken(bundle.bundle_id, f"the user tower cannot be loaded ({error})") from error
        layout = tower_layout(spec, is_user=True)
        wrong = {model_input.name for model_input in session.get_inputs()} ^ set(layout.input_names)
        if wrong:
            problem = f"user_tower.onnx and towers.json differ in the inputs {', '.join(sorted(wrong))}"
            raise broken(bundle.bundle_id, problem)
        stored = StoredUsers(bundle, spec) if bundle.has_file(BundleFile.USER_INPUTS) else None
        return cls(RequestEncoder(generator, bucketizer, spec, stored), layout, session)

    def compute_without(self, user: RequestUser, sent_rows: Sequence[int], most: int) -> tuple[IntArray, Vector]:
        """Returns the items of a user's latest events [n], and vectors [1 + n, ...]: with all events, then without each item's events."""
        items, encoded = self.encoder.encode_without(user, sent_rows, most)
        return items, np.stack([self._session.run([OUTPUT], feed)[0][0] for feed in self._layout.feed_each(encoded)])

    def compute_vectors(self, users: Sequence[RequestUser]) -> list[Vector | DssmError]:
        """Returns each user's vector, float32 [D] ([K, D] for K interests), or an error with the unusable inputs."""
        computed: dict[int, Vector | DssmError] = {}
        for numbers, encoded in self.encoder.encode(users):
            if isinstance(encoded, DssmError):
                computed |= dict.fromkeys(numbers, encoded)
                continue
            # Computed row by row, because a matrix product rounds a row differently alone and among others.
            for number, feed in zip(numbers, self._layout.feed_each(encoded), strict=True):
                (vectors,) = self._session.run([OUTPUT], feed)
                remedy = "look for extreme values among the inputs"
                fault = Fault("request, features", "a finite vector", "NaN or infinity", remedy)
                computed[number] = vectors[0] if np.isfinite(vectors).all() else InputError(fault)
        return [computed[number] for number in range(len(users))]


def _indexed(bucketizer: Bucketizer, features: Sequence[TowerFeature]) -> IndexedFeatures:
    weighted = frozenset(feature.name for feature in features if feature.is_weighted)
    return IndexedFeatures(bucketizer.bucketize, [feature.name for feature in features], weighted)


def _columns(features: Sequence[Feature], names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for feature in features for name in input_columns(feature, names)))


def _sequence_inputs(features: Sequence[Feature]) -> Iterator[tuple[SequenceFeature, Expression]]:
    """Yields the inputs with a value per event. A request may name an input with or without its sequence. The name with the sequence wins."""
    for feature in features:
        assert feature.sequence is not None and feature.sub_feature is not None
        yield from ((feature.sequence, expression) for expression in feature.sub_feature.sequence_inputs)


def _fill_history(request: Mapping[str, Any], features: Sequence[Feature]) -> dict[str, Any]:
    """Fills missing inputs of the history with a null per item."""
    names = list(request)
    delimiters = {sequence.column(one, names): sequence.sequence_delim for sequence, one in _sequence_inputs(features)}
    lengths = [_list_length(request.get(name), delimiter) for name, delimiter in delimiters.items()]
    length = next((count for count in lengths if count is not None), None)
    if length is None:
        return dict(request)
    return {**request, **{name: [None] * length for name in delimiters if request.get(name) is None}}


def _list_length(value: Any, delimiter: str) -> int | None:
    """Counts the items of a list or a delimited text; None for any other value."""
    if isinstance(value, str):
        return len(value.split(delimiter)) if value else 0
    return len(value) if isinstance(value, list | tuple) else None


def _missing_feature(feature: Feature, count: int) -> dict[str, pa.Array]:
    one = pa.float32() if feature.kind is Kind.NUMERIC else pa.int64()
    columns = {feature.name: pa.nulls(count, pa.list_(one) if feature.depth else one)}
    return columns | ({} if feature.weights_name is None else {feature.weights_name: pa.nulls(count, pa.list_(pa.float32()))})


def _common_length(lengths: Mapping[str, int], times: Any) -> int:
    all_lengths = {**lengths, col.EVENT_TIMES_MS: len(times)} if isinstance(times, list | tuple | np.ndarray) else lengths
    if len(set(all_lengths.values())) > 1:
        got = ", ".join(f"{name} {count}" for name, count in all_lengths.items())
        raise InputError(Fault("request, history", "lists of equal lengths", got, "send one value per item in each list"))
    return next(iter(all_lengths.values()), 0)
