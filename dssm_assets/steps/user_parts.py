"""Evaluated users in parts: ranges of them, a file each, by one process or several with the same bytes.

A part holds of its users alone: vectors, truth, what they took. The corpus is held by every process.

Belongs here: cutting, the model as the scorer of a part, writing the files as one partition. Does not belong here: what is
made of a part (`hit_parts.py`, `list_parts.py`), which process does what (`spread.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.model_config import Model, Similarity
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.interactions import rows_of
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.manifest import Manifest

if TYPE_CHECKING:
    from dssm_assets.core.evaluation.scorer import ModelScorer
    from dssm_assets.core.evaluation.truth import Truth

PART_USERS: Final = 16 * 2048
"""Users of a file: cut the same way however many processes there are. A whole number of the blocks in which a model is
asked, so that no user's block depends on the cut. The lists of so many users, 200 text ids each, take some 400 MiB."""


@dataclass(frozen=True)
class Scored:
    """Who is scored on a day.

    Attributes:
        truth: of the scored users.
        item_ids: the corpus.
        made_from: vectors of items, of users, ground truth.
        day_users: users of the day, of whom all or a sample is scored.
    """

    truth: Truth
    item_ids: pa.Array
    made_from: tuple[Manifest, ...]
    day_users: int

    @property
    def user_ids(self) -> pa.Array:
        """Returns the evaluated users, ascending."""
        return self.truth.user_ids

    def parts(self) -> Iterator[tuple[int, int, Truth]]:
        """Yields start, stop and truth of each range of users; without users one empty range."""
        count = self.truth.num_users
        for start in range(0, max(count, 1), PART_USERS):
            stop = min(start + PART_USERS, count)
            part = self.truth.users_from(start, stop)
            yield start, stop, replace(part, user_ids=alone(part.user_ids))


@dataclass(frozen=True)
class WrittenPart:
    """A file that has been written aside."""

    path: Path
    row_count: int
    schema: pa.Schema


class PartModel:
    """The model of a day as the scorer of one range of users after another."""

    def __init__(self, workspace: Workspace, ds: str) -> None:
        """Reads the corpus."""
        self._workspace = workspace
        self.made_from = scored_from(workspace, ds)
        self._items = workspace.tables.read(self.made_from[0])
        self._scorer: ModelScorer | None = None

    def of(self, user_ids: pa.Array) -> ModelScorer:
        """Returns the scorer of these users, who are ascending; of the others no vector is held."""
        from dssm_assets.core.evaluation.scorer import model_scorer

        users = rows_of(self._workspace, self.made_from[1], None, user_ids)
        if self._scorer is None:
            self._scorer = model_scorer(self._items, users, user_ids, _similarity(self._workspace.config.model))
            return self._scorer
        return self._scorer.for_users(users, user_ids)


def scored_from(workspace: Workspace, ds: str) -> tuple[Manifest, ...]:
    """Returns vectors of items and users, and the truth."""
    return tuple(workspace.need(name, ds) for name in ("item_vectors", "user_vectors", "ground_truth"))


def read_scored(workspace: Workspace, ds: str) -> Scored:
    """Returns who is scored on a day."""
    from dssm_assets.core.evaluation.truth import read_truth
    from dssm_assets.core.evaluation.user_sample import sampled_users

    made_from, config = scored_from(workspace, ds), workspace.config
    item_ids = workspace.tables.read(made_from[0], [col.ITEM_ID]).column(0).combine_chunks()
    of_day = workspace.tables.read(made_from[2])
    chosen = sampled_users(of_day, config.evaluation.max_users, config.seed)
    return Scored(read_truth(chosen, item_ids), item_ids, made_from, of_day.num_rows)


def write_part(workspace: Workspace, path: Path, spec: TableSpec, table: pa.Table) -> WrittenPart:
    """Writes a part's table aside."""
    row_count = workspace.tables.write_part(path, spec, table.to_batches(), table.schema)
    return WrittenPart(path, row_count, table.schema)


def publish(
    workspace: Workspace, spec: TableSpec, ds: str, parts: Sequence[WrittenPart], inputs: dict[str, str], **facts: Any
) -> Manifest:
    """Makes the files of all parts, at least one, the partition of a day."""
    staged = [(part.path, part.row_count) for part in parts]
    return workspace.tables.publish_parts(spec, ds, staged, schema=parts[0].schema, inputs=inputs, facts=facts)


def alone(column: pa.Array) -> pa.Array:
    """Returns a copy of a slice: the slice itself would take the whole array with it to another process."""
    return column.take(pa.array(range(len(column)), pa.int64()))


def _similarity(model: Model) -> Similarity:
    """Returns how stored vectors are compared: of unit length are the towers', not those that a prior or codes widened."""
    return Similarity.INNER_PRODUCT if model.prior or model.held_embedding else model.similarity
