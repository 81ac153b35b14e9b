"""The training loop: from training data to fitted towers, with a report of how it went.

Belongs here: `fit`: its phases, the epochs of each, when a state is stored. Does not belong here: what a batch is
(`batches`), what a step does (`trainer`), how towers are scored (`validation`), the report's words (`report`), where
results are stored (the asset). The clock comes in as a function.

Without validation days there is one phase. With them the towers are first fitted to the days before and scored after
every epoch (the search); then, with `refit`, new towers are fitted to the whole window for as many epochs as were best,
under the same schedule. Nothing of the validation days is read before the choice is made, but what they are scored on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dssm_assets.core.model_config import Model
from dssm_assets.core.models.bags import IntArray
from dssm_assets.core.models.prior import Prior
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.batches import epoch_batches
from dssm_assets.core.training.clock import Clock
from dssm_assets.core.training.fit_checks import check_fit
from dssm_assets.core.training.fit_state import Record, state_chunks, state_of
from dssm_assets.core.training.history_start import start_at_codes
from dssm_assets.core.training.precision import device_of, is_bfloat16
from dssm_assets.core.training.report import FitResult, Progress, Surroundings, fit_report
from dssm_assets.core.training.search import Judge
from dssm_assets.core.training.sharded_tables import ShardedTables
from dssm_assets.core.training.shared_batches import SharedEpoch
from dssm_assets.core.training.train_data import TrainData
from dssm_assets.core.training.trainer import Place, Trainer
from dssm_assets.core.training_config import Training
from dssm_assets.core.training_steps import StepPlan, batches_per_epoch, planned_steps, samples_per_epoch

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
    around: Surroundings | None = None,
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
    return _Fit(data, spec, model, training, seed, progress, now, around or Surroundings(), plan).run()


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
        around: Surroundings,
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
        judge = Judge(self._data, self._first_day, self._model, self._around.ks, is_asked=ranks.is_first)
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
        start, warm = self._training.history_start, self._around.warm_start
        if warm is not None:
            self._warm = warm.into(towers)
        if start is not None and not self._state and (warm is None or self._spec.held_embedding is not None):
            start_at_codes(towers, self._data, start, self._ends())  # codes that are held are each day's own
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
