"""Users and services that training never saw, on WS-DREAM data set 1.

    python examples/benchmark_cold_start.py --data DIR --out results

Holds out a fifth of the users, then of the services, with all their measurements, trains on the
2.5 % training split less those rows, and scores the training and test rows of the held-out ones.
Unknown users are compared with the service median, unknown services with the constant median.
Each result is added to ``cold_start.csv`` in the folder ``--out``, and a further run goes on where
this one ended.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from _static_models import make_model

from skqos.benchmarks._split import Split
from skqos.benchmarks.cold_start_table import make_cold_start_table
from skqos.benchmarks.runs import append_rows, open_results, read_rows
from skqos.benchmarks.wsdream1 import hold_out, read_split
from skqos.datasets import load_wsdream
from skqos.metrics import nan_mean_absolute_error

OURS = ["SAMoERegressor", "R2SLRegressor", "SHARP-QoS, one QoS", "EmbeddingMLPRegressor"]
OURS += ["EmbeddingMLPRegressor, 1 member", "embedding MLP"]
# Kind of entity: column of X, and the baseline.
HELD_OUT = {"users": (0, "service median"), "services": (1, "constant median")}


class Problem(NamedTuple):
    """A model and the entities that are held out; the fields are columns of the results."""

    split: str
    model: str
    seed: int


def list_problems(args: argparse.Namespace) -> list[Problem]:
    """List all fits, the baseline last."""
    return [
        Problem(f"wsdream1-{qos}-new-{what}", name, args.seed)
        for qos in args.qos
        for what, (_, baseline) in HELD_OUT.items()
        for name in [*args.models, baseline]
    ]


def measure(problem: Problem, folder: Path) -> float:
    """Return the MAE on the rows of entities that were held out."""
    _, qos, _, what = problem.split.split("-")
    split: Split = hold_out(read_split(folder, qos), HELD_OUT[what][0], problem.seed)
    model = make_model(problem.model, load_wsdream(folder, qos=qos), qos, problem.seed)
    prediction = model.fit(split.X, split.y).predict(split.X_test)
    return nan_mean_absolute_error(split.y_test, prediction)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of WS-DREAM data set 1")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--qos", nargs="+", default=["rt", "tp"], choices=["rt", "tp"])
    parser.add_argument("--models", nargs="+", default=OURS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="replace earlier results")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    path = args.out / "cold_start.csv"
    there = open_results(path, list(Problem._fields), fresh=args.fresh)
    for problem in list_problems(args):
        if tuple(map(str, problem)) not in there:
            row = {**problem._asdict(), "mae": measure(problem, args.data)}
            append_rows(path, [row])
            print(f"{problem.split}, {problem.model}: MAE {row['mae']:.4g}", flush=True)
    print(make_cold_start_table(read_rows(path)))


if __name__ == "__main__":
    main()
