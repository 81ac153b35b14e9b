"""A fit as a picklable value for another process: paths of memory-mapped files, configuration sections, path of the saved state."""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import StepPlan, Training
from dssm_assets.core.file_names import ModelFile
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.statistics.bucketizer import CarriedRows
from dssm_assets.core.training.compute import SINGLE_PROCESS, Ranks
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.fit_report import UNSTEADY, EpochScore, FitResult, Progress
from dssm_assets.core.training.loop import FitContext, fit
from dssm_assets.core.training.model_format import mapped_model, model_chunks
from dssm_assets.core.training.resume import Checkpoints, WarmStart
from dssm_assets.installed_extras import load_extra
from dssm_assets.storage.local_files import map_arrow, write_atomic


@dataclass(frozen=True)
class WarmFiles:
    """An earlier model: the name of its partition, the path of its weights (`model`), the path of `rows` from
    `save_carried_rows`, and its `towers` as JSON.
    """

    name: str
    model: str
    towers: str
    rows: str


@dataclass(frozen=True)
class FitJob:
    """A fit described by texts and paths alone.

    Attributes:
        tables: argument of `TrainData` -> path of its Arrow file.
        towers: a `TowerSpec` as JSON.
        model, training: sections of the configuration.
        key: digest of configuration and inputs.
        state: path of the fit's saved state.
        plan: the planned steps. None: they are planned from the training section.
        plugins: modules that register names used in the model section.
    """

    tables: dict[str, str]
    towers: str
    model: dict[str, Any]
    training: dict[str, Any]
    seed: int
    ks: tuple[int, ...]
    key: str
    state: str
    plan: StepPlan | None = None
    warm_start: WarmFiles | None = None
    plugins: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> FitJob:
        return TypeAdapter(cls).validate_json(text)


@dataclass(frozen=True)
class FitOutcome:
    """The files of a model's partition, and the report. Times in the report differ from run to run."""

    files: dict[str, Path]
    report: dict[str, Any]


def run_job(
    job: FitJob,
    progress: Callable[[Progress], None],
    now: Callable[[], float],
    out: Path,
    ranks: Ranks = SINGLE_PROCESS,
    after_epoch: Callable[[Sequence[EpochScore]], None] = lambda scores: None,
) -> FitOutcome | None:
    """Runs the fit and returns its output. Every process but the first returns None. The saved state remains.

    Args:
        progress, now, after_epoch: as in `FitContext`.
        out: folder for the files.
    """
    data = map_train_data(job.tables, TowerSpec.model_validate_json(job.towers))
    model, training = Model.model_validate(job.model), Training.model_validate(job.training)
    context = FitContext(
        progress,
        after_epoch,
        now,
        job.ks,
        job.plan,
        warm_start=None if job.warm_start is None else _read_warm_start(job.warm_start),
        checkpoints=_checkpoints(job, training, now, ranks),
        ranks=ranks,
    )
    result = fit(data, model=model, training=training, seed=job.seed, context=context)
    files: dict[str, Path] = {}
    for name, chunks in _model_files(result):
        if not ranks.is_first:
            deque(chunks, maxlen=0)  # sharded tables are gathered by all processes, and written by the first
        else:
            files[name] = out / name
            write_atomic(files[name], chunks)
    return FitOutcome(files, result.report) if ranks.is_first else None


def map_train_data(tables: Mapping[str, str], spec: TowerSpec) -> TrainData:
    """Returns memory-mapped training data. `tables` maps each argument of `TrainData` to the path of its Arrow file."""
    return TrainData(spec, **{name: map_arrow(path) for name, path in tables.items()})


def remove_state(state: Path) -> None:
    for path in (state, *state.parent.glob(f"{state.name}.*-of-*")):
        path.unlink(missing_ok=True)


def save_carried_rows(path: Path, rows: dict[str, CarriedRows]) -> None:
    """Writes an npz with an array `rows/<embedding>` per embedding: the carried rows' numbers today and in the earlier model."""
    arrays: dict[str, Any] = {f"rows/{name}": np.stack([found.today, found.earlier]) for name, found in rows.items()}
    np.savez(path, **arrays)


def map_model(path: Path, spec: TowerSpec) -> TwoTower:
    """Maps a weights file and returns towers with views of it as tables. Raises the errors of `mapped_model`."""
    # torch needs writable memory; writes to a copy-on-write map never reach the file.
    return mapped_model(np.memmap(path, np.uint8, "c"), spec)


def _checkpoints(job: FitJob, training: Training, now: Callable[[], float], ranks: Ranks) -> Checkpoints:
    if training.checkpoint_minutes is None:
        return Checkpoints()
    path = Path(job.state)
    if training.shard_tables and ranks.count > 1:
        sharded = load_extra("several_processes", "sharded_state").ShardedState(path, ranks)
        state, write, all_ranks = sharded.read(), sharded.write, ranks
    else:
        content = path.read_bytes() if path.exists() else b""
        state = content if ranks.is_same(float(zlib.crc32(content))) and content else None
        write, all_ranks = partial(write_atomic, path) if ranks.is_first else None, SINGLE_PROCESS
    return Checkpoints(job.key, state, write, minutes=training.checkpoint_minutes, now=now, all_ranks=all_ranks)


def _read_warm_start(files: WarmFiles) -> WarmStart:
    towers = map_model(Path(files.model), TowerSpec.model_validate_json(files.towers))
    with np.load(files.rows, allow_pickle=False) as arrays:
        rows = {name.removeprefix("rows/"): CarriedRows(*arrays[name]) for name in arrays.files}
    return WarmStart(files.name, towers, rows)


def _model_files(result: FitResult) -> Iterator[tuple[str, Iterable[bytes]]]:
    """Yields name and content of each file. Equal data, configuration and seed give equal bytes, also after a resume.

    Read each content to its end before the next file: all weights come from the same towers.
    """
    yield ModelFile.WEIGHTS, model_chunks(result.two_tower)
    if result.search_weights:
        result.two_tower.load_state_dict(result.search_weights)
        yield ModelFile.SEARCH_WEIGHTS, model_chunks(result.two_tower)
    steady = {key: value for key, value in result.report.items() if key not in UNSTEADY}
    losses, search_losses = (
        [round(float(loss), 6) for loss in curve] for curve in (result.loss_by_step, result.search_loss_by_step)
    )
    yield ModelFile.TOWERS, [result.two_tower.spec.to_json().encode()]
    yield ModelFile.LOSSES, [json.dumps(losses).encode()]
    yield ModelFile.REPORT, [json.dumps(steady, indent=1, sort_keys=True).encode()]
    if result.scores:
        validation = {"scores": [asdict(score) for score in result.scores], "loss_by_step": search_losses}
        yield ModelFile.VALIDATION, [json.dumps(validation).encode()]
    if result.prior is not None:
        yield ModelFile.PRIOR, [result.prior.model_dump_json().encode()]
    if result.group_codes is not None:
        yield ModelFile.GROUP_CODES, [result.group_codes.to_bytes()]
