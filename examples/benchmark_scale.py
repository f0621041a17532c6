"""How time and memory grow with the data: fits at 1, 3 and 10 times the size of WS-DREAM.

    python examples/benchmark_scale.py [--times 1 3] [--models R2SLRegressor] [--steps 100]
    python examples/benchmark_scale.py --parts 10 [--rows 1000000]
    torchrun --standalone --nproc-per-node 2 examples/benchmark_scale.py --inside --batch-size 1024

Users, services and so rows are made up (`make_qos`): at 10 times both sides of data set 1 there are
3,390 users, 58,250 services and 5 million rows. Each fit is measured in a process of its own. A
stage has one epoch of some steps: further ones would repeat them. Times are CPU seconds.

With `--parts` the rows are read from parquet files, a part at a time, by `partial_fit`, and the
error is told beside that of one fit to all rows. With `--inside` the first model and size are
measured in this process, as processes that share a fit need it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback

import skqos
from skqos.benchmarks.fits import cpu_timed, peak_memory
from skqos.datasets import make_qos
from skqos.metrics import nan_mean_absolute_error
from skqos.preprocessing import ContextJoiner
from skqos.training import ShuffledBatches

MODELS = ("SAMoERegressor", "R2SLRegressor", "SharpQoSRegressor", "TPMCFRegressor")
N_USERS, N_SERVICES, DENSITY = 339, 5825, 0.025
N_TIME_STEPS = 8
PREDICTED = 200_000
N_TEST = 50_000


class FirstBatches(ShuffledBatches):
    """The first batches of an epoch."""

    n_batches = 100

    def __iter__(self) -> Iterator[Any]:
        return islice(super().__iter__(), self.n_batches)


class StepTimes(Callback):
    """Train on the first batches only; keep the seconds and the number of rows of each."""

    # Callbacks are cloned: what is found belongs to all.
    found: list[tuple[float, int]] = []

    def on_train_begin(self, net: Any, **_: Any) -> None:
        net.iterator_train = FirstBatches

    def on_batch_begin(self, *_: Any, **__: Any) -> None:
        self.start_ = time.process_time()

    def on_batch_end(self, _: Any, batch: Any = None, training: bool = False, **__: Any) -> None:
        if training:
            self.found.append((time.process_time() - self.start_, len(batch[1])))


def make_rows(name: str, times: float) -> Any:
    """Make up measurements at so many times the users and services of WS-DREAM."""
    size = round(times * N_USERS), round(times * N_SERVICES)
    if name == "TPMCFRegressor":
        density = DENSITY / N_TIME_STEPS
        return make_qos(*size, density=density, n_time_steps=N_TIME_STEPS, random_state=0)
    return make_qos(*size, density=DENSITY, random_state=0)


def measure(
    name: str, times: float, n_steps: int, batch_size: int | None = None
) -> dict[str, float]:
    """Fit some steps with context, and predict."""
    torch.set_num_threads(1)
    data = make_rows(name, times)
    data_gb = peak_memory() / 1000
    FirstBatches.n_batches = n_steps
    epochs = {"max_epochs": 1} | ({"first_stage_epochs": 1} if name == "SAMoERegressor" else {})
    params = {"callbacks": [StepTimes()], "random_state": 0, "device": "cpu"}
    params |= {} if batch_size is None else {"batch_size": batch_size}
    model = getattr(skqos, name)(**epochs, **params)
    pipeline = make_pipeline(ContextJoiner(data.users, data.services), model)
    StepTimes.found.clear()
    _, fit_s = cpu_timed(lambda: pipeline.fit(data.X, data.y))
    seconds, rows = np.array(StepTimes.found).T
    n_rows = len(data.y)
    X = data.X[np.random.default_rng(0).permutation(n_rows)[:PREDICTED]]
    pipeline.predict(X[:1])  # Encodes all users and services.
    _, predict_s = cpu_timed(lambda: pipeline.predict(X))
    return {
        "rows": n_rows,
        "prepare_us_per_row": 1e6 * (fit_s - seconds.sum()) / n_rows,
        # The first step loads code; the median leaves it out.
        "step_us_per_row": 1e6 * float(np.median(seconds / rows)),
        "predict_us_per_row": 1e6 * predict_s / len(X),
        "data_gb": data_gb,
        "peak_gb": peak_memory() / 1000,
    }


def measure_apart(name: str, times: float, n_steps: int) -> dict[str, float]:
    """Measure in a process of its own: peak memory never falls within one."""
    options = ["--models", name, "--times", str(times), "--steps", str(n_steps), "--inside"]
    result = subprocess.run(
        [sys.executable, __file__, *options], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(result.stdout.splitlines()[-1])


def write_parts(X: np.ndarray, y: np.ndarray, n_parts: int, folder: Path) -> None:
    """Write rows to a number of parquet files."""
    frame = pd.DataFrame(X, columns=["user", "service"]).assign(rt=y)
    for k, rows in enumerate(np.array_split(np.arange(len(y)), n_parts)):
        frame.iloc[rows].to_parquet(folder / f"{k:03d}.parquet")


def read_parts(folder: Path) -> Iterator[tuple[pd.DataFrame, pd.Series]]:
    """Read X and y of one file at a time."""
    for path in sorted(folder.glob("*.parquet")):
        part = pd.read_parquet(path)
        yield part[["user", "service"]], part["rt"]


def compare_parts(name: str, n_rows: int, n_parts: int, device: str) -> dict[str, float]:
    """Fit rows part by part, and all at once; tell the errors, as multiples of the latter too."""
    torch.set_num_threads(1)
    density = min(1.0, (n_rows + N_TEST) / (N_USERS * N_SERVICES))
    data = make_qos(N_USERS, N_SERVICES, density=density, random_state=0)
    order = np.random.default_rng(0).permutation(len(data.y))
    train, test = order[:n_rows], order[n_rows:][:N_TEST]
    X_test = pd.DataFrame(data.X[test], columns=["user", "service"])
    y_test = data.y[test]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for parts in (n_parts, 1):
            path = Path(folder, str(parts))
            path.mkdir()
            write_parts(data.X[train], data.y[train], parts, path)
            model = getattr(skqos, name)(random_state=0, device=device)
            start = time.process_time()
            for X, y in read_parts(path):
                model.partial_fit(X, y)
            found[f"fit_s_{parts}"] = time.process_time() - start
            found[f"mae_{parts}"] = nan_mean_absolute_error(y_test, model.predict(X_test))
    return found | {"ratio": found[f"mae_{n_parts}"] / found["mae_1"]}


def main(argv: list[str] | None = None) -> list[dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--times", nargs="+", type=float, default=[1, 3])
    parser.add_argument("--steps", type=int, default=100, help="most steps of each stage")
    parser.add_argument("--parts", type=int, help="compare so many parts with one fit")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of all parts together")
    parser.add_argument("--device", default="cpu", help="device of the fits of --parts")
    parser.add_argument("--batch-size", type=int, help="rows per step, with --inside")
    parser.add_argument("--inside", action="store_true", help="measure in this process")
    args = parser.parse_args(argv)
    if args.inside:
        print(json.dumps(measure(args.models[0], args.times[0], args.steps, args.batch_size)))
        return []
    results = []
    for name in args.models:
        for times in [None] if args.parts else args.times:
            if args.parts:
                found = compare_parts(name, args.rows, args.parts, args.device)
            else:
                found = {"times": times} | measure_apart(name, times, args.steps)
            figures = ", ".join(f"{key} {value:.4g}" for key, value in found.items())
            print(f"{name}: {figures}", flush=True)
            results.append({"model": name} | found)
    return results


if __name__ == "__main__":
    main()
