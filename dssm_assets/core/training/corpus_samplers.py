"""The samplers over one corpus, as of the end of the window or of a day before.

A search for the best epoch may not know of the days that it is scored on, and the weights of a corpus are counts of a whole
window. So weights as of an earlier day are made anew, by the law that the corpus' own follow, of what was taken before it.

Belongs here: which weights a sampler draws by. Does not belong here: the draws (`core/models/samplers`), the law of weights
(`core/samples/item_weights`).

Letters: I items.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.columns import WEIGHT
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.model_config import Model
from dssm_assets.core.models.bags import IntArray
from dssm_assets.core.models.samplers.hard import HardEdges
from dssm_assets.core.models.samplers.negative_sampler import NegativeSampler, negative_sampler
from dssm_assets.core.models.table_view import TableView
from dssm_assets.core.samples.item_weights import law_of, weights_of
from dssm_assets.core.training.sample_checks import whole


class CorpusSamplers:
    """Samplers by name and day, each made once.

    Args:
        items: weight float64, row number = item_index; with the law of the weights in its schema, if it is known.
        edges: what users were shown and did not take; None: not asked for.
        counts_before: how many samples each item has on the days before one [I].
    """

    def __init__(self, items: pa.Table, edges: HardEdges | None, counts_before: Callable[[int], IntArray]) -> None:
        self._weights = whole(TableView(items, "items", {WEIGHT: pa.float64()}), WEIGHT).astype(np.float64)
        self._law, self._edges, self._counts_before = law_of(items.schema), edges, counts_before
        self._made: dict[tuple[str, float, int | None], NegativeSampler] = {}

    def of(self, model: Model, before: int | None) -> NegativeSampler:
        """Returns the sampler that the model section names.

        Args:
            model: names it.
            before: only what was taken on the days before this one is known; None: all of the window.

        Raises:
            ConfigError: it draws hard negatives and the data were made without.
        """
        if model.has_hard_negatives and self._edges is None:
            where, remedy = "training data, hard_negatives.arrow", "make train_samples again with this model section"
            raise ConfigError(Fault(where, f"the file that sampler {model.sampler} draws from", "no such file", remedy))
        name = (str(model.sampler), model.uniform_frac, before)
        if name not in self._made:
            self._made[name] = negative_sampler(model, self._weights_before(before), self._edges)
        return self._made[name]

    def _weights_before(self, day: int | None) -> npt.NDArray[np.float64]:
        """Returns the weights as of a day; those of the table where it does not tell by what law they were made."""
        if day is None or self._law is None:
            return self._weights
        return weights_of(self._counts_before(day), self._law)
