"""What a GPU is worth: fits with the default parameters on one core and on a GPU.

    python examples/benchmark_gpu.py --static DIR --temporal DIR
    python examples/benchmark_gpu.py --static DIR --devices cpu --models SAMoERegressor --epochs 2

The folders hold data sets 1 and 2 of WS-DREAM. Training files are those at 2.5 % density, and for
TPMCF 10 % of the cells of eight time slots. "cuda, not recorded" trains without CUDA graphs. Times
are seconds of a clock, of one fit after another, without the start of the device.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pandas as pd
import torch
from sklearn.pipeline import make_pipeline

import skqos
from skqos import training
from skqos.benchmarks._split import Split
from skqos.benchmarks.fits import join
from skqos.benchmarks.wsdream1 import GIVEN_DENSITY, read_split
from skqos.benchmarks.wsdream2 import make_split, read_cells
from skqos.datasets import load_wsdream
from skqos.metrics import nan_mean_absolute_error
from skqos.preprocessing import ContextJoiner

QOS = {"SAMoERegressor": ["rt"], "R2SLRegressor": ["rt"], "SharpQoSRegressor": ["rt", "tp"]}
TEMPORAL = "TPMCFRegressor"
DEVICES = ("cpu", "cuda, not recorded", "cuda")


def read_splits(name: str, args: argparse.Namespace) -> list[Split]:
    """Read the split of each QoS of a model."""
    if name == TEMPORAL:
        return [make_split(read_cells(args.temporal), "imputation", density=0.10)]
    return [read_split(args.static, qos, GIVEN_DENSITY) for qos in QOS[name]]


def measure(name: str, device: str, splits: list[Split], args: argparse.Namespace) -> dict:
    """Fit a model on a device; return the seconds, and the error of each QoS."""
    epochs = {} if args.epochs is None else {"max_epochs": args.epochs}
    model = getattr(skqos, name)(device=device.split(",")[0], random_state=0, **epochs)
    if name != TEMPORAL:
        context = load_wsdream(args.static, qos="rt")
        model = make_pipeline(ContextJoiner(context.users, context.services), model)
    X, y = join(splits)
    with ExitStack() as stack:
        if device.endswith("not recorded"):
            stack.enter_context(mock.patch.object(training, "can_record", return_value=False))
        start = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - start
    predictions = [model.predict(split.X_test).reshape(len(split.X_test), -1) for split in splits]
    errors = {
        f"mae_{k}": nan_mean_absolute_error(split.y_test, predicted[:, k])
        for k, (split, predicted) in enumerate(zip(splits, predictions, strict=True))
    }
    return {"model": name, "device": device, "rows": len(y), "fit_s": seconds} | errors


def main(argv: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--static", type=Path, help="folder of WS-DREAM data set 1")
    parser.add_argument("--temporal", type=Path, help="folder of WS-DREAM data set 2")
    parser.add_argument("--models", nargs="+", choices=[*QOS, TEMPORAL])
    parser.add_argument("--devices", nargs="+", choices=DEVICES, default=DEVICES)
    parser.add_argument("--epochs", type=int, help="a shorter training")
    args = parser.parse_args(argv)
    folders = {**dict.fromkeys(QOS, args.static), TEMPORAL: args.temporal}
    models = args.models or [name for name, folder in folders.items() if folder is not None]
    if missing := [name for name in models if folders[name] is None]:
        parser.error(f"{', '.join(missing)}: the data is missing; see --static and --temporal")
    torch.set_num_threads(1)
    if any(device.startswith("cuda") for device in args.devices):
        torch.ones(1, device="cuda")  # Starts the device.
    found = []
    for name in models:
        splits = read_splits(name, args)
        for device in args.devices:
            found.append(measure(name, device, splits, args))
            print(found[-1], flush=True)
    return pd.DataFrame(found)


if __name__ == "__main__":
    main()
