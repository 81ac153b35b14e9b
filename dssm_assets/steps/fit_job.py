"""One fit as a value that another process can read: paths of memory-mapped files, sections, where states go.

Belongs here: `FitJob`, running it in this process, the files that it leaves. Does not belong here: which partitions it is
made of (`dssm_model`), processes that share it (`fit_process`).
"""

from __future__ import annotations

import json
import resource
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import StepPlan, Training
from dssm_assets.core.file_names import ModelFile
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.statistics.bucketizer import CarriedRows
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.distributed.ranks import ALONE, Ranks
from dssm_assets.core.training.loop import UNSTEADY, FitContext, FitResult, Progress, fit
from dssm_assets.core.training.state import WarmStart, mapped_model, model_chunks
from dssm_assets.storage.local_files import write_atomic

_SLOTS = (b"a", b"b")


class FitStates:
    """The states of one fit, below one path."""

    def __init__(self, path: Path, ranks: Ranks = ALONE, *, is_dealt: bool = False) -> None:
        """Takes where the states lie.

        Args:
            path: of the state, or of the file that names its parts.
            ranks: this process among those that share the fit.
            is_dealt: every process stores a part.
        """
        self._path, self._ranks, self._is_dealt = path, ranks, is_dealt and ranks.count > 1
        self._slot: bytes | None = None

    def saved(self) -> bytes | None:
        """Returns what this process goes on from, None where there is nothing or not every process has it."""
        named = self._path.read_bytes() if self._path.exists() else b""
        found = named
        if self._is_dealt:
            part = self._part(named) if named in _SLOTS else None
            found = part.read_bytes() if part is not None and part.exists() else b""
        if not self._ranks.is_same(float(zlib.crc32(named))) or not self._ranks.is_same(float(bool(found))) or not found:
            return None
        self._slot = named if self._is_dealt else None
        return found

    def save(self, chunks: Iterable[bytes]) -> None:
        """Stores a state, given piece by piece; of dealt tables in all processes at once."""
        if not self._is_dealt:
            write_atomic(self._path, chunks)
            return
        if self._slot is None:
            if self._ranks.is_first:
                self._path.unlink(missing_ok=True)  # it may name parts that are about to be written over
            self._ranks.wait()
        slot = _SLOTS[0] if self._slot != _SLOTS[0] else _SLOTS[1]
        write_atomic(self._part(slot), chunks)
        self._ranks.wait()
        if self._ranks.is_first:
            write_atomic(self._path, [slot])
        self._slot = slot

    def forget(self) -> None:
        """Removes the state of a fit that is over."""
        self._path.unlink(missing_ok=True)
        for part in self._path.parent.glob(f"{self._path.name}.*-of-*"):
            part.unlink(missing_ok=True)

    def _part(self, slot: bytes) -> Path:
        return self._path.with_name(f"{self._path.name}.{slot.decode()}.{self._ranks.rank}-of-{self._ranks.count}")


@dataclass(frozen=True)
class WarmFiles:
    """An earlier model in files.

    Attributes:
        name: its partition.
        model: path of its weights.
        towers: its specification.
        rows: path of an npz with `today/<embedding>` and `earlier/<embedding>`.
    """

    name: str
    model: str
    towers: str
    rows: str


@dataclass(frozen=True)
class FitJob:
    """All that a fit needs, as text and paths.

    Attributes:
        tables: argument of `TrainData` -> path of its Arrow file.
        towers: the specification.
        model: the section.
        training: the section.
        seed: of everything random.
        ks: of the evaluation.
        key: digest of configuration and inputs.
        state: path at which the state of a training is kept while it runs.
        plan: the steps that the configuration planned; None: by the training section.
        warm_start: earlier towers to begin with.
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

    def to_json(self) -> str:
        """Returns the job as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> FitJob:
        """Returns the job that `to_json` wrote."""
        found = json.loads(text)
        warm, plan = found.pop("warm_start"), found.pop("plan")
        return cls(
            **{**found, "ks": tuple(found["ks"])},
            plan=None if plan is None else StepPlan(**plan),
            warm_start=None if warm is None else WarmFiles(**warm),
        )


@dataclass(frozen=True)
class FitOutcome:
    """What a fit leaves.

    Attributes:
        files: of the model's partition.
        report: with the figures that differ from run to run.
        model: where the model lies if it is not among the files.
    """

    files: dict[str, bytes]
    report: dict[str, Any]
    model: Path | None = None

    @property
    def stored(self) -> dict[str, bytes | Path]:
        """Returns all files of the partition, as bytes or where they lie."""
        return {**self.files, **({} if self.model is None else {ModelFile.WEIGHTS: self.model})}


def run_job(
    job: FitJob,
    progress: Callable[[Progress], None],
    now: Callable[[], float],
    ranks: Ranks = ALONE,
    out: Path | None = None,
) -> FitOutcome | None:
    """Returns what the job leaves; None in a process that is not the first of several.

    The state is stored by the first process and read by all, or in parts by all (`FitStates`). It stays where it is when
    the fit is over (`forget`).

    Args:
        job: what is fitted.
        progress: called after every step.
        now: seconds of a clock that never goes back.
        ranks: this process among those that share the fit.
        out: folder in which the model is written piece by piece; None: its bytes are returned.
    """
    spec = TowerSpec.from_json(job.towers)
    data = TrainData(spec, **{name: _mapped(path) for name, path in job.tables.items()})
    model, training = Model.model_validate(job.model), Training.model_validate(job.training)
    is_dealt = training.shard_tables and ranks.count > 1
    states = FitStates(Path(job.state), ranks, is_dealt=is_dealt)
    around = FitContext(
        ks=job.ks,
        warm_start=None if job.warm_start is None else _warm(job.warm_start),
        key=job.key,
        saved=states.saved(),
        save=states.save if ranks.is_first or is_dealt else None,
        stores_together=is_dealt,
        ranks=ranks,
        peak_bytes=peak_bytes,
    )
    result = fit(
        data, spec, model=model, training=training, seed=job.seed, progress=progress, now=now, around=around, plan=job.plan
    )
    result.report["peak_bytes_of"] = _measured(ranks)
    chunks = model_chunks(result.two_tower)
    if not ranks.is_first:
        deque(chunks, maxlen=0)  # the first one writes what all hold
        return None
    if out is None:
        return FitOutcome({ModelFile.WEIGHTS: b"".join(chunks), **_small_files(result)}, result.report)
    write_atomic(out / ModelFile.WEIGHTS, chunks)
    return FitOutcome(_small_files(result), result.report, out / ModelFile.WEIGHTS)


def forget(job: FitJob) -> None:
    """Removes the state of a training that is over."""
    FitStates(Path(job.state)).forget()


def _small_files(result: FitResult) -> dict[str, bytes]:
    """Returns the files beside the model: the same for the same data, configuration and seed, killed or not."""
    steady = {key: value for key, value in result.report.items() if key not in UNSTEADY}
    files: dict[str, bytes] = {
        ModelFile.TOWERS: result.two_tower.spec.to_json().encode(),
        ModelFile.LOSSES: _rounded(result.loss_by_step),
        ModelFile.REPORT: json.dumps(steady, indent=1, sort_keys=True).encode(),
    }
    if result.scores:
        told = {
            "scores": [asdict(score) for score in result.scores],
            "loss_by_step": json.loads(_rounded(result.search_loss_by_step)),
        }
        files[ModelFile.VALIDATION] = json.dumps(told).encode()
    if result.prior is not None:
        files[ModelFile.PRIOR] = result.prior.to_json().encode()
    return files


def _measured(ranks: Ranks) -> str:
    """Returns whose memory `peak_bytes` is, in words."""
    who = "the run's process" if ranks.count == 1 else f"the first of {ranks.count} processes"
    return f"{who}, its largest resident size since it started, whatever it did before the fit"


def peak_bytes() -> int:
    """Returns the largest resident size that this process has had since it started."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def save_rows(path: Path, rows: dict[str, CarriedRows]) -> None:
    """Writes the rows that are carried over."""
    arrays = {f"{day}/{name}": getattr(found, day) for name, found in rows.items() for day in ("today", "earlier")}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def map_model(path: Path, spec: TowerSpec) -> TwoTower:
    """Returns stored towers whose tables lie in a memory map of their file.

    Raises:
        StorageError: the file is not a whole model.
        ConfigError: the model was made for another specification.
    """
    # A private map: torch asks for memory that may be written to, and nothing would reach the file.
    return mapped_model(np.memmap(path, np.uint8, "c"), spec)


def _warm(files: WarmFiles) -> WarmStart:
    towers = map_model(Path(files.model), TowerSpec.from_json(files.towers))
    with np.load(files.rows, allow_pickle=False) as held:
        names = [name.removeprefix("today/") for name in held.files if name.startswith("today/")]
        return WarmStart(
            files.name, towers, {name: CarriedRows(held[f"today/{name}"], held[f"earlier/{name}"]) for name in names}
        )


def _mapped(path: str) -> pa.Table:
    with pa.memory_map(path, "rb") as source:
        return pa.ipc.open_file(source).read_all()


def _rounded(losses: Any) -> bytes:
    return json.dumps([round(float(loss), 6) for loss in losses]).encode()
