"""Intervals and choices on WS-DREAM: do 90 % intervals cover 90 %, and of whom?

    python examples/benchmark_intervals.py --data DIR --out results/
    python examples/benchmark_intervals.py --data DIR --out results/ --entities
    python examples/benchmark_intervals.py --temporal DIR --out results/

Each run adds lines to ``results/intervals.csv``, one for a model, a QoS and a seed, and goes on
where an earlier one ended; ``results/intervals.md`` has their means. DIR holds data set 1, the one
after ``--temporal`` data set 2: slot 63 is predicted from 10 % of the cells of eight slots.

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
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from _static_models import JOINT, make_model

from skqos import TPMCFRegressor
from skqos.benchmarks._split import Split
from skqos.benchmarks.fits import cpu_timed, join
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
MODELS = ["SAMoERegressor", "R2SLRegressor", "SharpQoSRegressor", "EmbeddingMLPRegressor"]


class Problem(NamedTuple):
    """A model whose intervals are rated on some cells; the fields are columns of the results."""

    qos: str
    cells: str
    model: str
    seed: int

    def read(self, folder: Path) -> tuple[Split, int]:
        """Return the rows, and which target is rated."""
        if self.cells == SLOT:
            cells = read_cells(folder)
            return make_split(cells, "imputation", density=0.10, given_share=0.20), 0
        split = self._read_qos(folder, self.qos)
        if self.model not in JOINT:
            return split, 0
        X, y = join([self._read_qos(folder, qos) for qos in QOS])
        return replace(split, X=X, y=y), QOS.index(self.qos)

    def make(self, folder: Path, *, intervals: bool) -> Any:
        if self.cells == SLOT:
            return TPMCFRegressor(random_state=self.seed, device="cpu", intervals=intervals)
        data = load_wsdream(folder, qos=self.qos)
        model = make_model(self.model, data, self.qos, self.seed)
        model[-1].set_params(intervals=intervals)
        return model

    def _read_qos(self, folder: Path, qos: str) -> Split:
        split = read_split(folder, qos)
        if self.cells == GIVEN:
            return split
        return hold_out(split, ENTITIES.index(self.cells), self.seed)


def rate(problem: Problem, folder: Path, *, compare: bool) -> dict[str, float]:
    """Fit, and rate the intervals; to compare, fit without them, too."""
    torch.set_num_threads(1)
    split, target = problem.read(folder)
    model = problem.make(folder, intervals=True)
    _, fit_s = cpu_timed(lambda: model.fit(split.X, split.y))
    rated = {"fit_s": fit_s, "times": np.nan}
    if compare:
        alone = problem.make(folder, intervals=False)
        _, alone_s = cpu_timed(lambda: alone.fit(split.X, split.y))
        rated["times"] = fit_s / alone_s
    tail = (1 - LEVEL) / 2
    X, y, users = split.X_test, split.y_test, split.X_test[:, 0]
    prediction = model.predict(X).reshape(len(y), -1)[:, target]
    cautious = CAUTIOUS[problem.qos]
    found = model.predict(X, quantiles=[tail, cautious, 1 - tail]).reshape(len(y), -1, 3)[:, target]
    bounds = found[:, [0, 2]]
    rated["mae"] = nan_mean_absolute_error(y, prediction)
    rated |= rate_intervals(y, bounds, prediction, users)
    # A pipeline has no method of its own for it.
    regressor, rows = (model, X) if problem.cells == SLOT else (model[-1], model[:-1].transform(X))
    for limit in LIMITS[problem.qos]:
        probability = regressor.predict_probability(rows, limit).reshape(len(y), -1)[:, target]
        rated |= rate_probability(y <= limit, probability, f"p{limit:g}")
    return (
        rated
        | rate_choices(y, prediction, users, problem.qos, "")
        | rate_choices(y, found[:, 1], users, problem.qos, "_cautious")
    )


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
    ten = {"direction": direction, "n_services": 10, "random_state": 0}
    regret = choice_regret(y, prediction, users, **ten)
    near = near_best_share(y, prediction, users, absolute=MARGIN[qos], **ten)
    return {f"regret{by}": regret, f"near_best{by}": near}


def run(problem: Problem, args: argparse.Namespace) -> None:
    folder = args.temporal if problem.cells == SLOT else args.data
    compare = problem.seed == args.seeds[0] and problem.cells not in ENTITIES
    rated = in_own_process(partial(rate, problem, folder, compare=compare))
    append_rows(args.out / "intervals.csv", [{**problem._asdict(), **rated}])
    told = ", ".join(f"{name} {value:.4g}" for name, value in rated.items())
    print(f"{problem}: {told}", flush=True)


def problems(args: argparse.Namespace) -> Iterator[Problem]:
    for seed in args.seeds:
        if args.temporal:
            yield Problem("rt", SLOT, "TPMCFRegressor", seed)
        for cells in ENTITIES if args.entities else [GIVEN]:
            if args.data:
                yield from (Problem(q, cells, m, seed) for m in args.models for q in args.qos)


def make_table(rows: pd.DataFrame) -> str:
    """Lay out the means over the seeds for docs/intervals.md."""
    keys = ["cells", "qos", "model"]
    means = rows.groupby(keys, sort=False).mean(numeric_only=True)
    seeds = rows.groupby(keys, sort=False).size()
    shown = pd.DataFrame(
        {
            "seeds": seeds,
            "covered": means["coverage"].map("{:.3f}".format),
            "by tenth": means["lowest_tenth"].map("{:.2f}".format)
            + " to "
            + means["highest_tenth"].map("{:.2f}".format),
            "worst users": means["worst_users"].map("{:.2f}".format),
            "Winkler": means["winkler"].map("{:.3g}".format),
            "probability off by": means.filter(regex="^p.*_off$").max(axis=1).map("{:.3f}".format),
            "regret": means["regret"].map("{:.3g}".format),
            "cautious": means["regret_cautious"].map("{:.3g}".format),
            "fit, times": means["times"].map("{:.2f}".format).replace("nan", ""),
        }
    )
    return shown.reset_index().to_markdown(index=False, disable_numparse=True)


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
    done = open_results(path, [*Problem._fields], fresh=args.fresh)
    for problem in problems(args):
        if tuple(map(str, problem)) not in done:
            run(problem, args)
    table = make_table(read_rows(path))
    (args.out / "intervals.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
