r"""Accuracy at one time slot of WS-DREAM data set 2, response time, every model on the same rows.

    python examples/benchmark_temporal.py --data DIR --out results/
    python examples/benchmark_temporal.py --data DIR --out results/ --protocol forecast
    python examples/benchmark_temporal.py --data DIR --out results/ --protocol forecast \
        --slot 56 --ahead 1 4 8
    python examples/benchmark_temporal.py --table results/results.csv --readme README.md

The first line runs all models, three seeds each, each in a process of its own, and leaves in
``results``: ``results.csv``, to which each result is added when it is there, so that a further run
goes on where this one ended, or adds another protocol; the predictions of the test cells;
``results.md`` with all tables; two figures. ``--jobs`` runs several processes at a time,
``--ablations`` the variants of ours too, the paper's training of many hours included, ``--models``
those that it names; ``--epochs`` cuts the training of ours short; ``--device cuda`` trains ours on
a GPU. The second line forecasts slot 63 from slots 55 to 62, the third forecasts slots 56, 59 and
63 from slots 48 to 55, with one fit. The last line puts the tables of one or more runs between the
marks that a file has for them.

DIR holds ``rtdata.txt`` or ``rtdata.txt.gz``: all measured cells, or a uniform share of them
(``--given-share``; by default all or a fifth, by the length of the file). Test cells are the same
for all protocols: the given cells of ``--slot`` that imputation does not train on.

- imputation: train on ``--density`` of the measured cells of the ``--window`` slots that end with
  the slot;
- forecast: train on as large a share of the ``--window`` slots before the slot;
- forecast_all: train on all given cells of those.

``--ahead`` tells how many slots after the training rows a forecast is for; 1 is ``--slot`` itself.

Density is the share of the measured cells, given or not. ``--window`` chooses the slots that train.
The models "window 1" to "window 16" change the length of the sequences alone: to fill all of 16
steps takes ``--window 16`` too, which is another task with its own baseline.

Models are given the training rows and the test cells' ids; the values of the test cells stay in
the process that scores. With ``--permute-test-labels`` they are shuffled first, results go to the
folder ``permuted`` of ``--out``, and all predictions stay as they are.

Errors are told on all test cells first, then without those that an isolation forest flags over all
values of the split, test labels included (`skqos.metrics.outlier_mask` with contamination 0.1, all
samples, seed 42), and without those that took 19.9 s or more. ``peak_mb`` is the largest resident
memory of the process that fitted and predicted: imports and data are in it.

The embedding MLP of `embedding_mlp.py` is the baseline. A run whose baseline is more than 2 %
worse than the figures below is not a fair run. `EmbeddingMLPRegressor` is the baseline with the
training recipe of this package, with four members and with one. It has no time: see
`PlainNetwork`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from _options import choose_models, costs, make_parser, parse, stop_if
from _report import report
from embedding_mlp import EmbeddingMLP

from skqos import TPMCFRegressor
from skqos.baselines import EmbeddingMLPRegressor, MedianRegressor
from skqos.benchmarks._split import Split
from skqos.benchmarks.accuracy import TEMPORAL, TIMEOUT, make_temporal_page
from skqos.benchmarks.fits import Fitted, cpu_timed, peak_memory
from skqos.benchmarks.peers import LightGBM
from skqos.benchmarks.runs import Task, in_own_process, log_to_stdout, measure
from skqos.benchmarks.scores import flag_outliers, score_errors
from skqos.benchmarks.tables import BASELINE
from skqos.benchmarks.wsdream2 import SlotCells, make_split, read_cells

FAMILIES = ("statistics", "factors", "similarity")
ABLATION_EPOCHS = 4
BOTH = {"modules": "both"}
# Each changes one thing; they share a shorter training, and are to be compared with one another.
ABLATIONS = {
    f"{ABLATION_EPOCHS} epochs": {},
    "GCMF only": {"modules": "gcmf"},
    "GCMF and PTE": BOTH,
    **{family: {"features": [family]} for family in FAMILIES},
    "all features": {"features": FAMILIES},
    "in-sample features": {"n_folds": None},
    "all features, autoencoder": {"features": FAMILIES, "similarity": "autoencoder"},
    "own weights": {**BOTH, "gcmf_weights": "own"},
    "normalised self-loops": {**BOTH, "self_loops": "normalised"},
    "graph alone in the sequence": {**BOTH, "initial_features": False},
    "no vectors": {"entity_dim": None},
    "no target features": {"target_features": False},
    "no history of pairs": {"pair_history": False},
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
BASELINE_ERRORS = {0: (0.8545, 2.791), 1: (0.8329, 2.757), 2: (0.8210, 2.719)}


def name_task(args: argparse.Namespace, ahead: int) -> str:
    part = "" if args.protocol == "forecast_all" else f" {args.density * 100:g} %"
    distance = "" if ahead == 1 else f", {ahead} ahead"
    return f"{args.protocol}{part} of slot {args.slot + ahead - 1} from {args.window}{distance}"


class Options(NamedTuple):
    """What the command line says of the models of ours."""

    epochs: int | None
    device: str


def code_tables(cells: SlotCells, split: Split) -> list[np.ndarray]:
    """Number the ids of the embedding MLP; a step after the last of training counts as that."""
    n_users, n_services, n_steps = cells.X.max(axis=0) + 1
    steps = np.minimum(np.arange(n_steps), split.X[:, 2].max())
    return [codes[:, np.newaxis] for codes in (np.arange(n_users), np.arange(n_services), steps)]


def tpmcf(**params: object) -> Callable[..., TPMCFRegressor]:
    """Make a regressor of ours, its training cut short if there are `epochs`."""

    def make(_: list[np.ndarray], seed: int, options: Options) -> TPMCFRegressor:
        short = {} if options.epochs is None else {"max_epochs": options.epochs}
        return TPMCFRegressor(**{"random_state": seed, "device": options.device, **params, **short})

    return make


def embedding_mlp(tables: list[np.ndarray], seed: int, _: Options) -> EmbeddingMLP:
    return EmbeddingMLP(tables, log=True, seed=seed, max_epochs=12, batch_size=512)


class PlainNetwork:
    """`EmbeddingMLPRegressor` on the user at a step and the service.

    A user at one step is an id, whose context is the user and the step. A step after the last of
    training counts as that. On a validation fold, this has a lower MAE than no steps or the service
    at a step (docs/tpmcf.md).
    """

    def __init__(self, **params: object) -> None:
        self.network = EmbeddingMLPRegressor(device="cpu", **params)

    def fit(self, X: np.ndarray, y: np.ndarray) -> PlainNetwork:
        self.last_step = X[:, 2].max()
        self.network.fit(self._describe(X), y)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.network.predict(self._describe(X))

    def _describe(self, X: np.ndarray) -> pd.DataFrame:
        users, services = X[:, 0], X[:, 1]
        steps = np.minimum(X[:, 2], self.last_step)
        return pd.DataFrame(
            {
                "user": users * (self.last_step + 1) + steps,
                "service": services,
                "user_code": pd.Categorical(users),
                "user_step": pd.Categorical(steps),
            }
        )


def plain_network(n_members: int) -> Callable[..., PlainNetwork]:
    """Make the plain network with a number of members."""
    return lambda _, seed, __: PlainNetwork(n_members=n_members, random_state=seed)


def lightgbm(tables: list[np.ndarray], seed: int, _: Options) -> LightGBM:
    # Also how the pair did at its other steps, and user and service at the same step.
    groups = ((0,), (1,), (0, 1), (0, 2), (1, 2))
    return LightGBM(tables, log=True, seed=seed, groups=groups)


OURS = {"TPMCFRegressor": tpmcf()}
DEFAULT = {
    "constant median": lambda *_: MedianRegressor(by="constant"),
    "service median": lambda *_: MedianRegressor(by="service"),
    "pair median": lambda *_: MedianRegressor(by="pair"),
    "LightGBM": lightgbm,
    BASELINE: embedding_mlp,
    "EmbeddingMLPRegressor": plain_network(4),
    "EmbeddingMLPRegressor, 1 member": plain_network(1),
    **OURS,
}
VARIANTS = {
    "TPMCF, paper": tpmcf(**TPMCFRegressor.PAPER_PARAMS),
    **{
        f"TPMCF, {name}": tpmcf(**{"max_epochs": ABLATION_EPOCHS, **params})
        for name, params in ABLATIONS.items()
    },
}
LAYOUT = replace(TEMPORAL, models=[*DEFAULT, *VARIANTS])


class Problem(NamedTuple):
    """One protocol and slot."""

    task: str

    def __str__(self) -> str:
        return self.task


def fit_task(
    name: str, seed: int, options: Options, tables: list[np.ndarray], splits: list[Split]
) -> list[Fitted]:
    """Make a model, fit it and predict: all that is done in a process of its own."""
    model = {**DEFAULT, **VARIANTS}[name](tables, seed, options)
    _, fit_s = cpu_timed(lambda: model.fit(splits[0].X, splits[0].y))
    found = (cpu_timed(lambda split=split: model.predict(split.X_test)) for split in splits)
    return [Fitted(prediction, fit_s, seconds, peak_memory()) for prediction, seconds in found]


def make_splits(cells: SlotCells, args: argparse.Namespace) -> dict[Problem, Split]:
    """Make the splits of all distances, which have the same training rows."""
    draw = args.protocol, args.density, args.given_share
    splits: dict[Problem, Split] = {}
    for ahead in args.ahead:
        tested = make_split(cells, *draw, args.slot + ahead - 1, args.window)
        trained = make_split(cells, *draw, args.slot, args.window)
        split = replace(tested, X=trained.X, y=trained.y)
        problem = Problem(name_task(args, ahead))
        splits[problem] = split.permuted() if args.permute_test_labels else split
        print(f"{problem}: {len(split.y):,} training rows, {len(split.y_test):,} test rows")
    return splits


def run(args: argparse.Namespace, models: list[str]) -> list[str]:
    """Run what has no results yet; return a line for each failure."""
    cells = read_cells(args.data)
    splits = make_splits(cells, args)
    blind = [split.blind() for split in splits.values()]
    tables = code_tables(cells, blind[0])
    options = Options(args.epochs, args.device)
    suffix = "" if args.epochs is None else f" ({args.epochs} epochs)"
    names = {name + suffix * (name in {**OURS, **VARIANTS}): name for name in models}

    def fit(task: Task) -> list[Fitted]:
        name = names[task.model]
        return in_own_process(fit_task, name, task.seed, options, tables, blind)

    @cache
    def kept(problem: Problem) -> dict[str, np.ndarray]:
        split = splits[problem]
        return {"_filtered": ~flag_outliers(split), "_answered": split.y_test < TIMEOUT}

    def rate(problem: Problem, fitted: Fitted) -> dict[str, float]:
        errors = score_errors(splits[problem].y_test, fitted.prediction, kept(problem))
        return errors | costs(fitted)

    tasks = [Task(name, seed, tuple(splits)) for seed in args.seeds for name in names]
    return measure(
        tasks,
        fit,
        rate,
        args.out / "results.csv",
        jobs=args.jobs,
        fresh=args.fresh,
        predictions=args.out,
    )


def warn_unless_fair(rows: pd.DataFrame) -> None:
    """Tell how the baseline stands against what it should be."""
    known = rows[
        (rows["task"] == BASELINE_TASK)
        & (rows["model"] == BASELINE)
        & rows["seed"].isin(BASELINE_ERRORS)
    ]
    if known.empty:
        return
    reference = np.mean([BASELINE_ERRORS[seed] for seed in known["seed"]], axis=0)
    mean = known[["mae", "rmse"]].mean().to_numpy()
    ratio = mean / reference
    print(
        f"baseline {mean[0]:.4f} / {mean[1]:.4f}, {ratio[0]:.3f} and {ratio[1]:.3f} of the "
        f"reference {reference[0]:.4f} / {reference[1]:.4f}"
    )
    if ratio.max() > 1.02:
        print("WARNING: the baseline is more than 2 % worse than that: not a fair run.")


def main(argv: list[str] | None = None) -> pd.DataFrame:
    parser = make_parser(__doc__.split("\n")[0], data_set=2)
    parser.add_argument(
        "--protocol", default="imputation", choices=["imputation", "forecast", "forecast_all"]
    )
    parser.add_argument("--density", type=float, default=0.10, help="share of the measured cells")
    parser.add_argument("--given-share", type=float, help="share of the measured cells in DIR")
    parser.add_argument("--slot", type=int, default=63, help="slot of the test cells")
    parser.add_argument("--window", type=int, default=8, help="slots that train")
    parser.add_argument("--ahead", type=int, nargs="+", default=[1], help="distances of forecasts")
    parser.add_argument("--epochs", type=int, help="max_epochs of ours")
    parser.add_argument("--device", default="cpu", help="torch device of ours, such as cuda")
    args = parse(parser, argv)
    if min(args.ahead) < 1 or (args.protocol == "imputation" and args.ahead != [1]):
        parser.error("--ahead must be at least 1, and is for forecasts")
    if args.density >= (args.given_share or 1):
        parser.error("--density must be below --given-share: the other given cells are the test")
    models = choose_models(parser, args, [*DEFAULT], [*VARIANTS])
    with log_to_stdout():
        failures = run(args, models) if args.data else []
        stop_if(failures, unless=args.out and args.out / "results.csv")
        rows, summary = report(
            args, "WS-DREAM data set 2", LAYOUT, make_temporal_page, "temporal published"
        )
    warn_unless_fair(rows)
    stop_if(failures)
    return summary


if __name__ == "__main__":
    main()
