"""New users with few measurements on WS-DREAM data set 1: what a model makes of them at once.

    python examples/benchmark_few_shot.py --data DIR --out results/
    python examples/benchmark_few_shot.py --table results/results.csv --out results/

A fifth of the users is held out of the 2.5 % training files of response time and throughput. Each
model is fitted to the rows of the others. Then it gets 0, 1, 3, 5, 10, 20 measurements of each
held-out user, and predicts the user's rows of the training file beyond the twentieth. No test file
is read.

"absorbed" models take the measurements in by `partial_fit` without training
(``partial_fit_epochs=0``), "trained" ones by `partial_fit` as it is by default, "refitted" ones by
another `fit`. Each model and seed adds lines to ``results.csv``; a run goes on where an earlier one
ended. ``few_shot.md`` and ``few_shot.png`` have the means over the seeds. Our models are fitted on
``--device``.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from _static_models import ours, r2sl, sa_moe, sharp_qos, uipcc
from sklearn.pipeline import Pipeline

from skqos.baselines import EmbeddingMLPRegressor, MedianRegressor
from skqos.benchmarks import Split
from skqos.benchmarks.fits import cpu_timed, join
from skqos.benchmarks.runs import append_rows, in_own_process, open_results, read_rows
from skqos.benchmarks.update_tables import average_few_shot, make_few_shot_table
from skqos.benchmarks.wsdream1 import read_split
from skqos.datasets import load_wsdream

QOS = ("rt", "tp")
N_MEASURED = (0, 1, 3, 5, 10, 20)
GRAPH = {
    "convolution": "hygcn",
    "n_layers": 1,
    "hidden_dim": 16,
    "edge_values": "sender_quantile",
    "edge_dropout": 0.5,
    "normalization": "row",
    "messages": "factors_and_context",
}
# Name, factory, whether all QoS are fitted at once, and how measurements are taken in.
MODELS: dict[str, tuple[Callable[..., Any], bool, tuple[str, ...]]] = {
    "SharpQoSRegressor, graph": (sharp_qos(**GRAPH), True, ("absorbed", "trained")),
    "SharpQoSRegressor, no graph": (sharp_qos(), True, ("absorbed", "trained")),
    "SAMoERegressor": (sa_moe(), False, ("absorbed", "trained")),
    "R2SLRegressor": (r2sl(), False, ("absorbed", "trained")),
    "EmbeddingMLPRegressor": (ours(EmbeddingMLPRegressor), False, ("absorbed", "trained")),
    "service median": (lambda *_: MedianRegressor(by="service"), False, ("refitted",)),
    "UPCC": (uipcc(1.0), False, ("refitted",)),
}


class Problem(NamedTuple):
    """A model and a seed, which also draws the new users; the fields are columns of the results."""

    model: str
    seed: int


class NewUsers(NamedTuple):
    """Rows of one QoS: of known users, and of new users in the order in which they are measured."""

    X: np.ndarray
    y: np.ndarray
    X_new: np.ndarray
    y_new: np.ndarray
    # How many earlier measurements of its user a row has.
    rank: np.ndarray

    def given(self, n: int) -> Split:
        """Return the first measurements of each new user, and what is to be predicted."""
        is_given, is_asked = self.rank < n, self.rank >= max(N_MEASURED)
        return Split(
            self.X_new[is_given], self.y_new[is_given], self.X_new[is_asked], self.y_new[is_asked]
        )


def hold_out(X: np.ndarray, y: np.ndarray, seed: int) -> NewUsers:
    """Hold out a fifth of the users; the order of their rows is random."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.unique(X[:, 0]))
    is_new = np.isin(X[:, 0], ids[: len(ids) // 5])
    rows = rng.permutation(np.flatnonzero(is_new))
    rank = pd.Series(X[rows, 0]).groupby(X[rows, 0]).cumcount().to_numpy()
    return NewUsers(X[~is_new], y[~is_new], X[rows], y[rows], rank)


def rows_of(parts: list[Split]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of one QoS, or of several side by side."""
    return join(parts)


def take_in(model: Any, how: str, known: list[Split], given: list[Split]) -> Any:
    """Return a model that knows further rows."""
    if how == "refitted":
        both = [
            Split(np.vstack([a.X, b.X]), np.concatenate([a.y, b.y]), a.X_test, None)
            for a, b in zip(known, given, strict=True)
        ]
        return model.fit(*rows_of(both))
    updated: Pipeline = pickle.loads(pickle.dumps(model))
    X, y = rows_of(given)
    if how == "absorbed":
        updated[-1].set_params(partial_fit_epochs=0)
    updated[-1].partial_fit(updated[:-1].transform(X), y)
    return updated


def measure(
    folder: Path, problem: Problem, joint: tuple[str, ...], device: str
) -> list[dict[str, Any]]:
    """Fit to some QoS at once; take in more and more measurements of the new users."""
    torch.set_num_threads(1)
    make, _, ways = MODELS[problem.model]
    data = load_wsdream(folder, qos=list(QOS))
    parts = []
    for qos in joint:
        split = read_split(folder, qos)
        parts.append(hold_out(split.X, split.y, problem.seed))
    known = [Split(part.X, part.y, part.X_new, None) for part in parts]
    model = make(data, joint[0], problem.seed)
    if isinstance(model, Pipeline):
        model[-1].set_params(device=device)
    model, fit_s = cpu_timed(lambda: model.fit(*rows_of(known)))
    rows = []
    for how in ways:
        for n in N_MEASURED:
            given = [part.given(n) for part in parts]
            taken, update_s = (model, 0.0)
            if n:
                taken, update_s = cpu_timed(partial(take_in, model, how, known, given))
            for k, (qos, part) in enumerate(zip(joint, given, strict=True)):
                found = taken.predict(part.X_test).reshape(len(part.y_test), -1)[:, k]
                errors = found - part.y_test
                rows.append(
                    {
                        **problem._asdict(),
                        "update": how,
                        "qos": qos,
                        "n_measured": n,
                        "mae": np.abs(errors).mean(),
                        "rmse": np.sqrt((errors**2).mean()),
                        "fit_s": fit_s / len(joint),
                        "update_s": update_s / len(joint),
                    }
                )
    return rows


def run(problem: Problem, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure a model, all QoS at once or one after the other, in processes of their own."""
    is_joint = MODELS[problem.model][1]
    groups = [tuple(args.qos)] if is_joint else [(qos,) for qos in args.qos]
    return [
        row
        for joint in groups
        for row in in_own_process(measure, args.data, problem, joint, args.device)
    ]


def missing(args: argparse.Namespace) -> Iterator[Problem]:
    """Problems that have no results yet."""
    path = args.out / "results.csv"
    keys = open_results(path, [*Problem._fields, "update", "qos"], fresh=args.fresh)
    there = {(model, seed, qos) for model, seed, _, qos in keys}
    problems = [Problem(model, seed) for seed in args.seeds for model in args.models]
    to_run = [one for one in problems if not {(*map(str, one), qos) for qos in args.qos} <= there]
    for position, problem in enumerate(to_run):
        print(f"[{position + 1}/{len(to_run)}] {problem.model}, seed {problem.seed}", flush=True)
        yield problem


def draw(errors: pd.DataFrame, path: Path) -> None:
    """Draw the errors over the number of measurements."""
    from matplotlib.figure import Figure

    kinds = errors.index.unique("qos")
    figure = Figure(figsize=(6 * len(kinds), 4.5), layout="constrained")
    for axes, qos in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        for (model, update), values in errors.loc[qos].iterrows():
            style = {"absorbed": "-", "trained": "--", "refitted": ":"}[update]
            axes.plot(values.index, values, style, marker="o", ms=3, label=f"{model}, {update}")
        axes.set(xlabel="measurements of each new user", ylabel=f"MAE of {qos}")
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xticks(errors.columns, map(str, errors.columns))
    axes.legend(fontsize="small", frameon=False)
    figure.savefig(path, dpi=150)


def main(argv: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of WS-DREAM data set 1")
    source.add_argument("--table", type=Path, nargs="+", help="results.csv of earlier runs")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and figure")
    parser.add_argument("--qos", nargs="+", default=list(QOS), choices=QOS)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--device", default="cpu", help="torch device of our models")
    parser.add_argument("--fresh", action="store_true", help="forget the results of the folder")
    args = parser.parse_args(argv)
    if args.data:
        for problem in missing(args):
            append_rows(args.out / "results.csv", run(problem, args))
    paths = args.table or [args.out / "results.csv"]
    errors = average_few_shot(pd.concat(map(read_rows, paths)))
    table = make_few_shot_table(errors)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "few_shot.md").write_text(table + "\n")
    draw(errors, args.out / "few_shot.png")
    print(table)
    return errors


if __name__ == "__main__":
    main()
