"""Intervals and choices on WS-DREAM: do 90 % intervals cover 90 %, and of whom?

    python examples/benchmark_intervals.py --data DIR --out results/
    python examples/benchmark_intervals.py --data DIR --out results/ --entities
    python examples/benchmark_intervals.py --temporal DIR --out results/

Each run adds lines to ``results/intervals.csv``, one for a model, a QoS and a seed, and goes on
where an earlier one ended; ``results/intervals.md`` has their means. SHARP-QoS learns all QoS in
one fit. DIR holds data set 1, the one after ``--temporal`` data set 2: slot 63 is predicted from
10 % of the cells of eight slots.

Coverage is told of all test cells, of the tenths of the prediction (lowest and highest), and of the
worst twentieth of the users with 50 test cells or more. P(y <= limit) is compared with the share of
cells that met the limit: over all cells, and in the tenths of the probability (largest difference).
Choices are of one among ten services of a user's test cells, 60 draws a user: mean regret, which is
the QoS of the choice over that of the best, and share of choices near the best (10 %, or 50 ms).
"cautious" choices are by the quantile of level 0.7 (throughput: 0.3), others by the prediction.
``times`` is the CPU time of the fit over that of a fit without intervals, of the first seed.

``--entities`` holds a fifth of the users, then of the services, out of training, and tells how many
of their cells intervals cover.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from _static_models import JOINT, make_model
from sklearn.pipeline import Pipeline

from skqos import TPMCFRegressor
from skqos.benchmarks._split import Split
from skqos.benchmarks.fits import cpu_timed, join
from skqos.benchmarks.interval_tables import make_interval_table
from skqos.benchmarks.runs import append_rows, in_own_process, open_results, read_rows
from skqos.benchmarks.wsdream1 import hold_out, read_split
from skqos.benchmarks.wsdream2 import make_split, read_cells
from skqos.datasets import load_wsdream
from skqos.metrics import (
    choice_regret,
    interval_coverage,
    nan_mean_absolute_error,
    near_best_share,
    winkler_score,
)

LEVEL = 0.9
QOS = ("rt", "tp")
LIMITS = {"rt": (0.5, 1.0), "tp": (10.0, 50.0)}
MIN_CELLS = 50
# "Near best": within 10 %, or so many seconds.
MARGIN = {"rt": 0.05, "tp": 0.0}
# Choices by a quantile on the bad side of the median, beside those by the prediction.
CAUTIOUS = {"rt": 0.7, "tp": 0.3}
GIVEN, SLOT, ENTITIES = "given", "slot 63", ("users", "services")
# Number of services of a choice.
N_SERVICES = 10
# Columns that identify a row of the results.
KEYS = ["qos", "cells", "model", "seed"]
MODELS = ["SAMoERegressor", "R2SLRegressor", "SharpQoSRegressor", "EmbeddingMLPRegressor"]


class Problem(NamedTuple):
    """A fit whose intervals are rated on some cells of one or more QoS."""

    qos: tuple[str, ...]
    cells: str
    model: str
    seed: int

    def row_keys(self) -> list[tuple[str, ...]]:
        """Return the first columns of the rows of results, one row per QoS."""
        return [(qos, self.cells, self.model, str(self.seed)) for qos in self.qos]

    @property
    def learnt(self) -> Sequence[str]:
        """The QoS that the model learns, in the order of its targets."""
        return QOS if self.model in JOINT else self.qos

    def read(self, folder: Path) -> list[Split]:
        """Return the rows of each QoS that the model learns."""
        if self.cells == SLOT:
            cells = read_cells(folder)
            return [make_split(cells, "imputation", density=0.10)]
        splits = [read_split(folder, qos) for qos in self.learnt]
        if self.cells == GIVEN:
            return splits
        column = ENTITIES.index(self.cells)
        splits = [hold_out(split, column, self.seed) for split in splits]
        # An entity that is held out of one QoS must not be learnt from another one.
        unknown = np.concatenate([split.X_test[:, column] for split in splits])
        known = [~np.isin(split.X[:, column], unknown) for split in splits]
        return [
            replace(split, X=split.X[rows], y=split.y[rows])
            for split, rows in zip(splits, known, strict=True)
        ]

    def make(self, folder: Path, *, intervals: bool) -> Any:
        if self.cells == SLOT:
            return TPMCFRegressor(random_state=self.seed, device="cpu", intervals=intervals)
        data = load_wsdream(folder, qos=self.qos[0])
        model = make_model(self.model, data, self.qos[0], self.seed)
        model[-1].set_params(intervals=intervals)
        return model


def rate(problem: Problem, folder: Path, *, compare: bool) -> list[dict[str, float]]:
    """Fit, and rate the intervals of each QoS; to compare, fit without them, too."""
    torch.set_num_threads(1)
    splits = problem.read(folder)
    X, y = join(splits)
    model = problem.make(folder, intervals=True)
    _, fit_s = cpu_timed(lambda: model.fit(X, y))
    costs = {"fit_s": fit_s, "times": np.nan}
    if compare:
        alone = problem.make(folder, intervals=False)
        _, alone_s = cpu_timed(lambda: alone.fit(X, y))
        costs["times"] = fit_s / alone_s
    targets = [(qos, problem.learnt.index(qos)) for qos in problem.qos]
    return [costs | rate_target(model, qos, splits[k], k) for qos, k in targets]


def rate_target(model: Any, qos: str, split: Split, target: int) -> dict[str, float]:
    """Rate the predictions of one target on the test rows of its QoS."""
    tail = (1 - LEVEL) / 2
    X, y, users = split.X_test, split.y_test, split.X_test[:, 0]
    prediction = model.predict(X).reshape(len(y), -1)[:, target]
    quantiles = model.predict(X, quantiles=[tail, CAUTIOUS[qos], 1 - tail])
    low, cautious, high = quantiles.reshape(len(y), -1, 3)[:, target].T
    rated = {"mae": nan_mean_absolute_error(y, prediction)}
    rated |= rate_intervals(y, np.column_stack([low, high]), prediction, users)
    # A pipeline has no method of its own for probabilities.
    is_pipeline = isinstance(model, Pipeline)
    regressor, rows = (model[-1], model[:-1].transform(X)) if is_pipeline else (model, X)
    for name, limit in zip(("low_limit", "high_limit"), LIMITS[qos], strict=True):
        probability = regressor.predict_probability(rows, limit).reshape(len(y), -1)[:, target]
        rated |= rate_probability(y <= limit, probability, name)
    rated |= rate_choices(y, prediction, users, qos, "")
    return rated | rate_choices(y, cautious, users, qos, "_cautious")


def rate_intervals(
    y: np.ndarray, bounds: np.ndarray, prediction: np.ndarray, users: np.ndarray
) -> dict[str, float]:
    by_tenth = interval_coverage(y, bounds, by=prediction)
    by_user = interval_coverage(y, bounds, groups=users)
    n_cells = pd.Series(users).value_counts()
    by_user = by_user[n_cells[by_user.index] >= MIN_CELLS].sort_values()
    return {
        "coverage": interval_coverage(y, bounds),
        "lowest_tenth": by_tenth.min(),
        "highest_tenth": by_tenth.max(),
        "worst_users": by_user.quantile(0.05) if len(by_user) else np.nan,
        "winkler": winkler_score(y, bounds, confidence_level=LEVEL),
    }


def rate_probability(met: np.ndarray, probability: np.ndarray, name: str) -> dict[str, float]:
    """Compare probabilities with the share that met the limit: over all rows, and in tenths."""
    order = np.argsort(probability, kind="stable")
    off = [abs(met[rows].mean() - probability[rows].mean()) for rows in np.array_split(order, 10)]
    return {f"{name}_off": abs(met.mean() - probability.mean()), f"{name}_worst_tenth": max(off)}


def rate_choices(
    y: np.ndarray, prediction: np.ndarray, users: np.ndarray, qos: str, by: str
) -> dict[str, float]:
    direction = "minimize" if qos == "rt" else "maximize"
    ten = {"direction": direction, "n_services": N_SERVICES, "random_state": 0}
    regret = choice_regret(y, prediction, users, **ten)
    near = near_best_share(y, prediction, users, absolute=MARGIN[qos], **ten)
    return {f"regret{by}": regret, f"near_best{by}": near}


def run(problem: Problem, args: argparse.Namespace) -> None:
    folder = args.temporal if problem.cells == SLOT else args.data
    compare = problem.seed == args.seeds[0] and problem.cells not in ENTITIES
    rated = in_own_process(partial(rate, problem, folder, compare=compare))
    keys = [dict(zip(KEYS, key, strict=True)) for key in problem.row_keys()]
    rows = [{**key, **of_qos} for key, of_qos in zip(keys, rated, strict=True)]
    append_rows(args.out / "intervals.csv", rows)
    for row in rows:
        told = (f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items())
        print(", ".join(told), flush=True)


def problems(args: argparse.Namespace) -> Iterator[Problem]:
    for seed in args.seeds:
        if args.temporal:
            yield Problem(("rt",), SLOT, "TPMCFRegressor", seed)
        for cells in ENTITIES if args.entities else [GIVEN]:
            if args.data:
                for model in args.models:
                    groups = [tuple(args.qos)] if model in JOINT else [(qos,) for qos in args.qos]
                    yield from (Problem(qos, cells, model, seed) for qos in groups)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of WS-DREAM data set 1")
    parser.add_argument("--temporal", type=Path, help="folder of WS-DREAM data set 2")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--qos", nargs="+", default=QOS, choices=QOS)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--entities", action="store_true", help="hold users and services out")
    parser.add_argument("--fresh", action="store_true", help="replace earlier results")
    args = parser.parse_args(argv)
    path = args.out / "intervals.csv"
    done = open_results(path, KEYS, fresh=args.fresh)
    for problem in problems(args):
        if not done.issuperset(problem.row_keys()):
            run(problem, args)
    table = make_interval_table(read_rows(path))
    (args.out / "intervals.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
