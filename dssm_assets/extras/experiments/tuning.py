"""Trials of a study. Each trial is an experiment, scored on the last days of the window before an evaluation day.

Every trial fits the towers of one day with other settings, without a refit on the whole window, and is scored after every epoch on
the validation days. A trial below the median of earlier trials at the same epoch is pruned. The evaluation day itself is not read.

Proposals come from Optuna's TPE sampler, seeded by the study's seed and the number of finished trials, so a resumed study makes the
same proposals. The study is a SQLite file in the home folder. A killed trial starts again under its name and resumes from its
checkpoint.

The search space is small: settings that matter on logs of every kind, near their configured values
(`docs/what_was_learned.md`). Features and samples stay the same. The first trial is the unchanged configuration. Epochs are not
searched, since a trial keeps its best epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dssm_assets.core.config.model import Similarity
from dssm_assets.core.config.pipeline import PipelineConfig
from dssm_assets.core.config.training import Launcher
from dssm_assets.core.errors import ConfigError, Fault, InputError, remedy_of_missing
from dssm_assets.core.evaluation.labels import describe_border
from dssm_assets.core.training.fit_report import EpochScore
from dssm_assets.extras.experiments.experiments import Experiment, describe_changes, drop_configured, edit_yaml, open_experiment
from dssm_assets.extras.experiments.forms import value_of
from dssm_assets.steps.dssm_model import prepare_fit, progress_log, publish_fit
from dssm_assets.steps.fit_job import remove_state, run_job
from dssm_assets.steps.workspace import Workspace, reason_to_skip
from dssm_assets.storage.local_files import write_atomic
from dssm_assets.storage.sources.table_source import need_library

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

FOLDER: Final = "tuning"
VALIDATION_FRAC: Final = 0.1
"""If the configuration has no validation days, trials are validated on this share of the window."""
MEDIAN_TRIALS: Final = 4
"""No trial is pruned before so many trials have finished."""
_RANDOM_TRIALS: Final = 6
_TRIAL: Final = "trial"
CONFIGURED: Final = "as configured"
NONE: Final = "none"
_FACTOR: Final = 5.0
"""Rates are searched between the configured rate / this factor and the configured rate * this factor."""
_TEMPERATURE_FACTOR: Final = 2.0
_DIMS: Final = (64, 96, 128)
_NEGATIVES: Final = (0, 256, 1024, 4096)
_POOLINGS: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "root": ({"kind": "root"},),
    "root and mean": ({"kind": "root"}, {"kind": "mean"}),
    "root, mean and recency": ({"kind": "root"}, {"kind": "mean"}, {"kind": "recency", "scale": 10.0}),
}
_SHORT: Final = 50
"""Number of events read by the poolings after the first."""


class PrunedFitError(Exception):
    """Ends the fit of a pruned trial. Nothing is published."""


class TrialState(StrEnum):
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAIL = "failed"


@dataclass(frozen=True)
class Trial:
    """One finished trial. `hit_rate` is its hit rate on the validation days after its best `epoch`. Both are None if none was scored."""

    name: str
    changes: Mapping[str, Any]
    state: TrialState
    hit_rate: float | None
    epoch: int | None
    seconds: float
    fault: str = ""


@dataclass(frozen=True)
class StudyRequest:
    """A study on the window of an evaluation day, with `trials` trials in the end: experiments <name>_0000, ..."""

    name: str
    ds: str
    trials: int
    seed: int


@dataclass(frozen=True)
class StudyResult:
    """All finished trials, the best trial, and the written files."""

    trials: tuple[Trial, ...]
    best: Trial
    config_path: Path
    table_path: Path


def run_study(workspace: Workspace, request: StudyRequest, on_trial: Callable[[Sequence[Trial]], None]) -> StudyResult:
    """Runs the missing trials, then writes the winner's configuration and the table of trials.

    Args:
        on_trial: called once for each finished trial, also of earlier runs, with all trials finished so far.

    Raises:
        ConfigError: Optuna is missing, the day has no model, an external launcher starts fits, an earlier study with this name
            had another configuration or day, or no trial was complete.
    """
    _check(workspace, request)
    space = search_space(workspace.config)
    study = _open_study(workspace, request, space)
    bodies = [body for frozen in study.get_trials(deepcopy=False) if (body := frozen.user_attrs.get(_TRIAL))]
    trials = [Trial(**{**body, "state": TrialState(body["state"])}) for body in bodies]
    workspace.log(
        f"study {request.name}: {len(trials)} of {request.trials} trials are done. Each fits the towers of {request.ds}, up to epoch "
        f"{workspace.config.training.epochs}, and scores them on the days before "
        f"(validation days: {_validation_days(workspace)}); {', '.join(space)} vary"
    )
    for number in range(1, len(trials) + 1):
        on_trial(trials[:number])
    while len(trials) < request.trials:
        trials.append(_run_trial(workspace, request, study, space, len(trials)))
        on_trial(trials)
    return _write_winner(workspace, request, trials)


def _check(workspace: Workspace, request: StudyRequest) -> None:
    need_library("optuna", "tune", "dssm-assets tune")
    faults = []
    if workspace.find("dssm_model", request.ds) is None:
        reason = reason_to_skip(workspace, request.ds)
        make = f"{remedy_of_missing('train_and_evaluate', request.ds)}, or " if reason is None else ""
        remedy = f"{make}choose another --day{f': {reason}' if reason else ''}"
        faults.append(
            Fault(f"dssm_model of {request.ds}", "a regular model, on whose samples trials are fitted", "none", remedy)
        )
    if workspace.config.training.launcher is Launcher.EXTERNAL:
        remedy = "set training.launcher to auto for tuning"
        faults.append(Fault("training.launcher", "auto or another launcher inside the run", "external", remedy))
    if _validation_days(workspace) >= workspace.config.window.days:
        got = f"{workspace.config.window.days} days"
        faults.append(Fault("window.days", "a day to learn from and one to validate on", got, "lengthen the window"))
    ConfigError.raise_if(faults)


def _open_study(workspace: Workspace, request: StudyRequest, space: Mapping[str, BaseDistribution]) -> optuna.Study:
    import optuna

    path = workspace.loaded.home / FOLDER / f"{request.name}.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{path}",
        study_name=request.name,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=MEDIAN_TRIALS),
    )
    facts = {
        "day": request.ds,
        "seed": request.seed,
        "space": {key: repr(values) for key, values in space.items()},
        "samples": workspace.need("train_samples", request.ds).digest,
    }
    known = study.user_attrs.get("facts")
    if known is None:
        study.set_user_attr("facts", facts)
    elif known != facts:
        changed = ", ".join(sorted(key for key in facts if facts[key] != known.get(key)))
        remedy = "choose another --study, or go back to the day, seed, samples and configuration of this one"
        raise ConfigError(Fault(f"study {request.name}", "the day, seed, samples and settings it began with", changed, remedy))
    for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # the trial was killed; it is started again
    return study


def _run_trial(
    workspace: Workspace, request: StudyRequest, study: optuna.Study, space: Mapping[str, BaseDistribution], number: int
) -> Trial:
    import optuna

    study.sampler = optuna.samplers.TPESampler(seed=request.seed + number, n_startup_trials=_RANDOM_TRIALS)
    if number == 0 and not study.get_trials(states=[optuna.trial.TrialState.WAITING]):
        study.enqueue_trial(configured_values(space, workspace.config))
    asked = study.ask(dict(space))
    changes = changes_of(asked.params, workspace.config)
    name, begin = f"{request.name}_{number:04d}", workspace.now()
    workspace.log(f"trial {number + 1} of {request.trials}, {name}: {describe_changes(changes)} changed")
    scores: list[EpochScore] = []

    def follow(found: Sequence[EpochScore]) -> None:
        for score in found[len(scores) :]:
            scores.append(score)
            asked.report(score.hit_rate, score.epoch)
        if asked.should_prune():
            raise PrunedFitError

    state, fault = TrialState.COMPLETE, ""
    try:
        own = {**changes, "training.validation_days": _validation_days(workspace), "training.refit": False}
        opened, _ = open_experiment(workspace, Experiment(name, own), "dssm_model", request.ds)
        fit_scored(opened, request.ds, follow)
    except PrunedFitError:
        state = TrialState.PRUNED
    except InputError as error:
        if number == 0:
            raise
        state, fault = TrialState.FAIL, str(error.faults[0])
    best = max(scores, key=lambda score: score.hit_rate, default=None)
    rate, epoch = (None, None) if best is None else (best.hit_rate, best.epoch)
    trial = Trial(name, changes, state, rate, epoch, workspace.now() - begin, fault)
    asked.set_user_attr(_TRIAL, {**vars(trial), "changes": dict(changes), "state": str(state)})
    study.tell(asked, rate if state is TrialState.COMPLETE else None, optuna.trial.TrialState[state.name])
    return trial


def fit_scored(workspace: Workspace, ds: str, after_epoch: Callable[[Sequence[EpochScore]], None]) -> None:
    """Fits the towers in this process and publishes them. Calls `after_epoch` with all scores after each epoch of the search.

    Raises:
        PrunedFitError: `after_epoch` raised it. The state of the fit is removed.
    """
    with prepare_fit(workspace, ds) as plan:
        try:
            outcome = run_job(plan.job, progress_log(workspace), workspace.now, plan.folder, after_epoch=after_epoch)
        except PrunedFitError:
            remove_state(Path(plan.job.state))
            raise
        assert outcome is not None  # a single process is the first
        publish_fit(workspace, plan, outcome)


def _validation_days(workspace: Workspace) -> int:
    configured = workspace.config.training.validation_days
    return configured or max(1, int(workspace.config.window.days * VALIDATION_FRAC))


def _write_winner(workspace: Workspace, request: StudyRequest, trials: Sequence[Trial]) -> StudyResult:
    loaded, best = workspace.loaded, best_trial(trials)
    if best is None:
        faults = [trial.fault for trial in trials if trial.fault] or ["none was complete"]
        raise ConfigError(Fault(f"study {request.name}", "a complete trial", faults[0], "correct it, and raise --trials"))
    changes = dict(best.changes)
    if not workspace.config.training.validation_days and best.epoch is not None:
        changes["training.epochs"] = best.epoch  # without validation days the fit cannot find it
    table = trials_markdown(trials, max(workspace.config.evaluation.k, default=0))
    table += "".join(f"\n{border}\n" for border in find_borders(best, workspace.config))
    head = (
        f"Written by `dssm-assets tune`, study {request.name}: {best.name} of {len(trials)} trials.\n"
        f"Trials were scored on the {_validation_days(workspace)} days before {request.ds}, whose own events were not read.\n\n"
    )
    comment = "".join(f"# {line}".rstrip() + "\n" for line in (head + table).splitlines())
    source = loaded.path
    assert source is not None  # a scene's configuration is a file
    config_path = source.with_name(f"{source.stem}.{request.name}.yaml")
    table_path = loaded.home / FOLDER / f"{request.name}.md"
    write_atomic(table_path, [table.encode()])
    tuned = edit_yaml(source.read_text(encoding="utf-8"), changes, note="")
    write_atomic(config_path, [f"{comment}\n{tuned}".encode()])
    return StudyResult(tuple(trials), best, config_path, table_path)


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Returns the first complete trial with the highest hit rate, or None."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.hit_rate is not None]
    return max(complete, key=lambda trial: trial.hit_rate or 0.0, default=None)


def trials_markdown(trials: Sequence[Trial], k: int) -> str:
    """Returns the trials as a Markdown table: highest hit rate first, trials without a rate last."""
    lines = [f"| trial | hit_rate@{k} | best epoch | state | changed |", "|---|---|---|---|---|"]
    for trial in sorted(trials, key=lambda one: (one.hit_rate is None, -(one.hit_rate or 0.0), one.name)):
        rate = "" if trial.hit_rate is None else f"{trial.hit_rate:.4f}"
        changed = "; ".join(filter(None, (describe_changes(trial.changes), trial.fault)))
        lines.append(f"| {trial.name} | {rate} | {trial.epoch or ''} | {trial.state} | {changed} |")
    return "\n".join(lines) + "\n"


def find_borders(best: Trial, config: PipelineConfig) -> list[str]:
    """Returns a sentence for each number of the best trial that lies within a tenth of its range's end, or at the end of its list."""
    found = [describe_border("training.epochs", best.epoch or 0, 0, config.training.epochs, "raise it")]
    for key, proposed in dict[str, Any](search_space(config)).items():
        value = best.changes.get(key, value_of(config, key))
        if isinstance(value, int | float):
            numbers = [math.inf if one == NONE else one for one in getattr(proposed, "choices", ()) if one != CONFIGURED]
            ends = (min(numbers), max(numbers)) if numbers else (proposed.low * 1.1, proposed.high / 1.1)
            found.append(
                describe_border(key, value, *ends, f"try it: dssm-assets experiment NAME --from DAY --set {key}=VALUE")
            )
    return list(filter(None, found))


def search_space(config: PipelineConfig) -> dict[str, BaseDistribution]:
    """Returns key -> distribution of the proposed values; it includes the configured value."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    model, training, days = config.model, config.training, float(config.window.days)

    def choices(key: str, values: Iterable[float]) -> CategoricalDistribution:
        return CategoricalDistribution(sorted({value_of(config, key), *values}))

    def rates(value: float, factor: float = _FACTOR) -> FloatDistribution:
        return FloatDistribution(value / factor, value * factor, log=True)

    space: dict[str, BaseDistribution] = {
        "training.learning_rate": rates(training.learning_rate),
        "training.embedding_learning_rate": rates(training.embedding_learning_rate),
        "model.num_sample": choices("model.num_sample", _NEGATIVES if model.in_batch else _NEGATIVES[1:]),
        "model.embedding_dropout": choices("model.embedding_dropout", (0.0, 0.2, 0.4)),
        "model.recency_half_life_days": CategoricalDistribution((CONFIGURED, NONE, days / 4, days / 2, days)),
    }
    if model.similarity is Similarity.COSINE and not model.learn_temperature:
        space["model.temperature"] = rates(model.temperature, _TEMPERATURE_FACTOR)
    if (narrowest := _narrowest_vectors(config)) is not None:
        space["model.output_dim"] = choices("model.output_dim", (dim for dim in _DIMS if dim >= narrowest))
    if model.history_length and model.num_interests == 1:
        space["model.poolings"] = CategoricalDistribution((CONFIGURED, *_POOLINGS))
    return space


def configured_values(space: Mapping[str, BaseDistribution], config: PipelineConfig) -> dict[str, Any]:
    """Returns the configured value of each searched parameter."""
    has_own_value = {key: CONFIGURED in getattr(values, "choices", ()) for key, values in space.items()}
    return {key: CONFIGURED if is_own else value_of(config, key) for key, is_own in has_own_value.items()}


def changes_of(values: Mapping[str, Any], config: PipelineConfig) -> dict[str, Any]:
    """Converts parameter values to changed keys of the configuration. Configured values are left out."""
    settings: dict[str, Any] = {}
    for key, value in values.items():
        if value == CONFIGURED:
            continue
        if key == "model.poolings":
            longest = max(pooling.length for pooling in config.model.history_poolings)
            first, *others = _POOLINGS[value]
            settings[key] = [{**first, "length": longest}]
            settings[key] += [{**other, "length": min(_SHORT, longest)} for other in others]
        else:
            settings[key] = None if value == NONE else value
    return drop_configured(config, settings)


def _narrowest_vectors(config: PipelineConfig) -> int | None:
    """Returns the smallest width that the towers allow. None if it is unknown; then the width is not searched."""
    if config.training.svd_init is None:
        return 2
    frozen = config.model.frozen_embedding
    width = None if frozen is None else config.statistics.own_values([frozen], "embedding_dim").get(frozen)
    return int(str(width)) + 16 if width is not None else None
