"""Accuracy at one time slot of WS-DREAM data set 2, response time, every model on the same rows.

    python examples/benchmark_temporal.py --data DIR --out results
    python examples/benchmark_temporal.py --table results/results.csv --readme README.md
    python examples/benchmark_temporal.py --table results/results.csv --drop-timeouts

DIR holds ``rtdata.txt`` or ``rtdata.txt.gz``: all cells, or a uniform share of them
(``--given-share``). Without ``--models`` all of them run, the paper's training of many hours
included; ``--epochs`` cuts the training of ours short. Results and predictions are kept after each
model, and a further run into the same folder adds to them.

Test cells are the same for all protocols: the given cells of ``--slot`` that imputation does not
train on. No model sees their values: with ``--permute-test-labels`` all predictions stay as they
are.

- imputation: train on ``--density`` of all cells of the ``--window`` slots that end with the slot;
- forecast: train on as large a share of the ``--window`` slots before the slot;
- forecast_all: train on all given cells of those.

Density is the share of all cells, given or not. ``--window`` chooses the slots that train. The
models "window 1" to "window 16" change the length of the sequences alone: to fill all of 16 steps
takes ``--window 16`` too, which is another task with its own baseline.

Errors are told on all test cells first. ``--filtered`` leaves out those that an isolation forest
flags over all values of the split, test labels included (`skqos.metrics.outlier_mask` with
contamination 0.1, all samples, seed 42), ``--drop-timeouts`` those that took 19.9 s or more. Beside
both stands the constant median.

The embedding MLP of `embedding_mlp.py` is the baseline. A run whose baseline is more than 2 %
worse than the figures below is not a fair run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _benchmark import (
    ConstantMedian,
    ServiceMedian,
    Split,
    file_name,
    fit_and_predict,
    flag_outliers,
    make_parser,
    markdown,
    read_results,
    score,
    summarise,
    take_errors,
    tell,
    write_into,
)
from embedding_mlp import EmbeddingMLP

from skqos import TPMCFRegressor

TIMEOUT = 19.9
FAMILIES = ("statistics", "factors", "similarity")
ABLATION_EPOCHS = 4
# Each changes one thing; they share a shorter training, and are to be compared with one another.
ABLATIONS = {
    f"{ABLATION_EPOCHS} epochs": {},
    "GCMF only": {"modules": "gcmf"},
    "PTE only": {"modules": "pte"},
    **{family: {"features": [family]} for family in FAMILIES},
    "all features": {"features": FAMILIES},
    "in-sample features": {"n_folds": None},
    "all features, autoencoder": {"features": FAMILIES, "similarity": "autoencoder"},
    "own weights": {"step_weights": "own"},
    "normalised self-loops": {"self_loops": "normalised"},
    "graph alone in the sequence": {"initial_features": False},
    "no vectors": {"entity_dim": None},
    "no target features": {"target_features": False},
    "no step encoding": {"step_encoding": False},
    **{f"window {steps}": {"window": steps} for steps in (1, 4, 8, 16)},
    "features as tokens": {"token_dim": None},
    "two blocks": {"n_blocks": 2},
    "GRU": {"temporal": "gru"},
    "LSTM": {"temporal": "lstm"},
    "paper convolution": {"convolution": "paper"},
    "dropout": {"dropout": 0.2},
    "mean pooling": {"pooling": "mean"},
    "last pooling": {"pooling": "last"},
    "last slot only": {"target_steps": "last"},
    "no newcomers": {"newcomer_share": 0.0},
    "no forecasts": {"forecast_share": 0.0},
    "Cauchy": {"loss": "cauchy"},
    "Huber": {"loss": "huber"},
    "squared error": {"loss": "squared_error"},
    "absolute error": {"loss": "absolute_error"},
    "raw target": {"target_transform": None},
}
# The task whose baseline is known, and its MAE and RMSE by seed.
BASELINE_TASK = "imputation 10 % of slot 63 from 8"
BASELINE = {0: (0.8545, 2.791), 1: (0.8329, 2.757), 2: (0.8210, 2.719)}


class PairMedian(ServiceMedian):
    """The median of the pair's own training values, else of the service's, else of all."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> PairMedian:
        super().fit(X, y)
        self.pair_medians_ = pd.Series(y).groupby([X[:, 0], X[:, 1]]).median()
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        pairs = pd.MultiIndex.from_arrays([X[:, 0], X[:, 1]])
        own = self.pair_medians_.reindex(pairs).to_numpy()
        return np.where(np.isnan(own), super().predict(X), own)


@dataclass(frozen=True)
class Cells:
    """The measured cells, in the order of the file."""

    X: np.ndarray
    y: np.ndarray

    def slots(self, last: int, n: int) -> np.ndarray:
        """Return the rows of the last `n` slots up to `last`."""
        slot = self.X[:, 2]
        return np.flatnonzero((slot > last - n) & (slot <= last))


def read_cells(folder: Path) -> Cells:
    """Read the response times; their order decides which cells are drawn."""
    paths = [folder / name for name in ("rtdata.txt", "rtdata.txt.gz")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} holds neither rtdata.txt nor rtdata.txt.gz.")
    types = {0: np.int64, 1: np.int64, 2: np.int64, 3: np.float64}
    table = pd.read_csv(path, sep=" ", header=None, usecols=range(4), dtype=types)
    table = table[table[3] > 0]
    return Cells(table[[0, 1, 2]].to_numpy(), table[3].to_numpy())


def draw(n: int, share: float) -> np.ndarray:
    return np.random.default_rng(0).random(n) < share


def make_split(cells: Cells, args: argparse.Namespace) -> Split:
    """Draw training rows by the protocol; all protocols have the same test rows."""
    share = args.density / args.given_share
    rows = cells.slots(args.slot, args.window)
    drawn = draw(len(rows), share)
    test = rows[~drawn & (cells.X[rows, 2] == args.slot)]
    train = rows[drawn]
    if args.protocol != "imputation":
        train = cells.slots(args.slot - 1, args.window)
    if args.protocol == "forecast":
        train = train[draw(len(train), share)]
    return Split(cells.X[train], cells.y[train], cells.X[test], cells.y[test])


def name_task(args: argparse.Namespace) -> str:
    part = "" if args.protocol == "forecast_all" else f" {args.density * 100:g} %"
    return f"{args.protocol}{part} of slot {args.slot} from {args.window}"


def code_tables(cells: Cells, split: Split) -> list[np.ndarray]:
    """Number the ids of the embedding MLP; a step after the last of training counts as that."""
    n_users, n_services, n_steps = cells.X.max(axis=0) + 1
    steps = np.minimum(np.arange(n_steps), split.X[:, 2].max())
    return [codes[:, np.newaxis] for codes in (np.arange(n_users), np.arange(n_services), steps)]


def make_models(tables: list[np.ndarray], seed: int, epochs: int | None) -> dict:
    """Name every model of the benchmark."""

    def tpmcf(**params: object) -> TPMCFRegressor:
        if epochs is not None:
            params["max_epochs"] = epochs
        return TPMCFRegressor(**{"random_state": seed, "device": "cpu", **params})

    ours = {
        "TPMCFRegressor": tpmcf(),
        "TPMCF, paper": tpmcf(**TPMCFRegressor.PAPER_PARAMS),
        **{
            f"TPMCF, {name}": tpmcf(**{"max_epochs": ABLATION_EPOCHS, **params})
            for name, params in ABLATIONS.items()
        },
    }
    suffix = "" if epochs is None else f" ({epochs} epochs)"
    return {
        "constant median": ConstantMedian(),
        "service median": ServiceMedian(),
        "pair median": PairMedian(),
        "embedding MLP": EmbeddingMLP(tables, log=True, seed=seed, max_epochs=12, batch_size=512),
        **{f"{name}{suffix}": model for name, model in ours.items()},
    }


def run_all(args: argparse.Namespace) -> Iterator[dict]:
    """Yield a row of the results as soon as it is there."""
    cells = read_cells(args.data)
    split = make_split(cells, args)
    task = name_task(args)
    print(f"{task}: {len(split.y):,} training rows, {len(split.y_test):,} test rows", flush=True)
    if args.permute_test_labels:
        np.random.default_rng(0).shuffle(split.y_test)
    kept = {"_filtered": ~flag_outliers(split), "_answered": split.y_test < TIMEOUT}
    tables = code_tables(cells, split)
    for seed in args.seeds:
        for name, model in make_models(tables, seed, args.epochs).items():
            if args.models and name.split(" (")[0] not in args.models:
                continue
            prediction, times = fit_and_predict(model, split)
            if args.out:
                np.save(args.out / f"{file_name(f'{task} {name}')}-{seed}.npy", prediction)
            scores = score(split, prediction, kept)
            yield {"task": task, "model": name, "seed": seed, **scores, **times}


def measure(args: argparse.Namespace) -> list[dict]:
    """Run all models, tell each result at once, and add it to what the folder holds."""
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in run_all(args):
        rows.append(row)
        tell(row, "task")
        if args.out:
            path = args.out / "results.csv"
            pd.DataFrame([row]).to_csv(path, mode="a", header=not path.exists(), index=False)
    return rows


def drop_repeated(rows: list[dict]) -> list[dict]:
    """Keep the last result of each model and seed of a run."""
    key = ("run", "task", "model", "seed")
    return list({tuple(row.get(name) for name in key): row for row in rows}.values())


def warn_unless_fair(rows: list[dict]) -> None:
    """Tell how the baseline stands against what it should be."""
    found = [row for row in rows if (row["task"], row["model"]) == (BASELINE_TASK, "embedding MLP")]
    known = [row for row in found if row["seed"] in BASELINE]
    if not known:
        return
    reference = np.mean([BASELINE[row["seed"]] for row in known], axis=0)
    mean = np.mean([(row["mae"], row["rmse"]) for row in known], axis=0)
    ratio = mean / reference
    print(
        f"baseline {mean[0]:.4f} / {mean[1]:.4f}, {ratio[0]:.3f} and {ratio[1]:.3f} of the "
        f"reference {reference[0]:.4f} / {reference[1]:.4f}"
    )
    if ratio.max() > 1.02:
        print("WARNING: the baseline is more than 2 % worse than that: not a fair run.")


def make_table(summary: pd.DataFrame) -> str:
    """Write the summary as the README's table."""
    rows = [
        [
            task,
            model,
            f"{row['seeds']:.0f}",
            f"{row['mae']:.3f} ({row['mae_std']:.3f})",
            f"{row['rmse']:.3f}",
            f"{row['mae / MLP']:.3f}",
            f"{row['rmse / MLP']:.3f}",
            f"{row['fit_s']:.0f}",
            f"{row['fit_s / MLP']:.1f}",
            f"{row['pairs_per_s']:,.0f}",
        ]
        for (task, model), row in summary.iterrows()
    ]
    head = ["task", "model", "seeds", "MAE, s (deviation)", "RMSE, s", "MAE / MLP", "RMSE / MLP"]
    return markdown([*head, "fit, s", "fit / MLP", "pairs / s"], rows)


def main(argv: list[str] | None = None) -> pd.DataFrame:
    parser = make_parser(__doc__.split("\n")[0], data_set=2)
    parser.add_argument(
        "--protocol", default="imputation", choices=["imputation", "forecast", "forecast_all"]
    )
    parser.add_argument("--density", type=float, default=0.10, help="share of all cells")
    parser.add_argument("--given-share", type=float, default=0.20, help="share in the file")
    parser.add_argument("--slot", type=int, default=63, help="slot of the test cells")
    parser.add_argument("--window", type=int, default=8, help="slots that train")
    parser.add_argument("--epochs", type=int, help="max_epochs of ours")
    parser.add_argument("--drop-timeouts", action="store_true", help="errors without time-outs")
    args = parser.parse_args(argv)
    if args.filtered and args.drop_timeouts:
        parser.error("--filtered and --drop-timeouts are two tables: ask for one")
    if args.density >= args.given_share:
        parser.error("--density must be below --given-share: the other given cells are the test")
    torch.set_num_threads(args.threads)
    rows = drop_repeated(read_results(args.table) if args.table else measure(args))
    warn_unless_fair(rows)
    name = "temporal"
    for wanted, protocol in ((args.filtered, "filtered"), (args.drop_timeouts, "answered")):
        if wanted:
            name, rows = f"temporal {protocol}", take_errors(rows, f"_{protocol}")
    summary = summarise(rows, by="task", relative=("mae", "rmse", "fit_s"))
    print(summary.to_string(float_format="{:.4g}".format))
    if args.readme:
        write_into(args.readme, make_table(summary), name)
    return summary


if __name__ == "__main__":
    main()
