"""Time and memory of one epoch of TPMCF on all slots of WS-DREAM data set 2.

    python examples/benchmark_temporal_scale.py --data DIR

Trains on a share of the given response times of all slots, by default on half of them and on a
quarter, for one epoch of each stage. Each share is measured in a process of its own, of which the
peak memory is told: what reading the file takes is in it, and told beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from skqos import TPMCFRegressor
from skqos.benchmarks.fits import peak_memory
from skqos.benchmarks.wsdream2 import draw, read_cells


def measure(data: Path, share: float, threads: int) -> dict[str, float]:
    """Fit one epoch of each stage of the paper to a share of the cells."""
    torch.set_num_threads(threads)
    cells = read_cells(data)
    rows = draw(len(cells.y), share)
    X, y = cells.X[rows], cells.y[rows]
    del cells, rows
    read_gb = peak_memory() / 1000
    params = {"modules": "both", "n_folds": 5, "max_epochs": 1, "gcmf_epochs": 1}
    model = TPMCFRegressor(**params, random_state=0, device="cpu")
    few = slice(None, None, max(1, len(y) // 1000))
    model.fit(X[few], y[few])  # Loads the libraries.
    start = time.perf_counter()
    model.fit(X, y)
    fit_s = time.perf_counter() - start
    epochs = model.history_.groupby("stage")["duration"].mean()
    return {
        "rows": len(y),
        "fit_s": fit_s,
        **{f"{stage}_epoch_s": seconds for stage, seconds in epochs.items()},
        "read_gb": read_gb,
        "peak_gb": peak_memory() / 1000,
    }


def measure_apart(data: Path, share: float, threads: int) -> dict[str, float]:
    """Measure in a process of its own: peak memory never falls within one."""
    options = ["--data", str(data), "--shares", str(share), "--threads", str(threads)]
    command = [sys.executable, __file__, *options, "--inside"]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> list[dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of WS-DREAM data set 2")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.25, 0.5])
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.inside:
        print(json.dumps(measure(args.data, args.shares[0], args.threads)))
        return []
    results = []
    for share in args.shares:
        results.append(measure_apart(args.data, share, args.threads))
        figures = ", ".join(f"{name} {value:.4g}" for name, value in results[-1].items())
        print(f"{share:g} of the given cells: {figures}", flush=True)
    for result in results[1:]:
        ratios = ", ".join(f"{name} {result[name] / results[0][name]:.2f}" for name in results[0])
        print(f"relative to the first: {ratios}")
    return results


if __name__ == "__main__":
    main()
