"""What `partial_fit` recovers of a full refit's gain, in which time, on WS-DREAM data set 1.

    python examples/benchmark_partial_fit.py --data DIR --out results
    python examples/benchmark_partial_fit.py --data DIR --new-entities --seeds 0
    python examples/benchmark_partial_fit.py --table results/results.csv --page docs/partial_fit.md
    python examples/benchmark_partial_fit.py --made-up

DIR holds the files of data set 1 and a folder ``splits``. Each model is fitted to the 2.5 %
training file of response time. As many further cells are drawn from rtMatrix.txt, outside the
training and the test file. `partial_fit` updates the model with them; the refit is fitted to both.
With the errors on the test file, the recovery is (before - updated) / (before - refit).

With ``--new-entities`` a tenth of the users, then of the services, are held out of the training
file. `partial_fit` gets half of their rows; the other half is scored, by the model that does not
know them, by the updated one, and by the median of the service, which knows the same rows. What
the update does to all others is scored on their cells of the test file.

Time is that of the process, which on a busy machine is fairer than the clock's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _static_models import with_context
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch

from skqos import R2SLRegressor, SAMoERegressor, SharpQoSRegressor
from skqos.baselines import EmbeddingMLPRegressor, MedianRegressor
from skqos.benchmarks import Split
from skqos.benchmarks.markdown import write_between_marks
from skqos.benchmarks.update_tables import make_update_tables
from skqos.benchmarks.wsdream1 import read_split
from skqos.datasets import load_wsdream, make_qos
from skqos.metrics import nan_mean_absolute_error

REGRESSORS = {
    regressor.__name__: regressor
    for regressor in (
        SAMoERegressor,
        R2SLRegressor,
        SharpQoSRegressor,
        EmbeddingMLPRegressor,
    )
}


@dataclass(frozen=True)
class Stream:
    """Rows to begin with, test rows, further rows, and the context of all."""

    data: Bunch
    split: Split
    X_new: np.ndarray
    y_new: np.ndarray


def read_stream(folder: Path, seed: int) -> Stream:
    """Draw as many further cells as there are training rows, outside both files."""
    split = read_split(folder, "rt")
    matrix = np.loadtxt(folder / "rtMatrix.txt")
    is_further = matrix > 0
    for X in (split.X, split.X_test):
        is_further[tuple(X.T)] = False
    X = np.argwhere(is_further)
    X = X[np.random.default_rng(seed).permutation(len(X))[: len(split.y)]]
    return Stream(load_wsdream(folder, qos="rt"), split, X, matrix[tuple(X.T)])


def make_up_stream(seed: int) -> Stream:
    """Make up measurements: a fifth to begin with, a fifth to come, the others to test."""
    data = make_qos(100, 300, density=0.3, random_state=0)
    first, new, test = np.split(
        np.random.default_rng(seed).permutation(len(data.y)),
        [len(data.y) // 5, len(data.y) // 5 * 2],
    )
    split = Split(data.X[first], data.y[first], data.X[test], data.y[test])
    return Stream(data, split, data.X[new], data.y[new])


def make_model(data: Bunch, name: str, seed: int) -> Pipeline:
    """Give a regressor all context."""
    return with_context(data, REGRESSORS[name](random_state=seed, device="cpu"))


def update(model: Pipeline, X: np.ndarray, y: np.ndarray) -> None:
    """Update the regressor at the end of a pipeline."""
    model[-1].partial_fit(model[:-1].transform(X), y)


def timed(task: Callable[[], object]) -> float:
    """Seconds that the process computes."""
    start = time.process_time()
    task()
    return time.process_time() - start


def measure_update(model: Pipeline, stream: Stream, n_updates: int) -> dict[str, float]:
    """Fit, refit and update."""
    split = stream.split

    def update_by_parts() -> None:
        parts = (np.array_split(values, n_updates) for values in (stream.X_new, stream.y_new))
        for X, y in zip(*parts, strict=True):
            update(model, X, y)

    def error(fitted: Pipeline) -> float:
        return nan_mean_absolute_error(split.y_test, fitted.predict(split.X_test))

    refit = clone(model)
    X_all = np.vstack([split.X, stream.X_new])
    y_all = np.concatenate([split.y, stream.y_new])
    row = {"fit_s": timed(lambda: model.fit(split.X, split.y)), "before": error(model)}
    row |= {"refit_s": timed(lambda: refit.fit(X_all, y_all)), "refit": error(refit)}
    row["update_s"] = timed(update_by_parts)
    row["updated"] = error(model)
    row["recovery"] = (row["before"] - row["updated"]) / (row["before"] - row["refit"])
    row["time"] = row["update_s"] / row["refit_s"]
    return row


def hold_out(split: Split, column: int, seed: int) -> Stream:
    """Hold a tenth of the entities out; half of their rows are new rows, half are test rows."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.unique(split.X[:, column]))
    held_out = np.isin(split.X[:, column], ids[: max(1, len(ids) // 10)])
    new, test = np.array_split(rng.permutation(np.flatnonzero(held_out)), 2)
    rest = Split(split.X[~held_out], split.y[~held_out], split.X[test], split.y[test])
    return Stream(Bunch(), rest, split.X[new], split.y[new])


def of_others(split: Split, stream: Stream, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Test cells of the entities that were not held out."""
    is_other = np.isin(split.X_test[:, column], np.unique(stream.split.X[:, column]))
    return split.X_test[is_other], split.y_test[is_other]


def measure_new_entities(
    model: Pipeline, stream: Stream, X_others: np.ndarray, y_others: np.ndarray
) -> dict[str, float]:
    """Score the rows of new entities, and of others, by the model before and after."""
    split = stream.split

    def score(fitted: Pipeline, name: str) -> dict[str, float]:
        return {
            name: nan_mean_absolute_error(split.y_test, fitted.predict(split.X_test)),
            f"others {name}": nan_mean_absolute_error(y_others, fitted.predict(X_others)),
        }

    row = score(model.fit(split.X, split.y), "before")
    update(model, stream.X_new, stream.y_new)
    median = MedianRegressor(by="service").fit(
        np.vstack([split.X, stream.X_new]), np.concatenate([split.y, stream.y_new])
    )
    error = nan_mean_absolute_error(split.y_test, median.predict(split.X_test))
    return row | score(model, "updated") | {"service median": error}


def run_all(args: argparse.Namespace) -> Iterator[dict]:
    for seed in args.seeds:
        stream = make_up_stream(seed) if args.made_up else read_stream(args.data, seed)
        for name in args.models:
            model = make_model(stream.data, name, seed)
            row = {"model": name, "seed": seed}
            if not args.new_entities:
                row |= {"new": "cells", "updates": args.updates}
                yield row | measure_update(model, stream, args.updates)
                continue
            for column, what in enumerate(("users", "services")):
                part = hold_out(stream.split, column, seed)
                others = of_others(stream.split, part, column)
                yield row | {"new": what} | measure_new_entities(clone(model), part, *others)


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """Run all models, tell each result at once, and keep what is done so far."""
    rows = []
    for row in run_all(args):
        rows.append(row)
        numbers = {name: value for name, value in row.items() if isinstance(value, float)}
        told = [f"{name} {value:.4g}" for name, value in numbers.items()]
        print(row["model"], "seed", row["seed"], "new", row["new"], *told, flush=True)
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_csv(args.out / "results.csv", index=False)
    return pd.DataFrame(rows)


def main(argv: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of WS-DREAM data set 1")
    source.add_argument("--made-up", action="store_true", help="small made-up data")
    source.add_argument("--table", type=Path, nargs="+", help="results.csv of earlier runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", choices=list(REGRESSORS), default=list(REGRESSORS))
    parser.add_argument("--updates", type=int, default=1, help="how many the new cells come in")
    parser.add_argument("--new-entities", action="store_true", help="hold out users and services")
    parser.add_argument("--out", type=Path, help="folder for results.csv")
    parser.add_argument("--page", type=Path, help="file to put the tables into")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    results = pd.concat(map(pd.read_csv, args.table)) if args.table else measure(args)
    tables = make_update_tables(results)
    print("\n\n".join(tables.values()))
    if args.page:
        write_between_marks(args.page, tables)
    return results


if __name__ == "__main__":
    main()
