"""Users and services that training never saw, on WS-DREAM data set 1.

    python examples/benchmark_cold_start.py --data DIR

Holds out a fifth of the users, then of the services, with all their measurements, trains on the
2.5 % training split less those rows, and scores the training and test rows of the held-out ones.
Unknown users are compared with the service median, unknown services with the constant median.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from _static_models import make_model

from skqos.baselines import MedianRegressor
from skqos.benchmarks._split import Split
from skqos.benchmarks.wsdream1 import hold_out, read_split
from skqos.datasets import load_wsdream
from skqos.metrics import nan_mean_absolute_error


def mean_absolute_error(model: object, split: Split) -> float:
    """Fit on the training rows and score on the others."""
    return nan_mean_absolute_error(split.y_test, model.fit(split.X, split.y).predict(split.X_test))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of WS-DREAM data set 1")
    parser.add_argument("--qos", nargs="+", default=["rt", "tp"], choices=["rt", "tp"])
    ours = ["SAMoERegressor", "R2SLRegressor", "SHARP-QoS, one QoS", "EmbeddingMLPRegressor"]
    ours += ["EmbeddingMLPRegressor, 1 member", "embedding MLP"]
    parser.add_argument("--models", nargs="+", default=ours)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    for qos in args.qos:
        data = load_wsdream(args.data, qos=qos)
        for column, what, by in ((0, "users", "service"), (1, "services", "constant")):
            split = hold_out(read_split(args.data, qos), column, args.seed)
            reference = mean_absolute_error(MedianRegressor(by=by), split)
            for name in args.models:
                model = make_model(name, data, qos, args.seed)
                mae = mean_absolute_error(model, split)
                print(
                    f"{qos} unknown {what}: {name} {mae:.4g}, {by} median {reference:.4g}, "
                    f"ratio {mae / reference:.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
