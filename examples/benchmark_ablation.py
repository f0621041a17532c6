"""What each part of the four methods is worth: the defaults with one part changed, on WS-DREAM.

    python examples/benchmark_ablation.py --data DIR --out results/
    python examples/benchmark_ablation.py --data DIR --out results/ --short --seeds 0
    python examples/benchmark_ablation.py --table results/ more/ --out all/

DIR holds the folders ``wsdream1`` and ``wsdream2``. SHARP-QoS, R2SL and SA-MoE are fitted to
response time and throughput at densities of 2.5 %, 1 % and 0.5 %, and predict the test cells of the
2.5 % split; or they are fitted without a fifth of the users and predict their cells
("new-users"). TPMCF imputes slot 63 of data set 2. The parts are those of
`skqos.benchmarks.ablations`. Without ``--settings``, the main parts run in all settings, and the
others at 2.5 % and for slot 63. ``--short`` runs the main parts alone, not at 1 %: about 60 fits
for a seed.

``--folds N`` predicts the first N of five validation folds of the training rows in place of the
test cells. Choose defaults by them, and run the test cells once.

Each fit runs in a process of its own, and ``--jobs`` of them at a time, also on one GPU
(``--device cuda``). A further run goes on where this one ended. ``results`` receives
``results.csv`` with a row for each fit and QoS, ``user_errors.csv`` with the sums of the errors of
each user, ``ablations.md`` with a table for each method, and a figure for each method. The second
form makes these from one or more folders.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from _options import stop_if

from skqos.benchmarks import Split, load_split
from skqos.benchmarks.ablation_report import RESULTS, TEST, USER_ERRORS, read_runs, write_report
from skqos.benchmarks.ablations import FIRST, METHODS, SETTINGS, SHORT, Method, Part
from skqos.benchmarks.differences import sum_by_user
from skqos.benchmarks.fits import Fitted, fit_jointly
from skqos.benchmarks.folds import N_FOLDS, take_fold
from skqos.benchmarks.runs import Task, append_rows, in_own_process, log_to_stdout, measure
from skqos.benchmarks.scores import score_errors


class Problem(NamedTuple):
    """A split, with its test cells or a validation fold; the fields are columns of the results."""

    split: str
    fold: str

    def __str__(self) -> str:
        return self.split if self.fold == TEST else f"{self.split} fold {self.fold}"

    def take(self, split: Split) -> Split:
        """Return the rows to train on and to predict."""
        return split if self.fold == TEST else take_fold(split, int(self.fold))


def list_tasks(args: argparse.Namespace) -> Iterator[Task]:
    """Seed by seed, the main parts first."""
    folds = [str(fold) for fold in range(args.folds)] or [TEST]
    chosen = [(METHODS[name], list(choose_parts(METHODS[name], args))) for name in args.models]
    for seed in args.seeds:
        for is_main in (True, False):
            for method, runs in chosen:
                for setting, part in runs:
                    if part.main != is_main:
                        continue
                    for names in method.groups(setting, args.qos):
                        for fold in folds:
                            problems = tuple(Problem(name, fold) for name in names)
                            yield Task(method.label(part.name), seed, problems)


def choose_parts(method: Method, args: argparse.Namespace) -> Iterator[tuple[str, Part]]:
    """Return the settings of each part."""
    for setting in method.settings:
        if setting not in (args.settings or (SHORT if args.short else SETTINGS)):
            continue
        only_main = args.short or not (args.settings or setting in FIRST)
        parts = method.choose(args.parts, only_main=only_main)
        yield from ((setting, part) for part in parts)


def fit_task(
    method: str, part: str, seed: int, options: dict[str, Any], splits: list[Split]
) -> list[Fitted]:
    """Make a model, fit it and predict: all that is done in a process of its own."""
    made = METHODS[method]
    model = made.make(made.part(part), splits[0], random_state=seed, **options)
    return fit_jointly(model, splits)


def name_device(device: str) -> str:
    """Return the name of the device for the results."""
    import torch

    from skqos.prediction import resolve_device

    found = resolve_device(device)
    return torch.cuda.get_device_name(found) if found.type == "cuda" else str(found)


def run(args: argparse.Namespace) -> list[str]:
    """Run what has no results yet; return a line for each failure."""
    tasks = list(list_tasks(args))
    names = {
        method.label(part.name): (key, part.name)
        for key, method in METHODS.items()
        for part in method.parts
    }
    loaded = {name: load_split(name, args.data) for name in splits_of(tasks)}
    splits = {p: p.take(loaded[p.split]) for task in tasks for p in task.problems}
    options = {"device": args.device} | ({"max_epochs": args.epochs} if args.epochs else {})
    device = in_own_process(name_device, args.device)

    def fit(task: Task) -> list[Fitted]:
        blind = [splits[problem].blind() for problem in task.problems]
        return in_own_process(fit_task, *names[task.model], task.seed, options, blind)

    def rate(problem: Problem, fitted: Fitted) -> dict[str, Any]:
        errors = score_errors(splits[problem].y_test, fitted.prediction, {})
        costs = {name: getattr(fitted, name) for name in ("fit_s", "predict_s", "peak_mb")}
        return {**errors, **costs, "device": device}

    def keep(key: dict[str, Any], problem: Problem, fitted: Fitted) -> None:
        by_user = sum_by_user(splits[problem], fitted.prediction)
        append_rows(args.out / USER_ERRORS, by_user.round(6).assign(**key).to_dict("records"))

    if args.fresh:
        (args.out / USER_ERRORS).unlink(missing_ok=True)
    path = args.out / RESULTS
    return measure(tasks, fit, rate, path, jobs=args.jobs, fresh=args.fresh, keep=keep)


def splits_of(tasks: Iterable[Task]) -> list[str]:
    """Return the names of all splits, each once."""
    return list(dict.fromkeys(problem.split for task in tasks for problem in task.problems))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder with wsdream1 and wsdream2")
    source.add_argument("--table", type=Path, nargs="+", help="folders of earlier runs")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and figures")
    parser.add_argument("--models", nargs="+", choices=METHODS, default=[*METHODS])
    parser.add_argument("--parts", nargs="+", help="names or groups, in place of all")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, help="in place of the default")
    parser.add_argument("--short", action="store_true", help="the main parts, not at 1 %%")
    parser.add_argument("--qos", nargs="+", choices=["rt", "tp"], default=["rt", "tp"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folds", type=int, default=0, choices=range(N_FOLDS + 1))
    parser.add_argument("--device", default="cpu", help="torch device of the fits")
    parser.add_argument("--epochs", type=int, help="max_epochs of all fits, for a trial")
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each fit")
    parser.add_argument("--list", action="store_true", help="list the fits and end")
    parser.add_argument("--fresh", action="store_true", help="forget the results of the folder")
    return parser


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a message if the options do not fit together."""
    known = {word for m in METHODS.values() for p in m.parts for word in (p.group, p.name)}
    if unknown := sorted({*(args.parts or ())} - known):
        parser.error(f"--parts: unknown {unknown}; there are {sorted(known)}")
    if args.jobs < 1 or args.threads < 1:
        parser.error("--jobs and --threads must be at least 1")
    if args.data and not list(list_tasks(args)):
        parser.error("no fits: no model has these parts, settings and QoS")


def main(argv: list[str] | None = None) -> pd.DataFrame | None:
    parser = make_parser()
    args = parser.parse_args(argv)
    check(parser, args)
    if args.list:
        tasks = list(list_tasks(args))
        print(*tasks, f"{len(tasks)} fits", sep="\n")
        return None
    # Read by torch and the linear algebra when a process loads them.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    with log_to_stdout():
        failures = run(args) if args.data else []
        stop_if(failures, unless=args.out / RESULTS)
        rows, errors = read_runs(args.table or [args.out])
        summary = write_report(args.out, rows, errors)
    stop_if(failures)
    return summary


if __name__ == "__main__":
    main()
