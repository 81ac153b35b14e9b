"""`dssm-assets tune`: searches settings that recall more, and writes the best as a configuration."""

from __future__ import annotations

import argparse
import datetime as dt

from dssm_assets.commands.config_arguments import add_config_arguments, load_announced_scene


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "tune",
        help="search settings on the days before an evaluation day; needs the extra `tune`",
        epilog="Each trial is an experiment <study>_0000, <study>_0001, ... The first one is the configuration as it is. A "
        "stopped study goes on when the command is started again; a larger --trials continues it.",
    )
    parser.add_argument("--trials", type=int, default=20, help="trials that the study shall have in the end (default: 20)")
    parser.add_argument(
        "--day", type=dt.date.fromisoformat, help="evaluation day, YYYY-MM-DD (default: the last one with a model)"
    )
    parser.add_argument("--study", default="tuned", help="its name: small letters, digits and _ (default: tuned)")
    parser.add_argument("--seed", type=int, default=0, help="of the proposals (default: 0)")
    add_config_arguments(parser)
    parser.set_defaults(command=_tune)


def _tune(parsed: argparse.Namespace) -> int:
    from dssm_assets.core.errors import ConfigError, Fault, remedy_of_missing
    from dssm_assets.extras.experiments.settings import find_name_faults
    from dssm_assets.extras.experiments.tuning import StudyRequest, Trial, best_trial, run_study
    from dssm_assets.steps.workspace import open_workspace

    faults = [*find_name_faults(parsed.study, "--study")]
    if parsed.trials < 1:
        faults.append(Fault("--trials", "at least 1", str(parsed.trials), "give a larger number"))
    ConfigError.raise_if(faults)
    workspace = open_workspace(load_announced_scene(parsed).loaded)
    fitted = workspace.tables.partitions.days("dssm_model")
    if parsed.day is None and not fitted:
        remedy = remedy_of_missing("train_and_evaluate", "DAY")
        raise ConfigError(Fault("dssm_model", "a day with a regular model, on whose samples trials are fitted", "none", remedy))
    day = parsed.day.isoformat() if parsed.day else fitted[-1]
    shown: list[Trial] = []

    def show(trial: Trial, number: int) -> None:
        shown.append(trial)
        rate = "no score" if trial.hit_rate is None else f"{trial.hit_rate:.4f}"
        best = best_trial(shown)
        so_far = "" if best is None else f", best {best.hit_rate:.4f}"
        print(f"{number}/{parsed.trials} {trial.name}: {rate}, {trial.state}, {trial.seconds:.0f} s{so_far}", flush=True)

    print(f"study {parsed.study}: {parsed.trials} trials on the days before {day}", flush=True)
    result = run_study(workspace, StudyRequest(parsed.study, day, parsed.trials, parsed.seed), show)
    print(f"\n{result.table_path.read_text(encoding='utf-8')}")
    first = result.trials[0]
    if first.hit_rate is not None and result.best.hit_rate is not None:
        print(f"Best: {result.best.name}, {result.best.hit_rate:.4f} instead of {first.hit_rate:.4f} as configured.")
    print(f"Wrote {result.config_path} and {result.table_path}.")
    return 0
