"""The training loop: from training data to fitted towers, with a report of how it went.

Belongs here: `fit`: its phases, the epochs of each, when a state is stored. Does not belong here: what a batch is
(`batches`), what a step does (`trainer`), how towers are scored (`validation`), the report's words (`report`), where
results are stored (the asset). The clock comes in as a function.

Without validation days there is one phase. With them the towers are first fitted to the days before and scored after
every epoch (the search); then, with `refit`, new towers are fitted to the whole window for as many epochs as were best,
under the same schedule. Nothing of the validation days is read before the choice is made, but what they are scored on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dssm_assets.core.arrays.ragged import FloatArray, IntArray, row_of_value
from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import StepPlan, Training, batches_per_epoch, planned_steps, samples_per_epoch
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.models.prior import Prior, with_one, with_prior
from dssm_assets.core.models.tower_spec import TowerSpec, spec_faults, tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.samples.sample_tables import DAY, ITEM_INDEX
from dssm_assets.core.training.batches import epoch_batches
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.distributed.ranks import ALONE, Ranks
from dssm_assets.core.training.distributed.sharded_tables import ShardedTables
from dssm_assets.core.training.distributed.shared_batches import SharedEpoch
from dssm_assets.core.training.prior_choice import Counts, choose_prior, scored_users
from dssm_assets.core.training.state import EpochScore, Record, WarmStart, state_chunks, state_of
from dssm_assets.core.training.svd_init import init_from_codes, start_faults
from dssm_assets.core.training.trainer import Place, Trainer, device_of, is_bfloat16
from dssm_assets.core.training.validation import cut_of, hit_rate, item_vectors, user_blocks


def check_fit(data: TrainData, spec: TowerSpec, model: Model, training: Training) -> None:
    """Checks that towers of this specification can be fitted to the data under these sections.

    Raises:
        ConfigError: naming everything that disagrees.
    """
    wanted = tower_spec(spec.features, model)
    faults = spec_faults(wanted, spec, "towers against the model section", "make the specification from this model section")
    faults += spec_faults(spec, data.spec, "training data", "open the data with the specification of the towers")
    if not model.in_batch and model.num_sample == 0:
        got = "in_batch off and num_sample 0"
        faults.append(Fault("model", "negatives: in_batch or num_sample", got, "switch one of them on"))
    if training.svd_init is not None:
        faults += start_faults(spec, training.svd_init)
    if model.frozen_embedding is not None and training.svd_init is None:
        expected = "training.svd_init, the codes that it holds"
        faults.append(Fault("model.frozen_embedding", expected, "none", "set it, or unset frozen_embedding"))
    if model.prior and not training.validation_days:
        got = "none: validation_days is 0"
        faults.append(Fault("model.prior", "validation days on which it is chosen", got, "set training.validation_days"))
    if training.validation_days >= data.num_days:
        got = f"{training.validation_days} of {data.num_days} days with samples"
        expected = "days before them that are trained on"
        faults.append(Fault("training.validation_days", expected, got, "lengthen the window or set it lower"))
    if faults:
        raise ConfigError(faults)


_Made = TypeVar("_Made")


class Clock:
    """Seconds spent waiting for batches and in all."""

    def __init__(self, total: int, now: Callable[[], float]) -> None:
        """Begins to count; `total` samples are to be taken."""
        self._now = now
        self._begin = now()
        self._total = total
        self._seen = 0
        self._waited = 0.0
        self.seconds = 0.0

    def waiting_for(self, produce: Callable[[], _Made]) -> _Made:
        """Returns what `produce` makes; its time counts as waiting."""
        begin = self._now()
        made = produce()
        end = self._now()
        self._waited += end - begin
        self.seconds = end - self._begin
        return made

    def after(self, samples: int) -> tuple[float, float]:
        """Returns samples per second so far and the seconds left at that rate."""
        self._seen += samples
        self.seconds = self._now() - self._begin
        rate = self.samples_per_s
        return rate, (self._total - self._seen) / rate if rate else 0.0

    @property
    def samples_per_s(self) -> float:
        """Samples per second in all."""
        return self._seen / self.seconds if self.seconds > 0 else 0.0

    @property
    def wait_frac(self) -> float:
        """Share of the time that was spent waiting for batches."""
        return self._waited / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Progress:
    """Where the training stands after a step."""

    step: int
    """Steps done in this phase, 1 .. steps."""
    steps: int
    epoch: int
    """Epoch of the step, from 0."""
    loss: float
    samples_per_s: float
    eta_s: float
    """Seconds left if no epoch is saved by stopping early."""
    phase: str = "fit"
    """search on the days before the validation days, or fit."""


def _no_bytes() -> int:
    return 0


@dataclass(frozen=True)
class FitContext:
    """What a fit is given beside its input.

    Attributes:
        ks: of the evaluation, for hit_rate@k on the validation days.
        warm_start: towers to begin with; None: new ones.
        key: names the configuration and the inputs; a state of another key is passed over.
        saved: what `save` was given by a run that was killed.
        save: stores the state of a training, given piece by piece; None: none is stored.
        stores_together: every process stores its own part, all of the same step: the first one says when.
        ranks: this process among those that share the batches.
        peak_bytes: the most memory that this process has held.
    """

    ks: Sequence[int] = (200,)
    warm_start: WarmStart | None = None
    key: str = ""
    saved: bytes | None = None
    save: Callable[[Iterable[bytes]], None] | None = None
    stores_together: bool = False
    ranks: Ranks = ALONE
    peak_bytes: Callable[[], int] = _no_bytes


@dataclass(frozen=True)
class FitResult:
    """The fitted towers and how they came to be.

    Report keys: samples_per_s, final_loss (mean over the last epoch), steps, epochs (of the towers that are kept), samples,
    seconds, embedding_norms (embedding name -> mean length of its vectors), input_wait_frac (share of the time spent
    waiting for batches), best_epoch, validation_hit_rate (by epoch), validation_hit_rate_without_prior, prior, device,
    is_bfloat16, peak_bytes, warm_start, resumed_at_step, configuration.

    Attributes:
        two_tower: with averaged weights where an average is kept.
        loss_by_step: of the phase whose towers are kept.
        report: see above.
        search_loss_by_step: of the phase before it; of the same phase where nothing was refitted; empty without one.
        scores: on the validation days, epoch by epoch.
        prior: chosen there.
    """

    two_tower: TwoTower
    loss_by_step: npt.NDArray[np.float32]
    report: dict[str, Any]
    search_loss_by_step: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    scores: tuple[EpochScore, ...] = ()
    prior: Prior | None = None


UNSTEADY = frozenset({"seconds", "samples_per_s", "input_wait_frac", "peak_bytes", "peak_bytes_of", "resumed_at_step"})
"""Keys of the report that differ from run to run."""


def fit_report(record: Record, towers: TwoTower, clock: Clock, model: Model, training: Training) -> dict[str, Any]:
    """Returns the figures of a fit that is over."""
    best = record.best
    losses = record.losses or record.search_losses
    epochs_taken = record.epoch or len(record.scores)
    return {
        "samples_per_s": clock.samples_per_s,
        "final_loss": float(np.mean(losses[-max(1, len(losses) // epochs_taken) :])),
        "steps": len(losses),
        "epochs": best.epoch if best is not None else training.epochs,
        "seconds": clock.seconds,
        "embedding_norms": embedding_norms(towers),
        "input_wait_frac": clock.wait_frac,
        "best_epoch": None if best is None else best.epoch,
        "validation_hit_rate": [score.hit_rate for score in record.scores],
        "validation_hit_rate_without_prior": [score.plain_hit_rate for score in record.scores],
        "prior": None if best is None or best.prior is None else list(best.prior),
        "resumed_at_step": record.resumed_at,
        "configuration": {"model": model.model_dump(mode="json"), "training": training.model_dump(mode="json")},
    }


def embedding_norms(two_tower: TwoTower) -> dict[str, float]:
    """Returns the mean length of each embedding's vectors, "missing" left out."""
    norms = {}
    for feature in two_tower.spec.features:
        base = two_tower.tables.bases[feature.embedding_name]
        found = two_tower.tables.mean_length(feature.embedding_dim, base + 1, base + feature.num_embeddings)
        norms[feature.embedding_name] = found
    return norms


class EpochEvaluator:
    """Scores towers on the days from one day on."""

    def __init__(self, data: TrainData, first_day: int, model: Model, ks: Sequence[int], *, is_asked: bool) -> None:
        """Reads who is scored.

        Args:
            data: the window.
            first_day: of the validation days.
            model: whether there is a prior.
            ks: of the evaluation; the towers are told apart at the largest that the corpus exceeds.
            is_asked: this process computes scores; the others hear of them.

        Raises:
            SchemaError: there is nobody to score.
        """
        self._set = data.validation_set(first_day)
        self._k = cut_of(ks, data.num_items)
        self._is_asked, self._counts = is_asked, None
        if model.prior and is_asked:
            keys = data.read_keys(data.rows_of_days(0, first_day))
            items, ages = keys[ITEM_INDEX].astype("int64"), first_day - keys[DAY].astype("int64")
            self._counts = Counts.of(items, ages, data.num_items)
        self._has_prior = model.prior

    def score(self, towers: TwoTower, epoch: int, ranks: Ranks) -> EpochScore:
        """Returns the score after an epoch; the same in all processes, each of which computes its share of the vectors."""
        items = item_vectors(towers, self._set, ranks)
        told = self._scored(towers, items, ranks) if self._is_asked else self._helped(towers, ranks)
        found = ranks.from_first(told)
        prior = (found[2], found[3], found[4]) if self._has_prior else None
        return EpochScore(epoch, found[0], found[1], prior)

    def _scored(self, towers: TwoTower, items: FloatArray, ranks: Ranks) -> list[float]:
        """Returns the hit rate, that without prior, and the prior's three numbers if there is one."""
        if self._counts is None:
            plain = hit_rate(user_blocks(towers, self._set, ranks), items, self._set, self._k)
            return [plain, plain]
        chosen = scored_users(self._set.num_users, self._counts, self._k)
        kept: list[FloatArray] = []
        plain = hit_rate(_keeping(user_blocks(towers, self._set, ranks), chosen, kept), items, self._set, self._k)
        prior = self._prior(towers, chosen, np.concatenate(kept), items)
        # A second time rather than kept: vectors of all users would not fit everywhere.
        widened = (with_one(block) for block in user_blocks(towers, self._set, ranks))
        found = hit_rate(widened, with_prior(items, self._counts.values(prior)), self._set, self._k)
        return [found, plain, prior.popularity, prior.recent, prior.half_life_days]

    def _helped(self, towers: TwoTower, ranks: Ranks) -> list[float]:
        """Computes this process's share of the vectors that the first one asks for; returns as many numbers as it."""
        for _ in range(2 if self._has_prior else 1):
            deque(user_blocks(towers, self._set, ranks), maxlen=0)
        return [0.0] * (5 if self._has_prior else 2)

    def _prior(self, towers: TwoTower, chosen: IntArray, users: FloatArray, items: FloatArray) -> Prior:
        """Returns the prior that finds most of what the chosen users took."""
        assert self._counts is not None
        truth = self._set.truth
        owner = row_of_value(truth.offsets)
        place = np.full(self._set.num_users, -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        is_asked = place[owner] >= 0
        with torch.no_grad():
            scale = float(towers.similarity_scale())
        asked = place[owner[is_asked]], truth.items[is_asked]
        return choose_prior(users, items, *asked, counts=self._counts, scale=scale, k=self._k)


def _keeping(blocks: Iterable[FloatArray], chosen: IntArray, kept: list[FloatArray]) -> Iterator[FloatArray]:
    """Yields the blocks as they come and keeps the rows that are chosen of all, ascending."""
    begin = 0
    for block in blocks:
        first, last = np.searchsorted(chosen, [begin, begin + len(block)])
        kept.append(block[chosen[first:last] - begin])
        begin += len(block)
        yield block


_BEST = "best."


def fit(
    data: TrainData,
    spec: TowerSpec,
    *,
    model: Model,
    training: Training,
    seed: int,
    progress: Callable[[Progress], None],
    now: Callable[[], float],
    around: FitContext | None = None,
    plan: StepPlan | None = None,
) -> FitResult:
    """Returns towers fitted to the data. Same data, configuration and seed give the same bytes.

    Args:
        data: the window's samples.
        spec: the towers; must be what `tower_spec` makes of the model section.
        model: loss, negatives and masks.
        training: epochs, batches, learning rates, threads.
        seed: of initial weights, order, negatives and dropout.
        progress: called after every step.
        now: seconds of a clock that never goes back; only reported numbers and the moments of storing depend on it.
        around: earlier towers, a stored state and where to store one, the other processes; None: none of these.
        plan: the configuration's warm-up and decay, spread over the steps that the samples give; None: by the training section.

    Raises:
        ConfigError: spec, data and sections disagree, there is no negative to learn from, or the device is missing.
        SchemaError: there is nobody to score on the validation days.
    """
    check_fit(data, spec, model, training)
    torch.set_num_threads(training.num_threads)
    return _Fit(data, spec, model, training, seed, progress, now, around or FitContext(), plan).run()


class _Fit:
    """One fit: its phases over one record."""

    def __init__(
        self,
        data: TrainData,
        spec: TowerSpec,
        model: Model,
        training: Training,
        seed: int,
        progress: Callable[[Progress], None],
        now: Callable[[], float],
        around: FitContext,
        plan: StepPlan | None,
    ) -> None:
        self._data, self._spec, self._model, self._training, self._seed = data, spec, model, training, seed
        self._progress, self._now, self._around, self._plan = progress, now, around, plan
        device = device_of(training.device)
        self._place = Place(device, is_bfloat16(training.precision, device), around.ranks)
        self._first_day = data.num_days - training.validation_days
        self._warm: dict[str, object] | None = None
        self._best: dict[str, Tensor] = {}
        found = None if around.saved is None else state_of(around.saved, around.key)
        self._record, self._state = found or (Record(is_search=training.validation_days > 0), {})
        if found:
            self._record.resumed_at = self._record.steps_done
        self._stored_at = now() if around.save else 0.0

    def run(self) -> FitResult:
        """Returns the fitted towers."""
        training, record = self._training, self._record
        later = self._rows(self._data.num_days) if not training.validation_days or training.refit else None
        earlier = self._rows(self._first_day) if record.is_search else None
        expected = [rows for rows in (earlier, later) if rows is not None]
        samples = sum(samples_per_epoch(len(rows), training) for rows in expected) * training.epochs
        clock = Clock(samples - self._samples_done(earlier, later), self._now)
        if earlier is not None:
            towers = self._search(earlier, clock)
            record.end_search()
        if later is not None:
            best = record.best
            trainer = self._trainer(later)
            self._epochs(trainer, later, training.epochs if best is None else best.epoch, clock)
            towers = trainer.two_tower
            if trainer.average is not None:
                trainer.average.keep()
        return self._result(towers, clock)

    def _search(self, rows: IntArray, clock: Clock) -> TwoTower:
        """Finds the number of epochs and the prior; returns the towers as they were at the best epoch."""
        record, training, ranks = self._record, self._training, self._place.ranks
        judge = EpochEvaluator(self._data, self._first_day, self._model, self._around.ks, is_asked=ranks.is_first)
        trainer = self._trainer(rows)

        def after_epoch() -> bool:
            with trainer.averaged():
                record.scores.append(judge.score(trainer.two_tower, record.epoch, ranks))
                best = record.best
                assert best is not None
                if best.epoch == record.epoch and not training.refit:
                    self._best = {name: tensor.clone() for name, tensor in trainer.two_tower.state_dict().items()}
            return record.epoch - best.epoch >= training.patience

        self._epochs(trainer, rows, training.epochs, clock, after_epoch)
        if self._best:
            trainer.two_tower.load_state_dict(self._best)
        return trainer.two_tower

    def _epochs(
        self,
        trainer: Trainer,
        rows: IntArray,
        epochs: int,
        clock: Clock,
        after_epoch: Callable[[], bool] | None = None,
    ) -> None:
        """Takes the epochs that are left of so many, until one of them is said to be the last."""
        record, training = self._record, self._training
        steps = epochs * batches_per_epoch(len(rows), training)
        ranks = self._place.ranks
        made_by = partial(SharedEpoch, ranks=ranks) if ranks.count > 1 else None
        for epoch in range(record.epoch, epochs):
            if not record.step:
                trainer.begin_epoch()
            batches = epoch_batches(
                self._data,
                rows,
                model=self._model,
                training=training,
                seed=self._seed,
                epoch=epoch,
                first=record.step,
                made_by=made_by,
            )
            while (batch := clock.waiting_for(lambda source=batches: next(source, None))) is not None:  # type: ignore[misc]
                record.losses.append(trainer.take(batch))
                record.step += 1
                rate, eta_s = clock.after(len(batch))
                phase = "search" if record.is_search else "fit"
                self._progress(Progress(len(record.losses), steps, epoch, record.losses[-1], rate, eta_s, phase))
                self._store_if_due(trainer)
            record.epoch, record.step = epoch + 1, 0
            if after_epoch is not None and after_epoch():
                return

    def _trainer(self, rows: IntArray) -> Trainer:
        """Returns a trainer at its start, or where the stored state left it."""
        initial, dropout = np.random.SeedSequence(self._seed).generate_state(2)
        towers = self._initial(torch.Generator().manual_seed(int(initial)))
        start, warm = self._training.svd_init, self._around.warm_start
        if warm is not None:
            self._warm = warm.into(towers)
        if start is not None and not self._state and (warm is None or self._spec.frozen_embedding is not None):
            init_from_codes(towers, self._data, start, self._ends())  # codes that are held are each day's own
        towers.to(self._place.device)
        plan = planned_steps(len(rows), self._training)
        if self._plan is not None:
            plan = self._plan.over(plan.num_steps)
        trainer = Trainer(towers, self._model, self._training, seed=int(dropout), plan=plan, place=self._place)
        if self._state:
            self._best = {n.removeprefix(_BEST): tensor for n, tensor in self._state.items() if n.startswith(_BEST)}
            trainer.load(self._state)
            self._state = {}
        return trainer

    def _initial(self, generator: torch.Generator) -> TwoTower:
        ranks = self._place.ranks
        if not self._training.shard_tables or ranks.count == 1:
            return TwoTower(self._spec, generator)
        return TwoTower(self._spec, generator, ShardedTables(self._spec, generator, ranks))

    def _store_if_due(self, trainer: Trainer) -> None:
        minutes, save = self._training.checkpoint_minutes, self._around.save
        if save is None or minutes is None:
            return
        is_due = self._now() - self._stored_at >= 60.0 * minutes
        if self._around.stores_together:
            (told,) = self._place.ranks.from_first([float(is_due)])
            is_due = bool(told)
        if not is_due:
            return
        best = {f"{_BEST}{name}": tensor for name, tensor in self._best.items()}
        save(state_chunks(self._record, {**trainer.state(), **best}, self._around.key))
        self._stored_at = self._now()

    def _ends(self) -> IntArray:
        """Returns where the events end, of each user, that the towers may know before they are fitted."""
        data = self._data
        return data.user_ends(data.first_time_ms(self._first_day)) if self._record.is_search else data.user_ends()

    def _rows(self, end_day: int) -> IntArray:
        return self._data.rows_of_days(0, end_day, min_history=self._model.min_history)

    def _samples_done(self, earlier: IntArray | None, later: IntArray | None) -> int:
        rows = earlier if earlier is not None else later
        if rows is None:
            return 0
        of_epochs = self._record.epoch * samples_per_epoch(len(rows), self._training)
        return of_epochs + self._record.step * self._training.batch_size

    def _result(self, towers: TwoTower, clock: Clock) -> FitResult:
        towers.cpu()
        best, record = self._record.best, self._record
        found = None
        if best is not None and best.prior is not None:
            popularity, recent, half_life = best.prior
            found = Prior(popularity=popularity, recent=recent, half_life_days=half_life)
        report = fit_report(record, towers, clock, self._model, self._training)
        report |= {"samples": self._data.num_samples, "device": self._place.device.type}
        report |= {"is_bfloat16": self._place.bfloat16, "peak_bytes": self._around.peak_bytes(), "warm_start": self._warm}
        losses = np.array(record.losses or record.search_losses, np.float32)
        return FitResult(towers, losses, report, np.array(record.search_losses, np.float32), tuple(record.scores), found)
