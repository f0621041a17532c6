"""What an exported model costs beside the model itself: file, start, memory and latency.

    python examples/benchmark_export.py --data DIR --out results
    python examples/benchmark_export.py --data DIR --out results --models SAMoERegressor

DIR holds the folders ``wsdream1`` and ``wsdream2``. Each model is fitted with its default
parameters and all context at a density of 2.5 %, TPMCF to 10 % of the cells of eight slots. It is
saved by `skqos.persistence.save_model` and exported by `skqos.export.to_onnx`. Then
`_export_worker.py` measures each of both files in a process of its own that only predicts:

- ``start_s``: CPU seconds of the imports, of loading and of the first prediction;
- ``pair_ms``, ``user_ms``: one pair, and one user with all services;
- ``peak_mb``: the peak memory of the process until then;
- ``pairs_us``: microseconds per pair of all pairs of known users and services and of one unknown
  user and service.

``export_s`` are the CPU seconds of the export, and ``difference`` is the largest relative
difference between the predictions of all pairs. Each model adds two rows to ``export.csv`` in the
folder ``--out``. A further run goes on where this one ended; models that are saved there are not
fitted again. All runs are on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline

from skqos import R2SLRegressor, SAMoERegressor, SharpQoSRegressor, TPMCFRegressor
from skqos.baselines import EmbeddingMLPRegressor
from skqos.benchmarks import Split, load_split
from skqos.benchmarks.export_tables import make_export_tables
from skqos.benchmarks.fits import cpu_timed, join
from skqos.benchmarks.runs import append_rows, in_own_process, open_results, read_rows
from skqos.export import to_onnx
from skqos.persistence import load_model, save_model
from skqos.preprocessing import ContextJoiner

STATIC, BOTH = ("wsdream1-rt-0.025",), ("wsdream1-rt-0.025", "wsdream1-tp-0.025")
# Regressors, and the splits that they are fitted to at once.
MODELS = {
    regressor.__name__: (regressor, splits)
    for regressor, splits in (
        (SAMoERegressor, STATIC),
        (R2SLRegressor, STATIC),
        (SharpQoSRegressor, BOTH),
        (EmbeddingMLPRegressor, STATIC),
        (TPMCFRegressor, ("wsdream2-rt-imputation-0.1",)),
    )
}
SUFFIXES = {"OnnxPredictor": ".onnx", "load_model": ".skqos"}
KEYS = ["model", "predictor"]
WORKER = Path(__file__).with_name("_export_worker.py")


def fit(name: str, splits: list[Split], options: dict[str, Any], path: Path) -> None:
    """Fit a model, and save it."""
    model = MODELS[name][0](device="cpu", **options)
    if splits[0].users is not None:
        model = make_pipeline(ContextJoiner(splits[0].users, splits[0].services), model)
    save_model(model.fit(*join(splits)), path)


def export(saved: Path, path: Path) -> float:
    """Export a saved model; return the CPU seconds."""
    model = load_model(saved)
    return cpu_timed(lambda: to_onnx(model, path))[1]


def list_pairs(splits: list[Split]) -> dict[str, np.ndarray]:
    """Return the rows of one pair, of one user, and of all pairs with an unknown one of each."""
    X = np.concatenate([split.X for split in splits])
    context = (splits[0].users, splits[0].services)
    users, services = (
        np.append(ids, ids.max() + 1)
        for ids in (
            np.unique(X[:, column]) if table is None else table.index.to_numpy()
            for column, table in enumerate(context)
        )
    )
    # Of the last time step, if there are time steps.
    times = [[X[:, 2].max()]] if X.shape[1] == 3 else []
    pairs = np.stack(np.meshgrid(users, services, *times, indexing="ij"), axis=-1)
    pairs = pairs.reshape(len(users), len(services), -1)
    return {"pair": pairs[0, :1], "user": pairs[0], "all": pairs.reshape(-1, pairs.shape[-1])}


def measure(predictor: str, path: Path, pairs: Path) -> tuple[dict[str, float], np.ndarray]:
    """Measure a file in a process that only predicts; return the costs and the predictions."""
    with TemporaryDirectory() as out:
        command = [sys.executable, str(WORKER), predictor, str(path), str(pairs), out]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        costs = json.loads((Path(out) / "costs.json").read_text())
        return {"file_mb": path.stat().st_size / 1e6, **costs}, np.load(f"{out}/prediction.npy")


def run(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Fit, export and measure a model; return a row for each predictor."""
    splits = [load_split(split, args.data) for split in MODELS[name][1]]
    paths = {predictor: args.out / f"{name}{suffix}" for predictor, suffix in SUFFIXES.items()}
    if not paths["load_model"].exists():
        options = {"random_state": args.seed} | ({"max_epochs": args.epochs} if args.epochs else {})
        in_own_process(fit, name, splits, options, paths["load_model"])
    seconds = in_own_process(export, paths["load_model"], paths["OnnxPredictor"])
    pairs = args.out / "pairs.npz"
    np.savez(pairs, **list_pairs(splits))
    found = {predictor: measure(predictor, path, pairs) for predictor, path in paths.items()}
    pairs.unlink()
    (_, exported), (_, original) = found.values()
    smallest = np.finfo(float).tiny
    difference = np.max(np.abs(exported - original) / np.maximum(np.abs(original), smallest))
    extra = {
        "OnnxPredictor": {"export_s": seconds, "difference": difference},
        "load_model": {"export_s": np.nan, "difference": np.nan},
    }
    return [
        {"model": name, "predictor": predictor, **costs, **extra[predictor]}
        for predictor, (costs, _) in found.items()
    ]


def main(argv: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of both data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and models")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="max_epochs of the fits, for a trial")
    parser.add_argument("--fresh", action="store_true", help="replace earlier results and models")
    args = parser.parse_args(argv)
    # Read by torch and the linear algebra when a process loads them.
    os.environ["OMP_NUM_THREADS"] = "1"
    path = args.out / "export.csv"
    if args.fresh:
        for name in args.models:
            (args.out / f"{name}{SUFFIXES['load_model']}").unlink(missing_ok=True)
    there = open_results(path, KEYS, fresh=args.fresh)
    for name in args.models:
        if (name, "load_model") in there:
            print(f"{name}: skipped, its results are there", flush=True)
            continue
        append_rows(path, run(name, args))
    rows = read_rows(path)
    print("\n\n".join(make_export_tables(rows).values()))
    return rows


if __name__ == "__main__":
    main()
