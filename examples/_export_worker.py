"""What a process that only predicts costs: started by `benchmark_export.py`.

    python _export_worker.py {OnnxPredictor,load_model} MODEL PAIRS OUT

MODEL is the file of the model, and PAIRS an ``.npz`` with the rows ``pair``, ``user`` and ``all``.
OUT receives ``costs.json`` and the predictions of ``all``. Nothing is imported before it is needed:
imports are a part of what is measured. The peak memory is that before ``all`` is read.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MIN_SECONDS = 0.3


def load(predictor: str, path: Path) -> Any:
    """Load a model in one of both ways."""
    if predictor == "OnnxPredictor":
        from skqos.export import OnnxPredictor

        return OnnxPredictor(path)
    from skqos.persistence import load_model

    return load_model(path)


def mean_seconds(task: Callable[[], object]) -> float:
    """Return the CPU seconds of a task, repeated until they can be measured."""
    n_runs, start = 0, time.process_time()
    while (seconds := time.process_time() - start) < MIN_SECONDS:
        task()
        n_runs += 1
    return seconds / n_runs


def read_peak_memory() -> float:
    """Return the peak memory so far in MB; NaN where Linux does not tell it."""
    # Not that of `skqos.benchmarks`, whose imports would count.
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def main(predictor: str, path: str, pairs: str, out: str) -> None:
    rows = np.load(pairs)
    pair, user = rows["pair"], rows["user"]
    model = load(predictor, Path(path))
    model.predict(pair)
    costs = {"start_s": time.process_time()}
    costs["pair_ms"] = 1e3 * mean_seconds(lambda: model.predict(pair))
    costs["user_ms"] = 1e3 * mean_seconds(lambda: model.predict(user))
    costs["peak_mb"] = read_peak_memory()
    every = rows["all"]
    start = time.process_time()
    prediction = model.predict(every)
    costs["pairs_us"] = 1e6 * (time.process_time() - start) / len(every)
    np.save(Path(out) / "prediction.npy", prediction)
    (Path(out) / "costs.json").write_text(json.dumps(costs))


if __name__ == "__main__":
    main(*sys.argv[1:])
