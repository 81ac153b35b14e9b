"""The vectors of the validation days, by the towers of the fit's search, which were not fitted to these days."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import cast_ids, find_positions
from dssm_assets.core.errors import SchemaError
from dssm_assets.core.evaluation.scorer import ModelScorer
from dssm_assets.core.file_names import ModelFile, TrainSamplesFile
from dssm_assets.core.models.prior import Prior, append_one, append_prior
from dssm_assets.core.training.fit_options import prior_search
from dssm_assets.core.training.validation import item_vectors, user_blocks, validation_set
from dssm_assets.steps.dssm_model import open_train_data
from dssm_assets.steps.fit_job import map_model
from dssm_assets.steps.scoring import stored_similarity
from dssm_assets.steps.vectors import find_model
from dssm_assets.steps.workspace import Workspace, day_before
from dssm_assets.storage.manifest import Manifest


class ValidationVectors:
    """The validation days of the model of a day, and its vectors on them.

    Attributes:
        days: the validation days, the latest first; none if the model was fitted without.
        built_from: the model and the samples.
    """

    def __init__(self, workspace: Workspace, ds: str) -> None:
        """Opens the model of a day.

        Raises:
            PartitionMissingError: the model or what it was built from is not stored.
            ProvenanceError: what it was built from was written again since.
        """
        model, settings = find_model(workspace, ds)
        samples = workspace.need("train_samples", ds)
        self.built_from: tuple[Manifest, ...] = (model, samples)
        training, self._model, self.days = settings.training, settings.model, list[str]()
        if not training.validation_days:
            return
        weights = ModelFile.SEARCH_WEIGHTS if training.refit else ModelFile.WEIGHTS
        if all(file.name != weights for file in model.files):
            workspace.log(
                f"dssm_model has no {weights}: an earlier version fitted it. Fit it again, so that the vectors have a weight of their own"
            )
            return
        self._towers = map_model(workspace.artifacts.local_path(model, weights), settings.spec)
        self._data = open_train_data(workspace, samples, settings.spec)
        self._user_ids = workspace.artifacts.map_table(samples, TrainSamplesFile.USERS).column(col.USER_ID).combine_chunks()
        self._prior = Prior.from_json(workspace.artifacts.read_bytes(model, ModelFile.PRIOR)) if settings.spec.prior else None
        # Day d of the samples is the d-th of the model's window.
        self._day_of = {day_before(settings.first_day, -day): day for day in range(self._data.num_days)}
        self.days = sorted(self._day_of, reverse=True)[: training.validation_days]

    def scorer(self, day: str, user_ids: pa.Array, item_ids: pa.Array) -> ModelScorer | None:
        """Returns the vectors as a scorer, as of the beginning of a validation day; None if no user has one.

        Args:
            day: one of `days`.
            user_ids: the users, distinct; those without an event before the day have no vector.
        """
        try:
            found = validation_set(self._data, self._day_of[day])
        except SchemaError:
            return None  # nobody who comes on the day or later has a history
        known = cast_ids(self._user_ids.take(pa.array(found.user_index)), user_ids.type, "train_samples, users.arrow")
        places = find_positions(user_ids, known)
        with_vector = np.flatnonzero(places >= 0)
        if not len(with_vector):
            return None
        users = np.concatenate(list(user_blocks(self._towers, found, places[with_vector])))
        items = item_vectors(self._towers, found)
        search = prior_search(self._model, self._data, self._day_of[day])
        if search is not None and self._prior is not None:
            users, items = append_one(users), append_prior(items, search.item_values(self._prior))
        rows = np.full(len(user_ids), -1, np.int64)
        rows[with_vector] = np.arange(len(with_vector))
        similarity = stored_similarity(self._model)
        return ModelScorer(rows, users.reshape(len(users), -1), items, similarity, user_ids, item_ids)
