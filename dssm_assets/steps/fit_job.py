"""One fit as a value that another process can read: paths of memory-mapped files, sections, where states go.

Belongs here: `FitJob`, running it in this process, the files that it leaves. Does not belong here: which partitions it is
made of (`dssm_model`), processes that share it (`fit_process`).
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dssm_assets.core.features.carried_rows import CarriedRows
from dssm_assets.core.model_config import Model
from dssm_assets.core.models.prior import FILE as PRIOR
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.training.checkpoint import model_from_bytes, model_to_bytes
from dssm_assets.core.training.distributed import ALONE, Ranks
from dssm_assets.core.training.loop import fit
from dssm_assets.core.training.report import UNSTEADY, FitResult, Progress, Surroundings
from dssm_assets.core.training.train_data import TrainData
from dssm_assets.core.training.warm_start import WarmStart
from dssm_assets.core.training_config import Training
from dssm_assets.storage.whole_file import write_whole

MODEL, TOWERS, LOSSES, REPORT, VALIDATION = (
    "model.bin",
    "towers.json",
    "loss_by_step.json",
    "report.json",
    "validation.json",
)


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
    warm_start: WarmFiles | None = None

    def to_json(self) -> str:
        """Returns the job as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> FitJob:
        """Returns the job that `to_json` wrote."""
        found = json.loads(text)
        warm = found.pop("warm_start")
        return cls(**{**found, "ks": tuple(found["ks"])}, warm_start=None if warm is None else WarmFiles(**warm))


@dataclass(frozen=True)
class FitOutcome:
    """The files of a model's partition, and the report with the figures that differ from run to run."""

    files: dict[str, bytes]
    report: dict[str, Any]


def run_job(
    job: FitJob, progress: Callable[[Progress], None], now: Callable[[], float], ranks: Ranks = ALONE
) -> FitOutcome | None:
    """Returns what the job leaves; None in a process that is not the first of several.

    The state is stored by the first process and read by all. It stays where it is when the fit is over (`forget`).
    """
    spec, state = TowerSpec.from_json(job.towers), Path(job.state)
    data = TrainData(spec, **{name: _mapped(path) for name, path in job.tables.items()})
    around = Surroundings(
        ks=job.ks,
        warm_start=None if job.warm_start is None else _warm(job.warm_start),
        key=job.key,
        saved=state.read_bytes() if state.exists() else None,
        save=(lambda chunks: write_whole(state, chunks)) if ranks.is_first else None,
        ranks=ranks,
        peak_bytes=peak_bytes,
    )
    model, training = Model.model_validate(job.model), Training.model_validate(job.training)
    result = fit(data, spec, model=model, training=training, seed=job.seed, progress=progress, now=now, around=around)
    return FitOutcome(files_of(result), result.report) if ranks.is_first else None


def forget(job: FitJob) -> None:
    """Removes the state of a training that is over."""
    Path(job.state).unlink(missing_ok=True)


def files_of(result: FitResult) -> dict[str, bytes]:
    """Returns the files of a model's partition: the same for the same data, configuration and seed, killed or not."""
    steady = {key: value for key, value in result.report.items() if key not in UNSTEADY}
    files = {
        MODEL: model_to_bytes(result.two_tower),
        TOWERS: result.two_tower.spec.to_json().encode(),
        LOSSES: _rounded(result.loss_by_step),
        REPORT: json.dumps(steady, indent=1, sort_keys=True).encode(),
    }
    if result.scores:
        told = {
            "scores": [asdict(score) for score in result.scores],
            "loss_by_step": json.loads(_rounded(result.search_loss_by_step)),
        }
        files[VALIDATION] = json.dumps(told).encode()
    if result.prior is not None:
        files[PRIOR] = result.prior.to_json().encode()
    return files


def peak_bytes() -> int:
    """Returns the most memory that this process has held at once."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def save_rows(path: Path, rows: dict[str, CarriedRows]) -> None:
    """Writes the rows that are carried over."""
    arrays = {f"{day}/{name}": getattr(found, day) for name, found in rows.items() for day in ("today", "earlier")}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _warm(files: WarmFiles) -> WarmStart:
    towers = model_from_bytes(Path(files.model).read_bytes(), TowerSpec.from_json(files.towers))
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
