"""What a parallel search is worth: GridSearchCV on several processes, and what they take to start.

    python examples/benchmark_parallel.py [--data DIR] [--jobs 2]

- `GridSearchCV` over 8 candidates with one process and with several, one thread in each: with
  fresh processes, which import everything first, and with those that are there already;
- what that import is made of, part by part, and the first fit after it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import pandas as pd
import torch
from joblib import parallel_config
from joblib.externals.loky import ProcessPoolExecutor, get_reusable_executor
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.utils import Bunch

from skqos import SAMoERegressor
from skqos.datasets import load_wsdream, make_qos
from skqos.model_selection import DensitySplit
from skqos.preprocessing import ContextJoiner

GRID = {"learning_rate": [1e-3, 2e-3, 3e-3, 5e-3], "input_dropout": [0.2, 0.4]}
# In the order in which a worker needs them; each is timed after those before it.
PARTS = ("pandas", "sklearn.base", "skqos", "torch", "skorch", "skqos.training")
FIRST_FIT = """
from skqos import SAMoERegressor
X, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [1.0, 2.0, 3.0, 4.0]
SAMoERegressor(max_epochs=1, first_stage_epochs=1, n_factors=1).fit(X, y)
"""
STOPWATCH = """
import json, sys, time
found = {}
for name, code in json.loads(sys.argv[1]).items():
    start = time.perf_counter()
    exec(code)
    found[name] = time.perf_counter() - start
print(json.dumps(found))
"""


def load(path: str | None) -> Bunch:
    """Rows to train on, their context joined, so that no table travels with a candidate."""
    if path:
        data, density = load_wsdream(path, qos="rt"), 0.025
    else:
        data, density = make_qos(200, 1000, density=0.2, random_state=0), 0.1
    splitter = DensitySplit(
        1, density=density, n_users=len(data.users), n_services=len(data.services), random_state=0
    )
    rows, _ = next(splitter.split(data.X))
    X = ContextJoiner(data.users, data.services).fit_transform(data.X[rows])
    return Bunch(X=X, y=data.y[rows])


def search_seconds(data: Bunch, epochs: int, n_jobs: int) -> float:
    """Time a search of 8 candidates on two folds, one thread per process."""
    model = SAMoERegressor(max_epochs=epochs, first_stage_epochs=epochs, random_state=0)
    cv = KFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(model, GRID, cv=cv, n_jobs=n_jobs, refit=False, error_score="raise")
    start = time.perf_counter()
    with parallel_config("loky", inner_max_num_threads=1):
        search.fit(data.X, data.y)
    return time.perf_counter() - start


def measure_searches(data: Bunch, epochs: int, n_jobs: int) -> dict[str, float]:
    """Time one process, fresh processes, and the same processes again."""
    torch.set_num_threads(1)
    # Not counted: what a first fit loads, which a running session has loaded.
    SAMoERegressor(max_epochs=1, first_stage_epochs=1).fit(data.X[:100], data.y[:100])
    found = {"1 process": search_seconds(data, epochs, 1)}
    get_reusable_executor().shutdown(wait=True)
    for state in ("fresh", "again"):
        found[f"{n_jobs} processes, {state}"] = search_seconds(data, epochs, n_jobs)
    return found


def measure_imports(repeats: int) -> dict[str, float]:
    """Time the parts of a worker's start, each in a new interpreter; the fastest of a few."""
    steps = {name: f"import {name}" for name in PARTS} | {"first fit": FIRST_FIT, "next": FIRST_FIT}
    command = [sys.executable, "-c", STOPWATCH, json.dumps(steps)]
    runs = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(repeats)
    ]
    return {name: min(run[name] for run in runs) for name in steps}


def measure_worker() -> dict[str, float]:
    """Time a process of joblib's from its start to the end of a first fit, and the next fit."""
    found = {}
    # Not the one that joblib keeps for its searches.
    with ProcessPoolExecutor(max_workers=1) as executor:
        for name in ("joblib worker, first fit", "joblib worker, next"):
            start = time.perf_counter()
            executor.submit(exec, FIRST_FIT, {}).result()
            found[name] = time.perf_counter() - start
    return found


def main(argv: list[str] | None = None) -> pd.Series:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of WS-DREAM data set 1; made-up data without it")
    parser.add_argument("--epochs", type=int, default=10, help="of either stage")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--repeats", type=int, default=3, help="of the imports")
    args = parser.parse_args(argv)
    data = load(args.data)
    print(f"{len(data.y):,} rows, 8 candidates, 2 folds, {args.epochs} epochs a stage")
    searches = pd.Series(measure_searches(data, args.epochs, args.jobs))
    for name, seconds in searches.items():
        print(f"{name:24s} {seconds:8.1f} s  {searches.iloc[0] / seconds:5.2f} times as fast")
    imports = pd.Series(measure_imports(args.repeats) | measure_worker())
    print("\nstart of a worker, seconds")
    print(imports.round(2).to_string())
    return pd.concat([searches, imports])


if __name__ == "__main__":
    main()
