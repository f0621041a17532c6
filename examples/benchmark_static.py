"""Accuracy on WS-DREAM data set 1, every model on the same rows.

    python examples/benchmark_static.py --data DIR --out results/
    python examples/benchmark_static.py --table results/results.csv --readme README.md

The first line runs all models, three seeds each, each in a process of its own, and leaves in
``results``: ``results.csv``, to which each result is added when it is there, so that a further run
goes on where this one ended; the predictions of the test cells; ``results.md`` with all tables; two
figures. ``--jobs`` runs several processes at a time, ``--ablations`` the variants of ours too,
``--models`` those that it names. Nothing but the costs depends on ``--jobs``. The second line puts
the tables of one or more runs between the marks that a file has for them.

DIR holds the files of data set 1, and may have a folder ``splits`` with
``{rt,tp}_{train,test}_0.025.txt`` (lines ``user service value``). Without one, 2.5 % of the cells
are drawn to train and half of the others to test (`skqos.model_selection.DensitySplit`, seed 0).

The test cells are the same at each of the ``--densities``, so that errors may be compared. Training
cells are nested: a density below 2.5 % takes a random part of those at 2.5 %; one above adds random
ones of the cells that are in neither file. Where DIR has only part of the data set, those may be
none, or not drawn evenly from all users.

Models are given the training rows and the test pairs; the values of the test cells stay in the
process that scores. With ``--permute-test-labels`` they are shuffled first, results go to the
folder ``permuted`` of ``--out``, and all predictions stay as they are.

Test cells are not filtered in the first table. The second is R2SL's protocol on the same
predictions: test cells that an isolation forest flags over all values of the split, test labels
included, do not count (`skqos.metrics.outlier_mask` with contamination 0.1, all samples, seed 42).

``peak_mb`` is the largest resident memory of the process that fitted and predicted: imports and
data are in it.

The embedding MLP of `embedding_mlp.py` is the baseline. A run whose baseline is more than 2 %
worse than the figures below is not a fair run.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from _options import choose_models, costs, make_parser, parse, stop_if
from _report import report
from _static_models import ABLATIONS, DEFAULT, JOINT, make_model
from sklearn.utils import Bunch

from skqos.benchmarks.accuracy import STATIC, make_static_page
from skqos.benchmarks.fits import Fitted, fit_jointly
from skqos.benchmarks.runs import Task, in_own_process, log_to_stdout, measure
from skqos.benchmarks.scores import flag_outliers, score_choices, score_errors
from skqos.benchmarks.tables import BASELINE
from skqos.benchmarks.wsdream1 import GIVEN_DENSITY, read_split
from skqos.datasets import load_wsdream

BASELINE_MAE = {"rt": 0.386, "tp": 15.48}
LAYOUT = replace(STATIC, models=[*DEFAULT, *ABLATIONS])


class Problem(NamedTuple):
    """A split of one QoS."""

    qos: str
    density: float

    def __str__(self) -> str:
        return f"{self.qos} {self.density * 100:g} %"


def fit_task(name: str, qos: str | None, seed: int, data: Bunch, splits: list) -> list[Fitted]:
    """Make a model, fit it and predict: all that is done in a process of its own."""
    return fit_jointly(make_model(name, data, qos, seed), splits)


def list_tasks(args: argparse.Namespace, models: list[str]) -> list[Task]:
    """Seed by seed, so that the time left is known after the first."""
    tasks = []
    for seed in args.seeds:
        for density in args.densities:
            problems = tuple(Problem(qos, density) for qos in args.qos)
            for name in models:
                groups = [problems] if name in JOINT else [(problem,) for problem in problems]
                tasks += [Task(name, seed, group) for group in groups]
    return tasks


def run(args: argparse.Namespace, models: list[str]) -> list[str]:
    """Run what has no results yet; return a line for each failure."""
    tasks = list_tasks(args, models)
    problems = {problem for task in tasks for problem in task.problems}
    splits = {problem: read_split(args.data, *problem) for problem in problems}
    if args.permute_test_labels:
        splits = {problem: split.permuted() for problem, split in splits.items()}
    tables = load_wsdream(args.data, qos="rt")
    data = Bunch(users=tables.users, services=tables.services)

    def fit(task: Task) -> list[Fitted]:
        qos = task.problems[0].qos if task.model not in JOINT else None
        blind = [splits[problem].blind() for problem in task.problems]
        return in_own_process(fit_task, task.model, qos, task.seed, data, blind)

    @cache
    def kept(problem: Problem) -> dict[str, np.ndarray]:
        return {"_filtered": ~flag_outliers(splits[problem])}

    def rate(problem: Problem, fitted: Fitted) -> dict[str, float]:
        errors = score_errors(splits[problem].y_test, fitted.prediction, kept(problem))
        choices = score_choices(splits[problem], fitted.prediction)
        return errors | choices | costs(fitted)

    return measure(
        tasks,
        fit,
        rate,
        args.out / "results.csv",
        jobs=args.jobs,
        fresh=args.fresh,
        predictions=args.out,
    )


def tell_baseline(summary: pd.DataFrame) -> None:
    """Tell how the baseline stands against what it should be."""
    for qos, reference in BASELINE_MAE.items():
        if (qos, GIVEN_DENSITY, BASELINE) in summary.index:
            mae = summary.loc[(qos, GIVEN_DENSITY, BASELINE), "mae"]
            print(f"{qos}: baseline {mae:.4g}, {mae / reference:.3f} of the reference {reference}")


def main(argv: list[str] | None = None) -> pd.DataFrame:
    parser = make_parser(__doc__.split("\n")[0], data_set=1)
    parser.add_argument("--qos", nargs="+", default=["rt", "tp"], choices=["rt", "tp"])
    parser.add_argument(
        "--densities", nargs="+", type=float, default=[GIVEN_DENSITY], help="shares of all cells"
    )
    args = parse(parser, argv)
    models = choose_models(parser, args, [*DEFAULT], [*ABLATIONS])
    with log_to_stdout():
        failures = run(args, models) if args.data else []
        stop_if(failures, unless=args.out and args.out / "results.csv")
        _, summary = report(args, "WS-DREAM data set 1", LAYOUT, make_static_page, "published")
    tell_baseline(summary)
    stop_if(failures)
    return summary


if __name__ == "__main__":
    main()
