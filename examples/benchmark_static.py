"""Accuracy on the 2.5 % splits of WS-DREAM data set 1, every model on the same rows.

    python examples/benchmark_static.py --data DIR --out results
    python examples/benchmark_static.py --table results/*/results.csv --readme README.md
    python examples/benchmark_static.py --table results/*/results.csv --filtered

DIR holds the files of data set 1 and a folder ``splits`` with ``{rt,tp}_{train,test}_0.025.txt``
(lines ``user service value``). Test cells are not filtered and no model sees their values: with
``--permute-test-labels`` all predictions stay as they are.

The second line makes the README's table from the results of one or more runs. The third makes that
of the filtered protocol, R2SL's, from the same predictions: test cells that an isolation forest
flags over all values of the split, test labels included, do not count (`skqos.metrics.outlier_mask`
with contamination 0.1, all samples, seed 42).

The embedding MLP of `embedding_mlp.py` is the baseline. A run whose baseline is more than 2 %
worse than the figures below is not a fair run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
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
    timed,
    write_into,
)
from embedding_mlp import EmbeddingMLP, context_codes
from sklearn.pipeline import make_pipeline
from sklearn.utils import Bunch

from skqos import R2SLRegressor, SAMoERegressor, SharpQoSRegressor
from skqos.datasets import load_wsdream
from skqos.preprocessing import ContextJoiner

CONTEXT = ["country", "as", "region", "city", "subnet", "latitude", "longitude"]
# Context and kinds of region of the R2SL paper.
R2SL_CONTEXT = ["as", "city", "latitude", "longitude"]
NO_AUGMENTATION = {"refill_ratio": 0, "pseudo_label_ratio": 0}
ABLATION_EPOCHS = 15
SHARP_ABLATIONS = {
    "15 epochs": {},
    "GCN": {"convolution": "gcn"},
    "HyGCN": {"convolution": "hygcn"},
    "no convolution": {"convolution": "none"},
    "merged context": {"context_graphs": "merged"},
    "no SNR": {"routing": False},
    "no Cross-SNR": {"cross_routing": False},
    "head alone": {"convolution": "none", "routing": False, "cross_routing": False},
    "DWA": {"task_weighting": "dwa"},
    "uncertainty": {"task_weighting": "uncertainty"},
    "equal": {"task_weighting": "equal"},
    "messages from targets": {"disjoint_supervision": False},
    "no newcomers": {"newcomer_share": 0.0},
    "fixed features": {"fine_tune_features": False},
}
BASELINE_MAE = {"rt": 0.386, "tp": 15.48}


def with_context(data: Bunch, regressor: object) -> object:
    """Give a regressor all context of the benchmark."""
    context = ContextJoiner(data.users[CONTEXT], data.services[[*CONTEXT, "provider"]])
    return make_pipeline(context, regressor)


def make_models(data: Bunch, qos: str, seed: int) -> dict:
    """Name every model of the benchmark; ours get nothing that depends on the QoS."""

    def sa_moe(**params: object) -> object:
        return with_context(data, SAMoERegressor(random_state=seed, device="cpu", **params))

    def r2sl(**params: object) -> object:
        return with_context(data, R2SLRegressor(random_state=seed, device="cpu", **params))

    kinds = [name for name in CONTEXT if name not in ("latitude", "longitude")]
    return {
        "constant median": ConstantMedian(),
        "service median": ServiceMedian(),
        "embedding MLP": EmbeddingMLP(
            context_codes(data.users, data.services), log=qos == "rt", seed=seed
        ),
        "SAMoERegressor": sa_moe(),
        "MF-MoE": sa_moe(**NO_AUGMENTATION),
        # As many steps as the two stages of SAMoERegressor take: what is left is augmentation.
        "MF-MoE, all steps": sa_moe(**NO_AUGMENTATION, max_epochs=55),
        "SA-MoE-": sa_moe(pseudo_label_ratio=0),
        "SA-MoE, no refill": sa_moe(refill_ratio=0),
        "SA-MoE, paper": sa_moe(**SAMoERegressor.PAPER_PARAMS),
        "MF-MoE, paper": sa_moe(
            **{**SAMoERegressor.PAPER_PARAMS, **NO_AUGMENTATION, "max_epochs": 100}
        ),
        "R2SLRegressor": r2sl(),
        "R2SL, no city": r2sl(region_features=[kind for kind in kinds if kind != "city"]),
        "R2SL, no AS": r2sl(region_features=[kind for kind in kinds if kind != "as"]),
        "R2SL, city and AS": r2sl(region_features=["city", "as"]),
        "R2SL, no latent states": r2sl(region_features=[]),
        "R2SL, printed rate": r2sl(rate="printed"),
        "R2SL, absolute error": r2sl(loss="absolute_error"),
        "R2SL, squared error": r2sl(loss="squared_error"),
        "R2SL, Huber": r2sl(loss="huber"),
        "R2SL, printed E-Huber": r2sl(loss="e_huber_printed"),
        "R2SL, paper": make_pipeline(
            ContextJoiner(data.users[R2SL_CONTEXT], data.services[R2SL_CONTEXT]),
            R2SLRegressor(random_state=seed, device="cpu", **R2SLRegressor.PAPER_PARAMS),
        ),
        "SHARP-QoS, one QoS": with_context(
            data, SharpQoSRegressor(random_state=seed, device="cpu")
        ),
    }


def make_joint_models(data: Bunch, seed: int) -> dict:
    """Name the models that are fitted to all QoS at once."""

    def sharp(**params: object) -> object:
        return with_context(data, SharpQoSRegressor(random_state=seed, device="cpu", **params))

    return {
        "SharpQoSRegressor": sharp(),
        "SHARP-QoS, paper": sharp(**SharpQoSRegressor.PAPER_PARAMS),
        # Ablations share a shorter training, and are to be compared with one another.
        **{
            f"SHARP-QoS, {name}": sharp(max_epochs=ABLATION_EPOCHS, **params)
            for name, params in SHARP_ABLATIONS.items()
        },
    }


def read_split(path: Path, qos: str) -> Split:
    parts = []
    for part in ("train", "test"):
        rows = np.loadtxt(path / "splits" / f"{qos}_{part}_0.025.txt")
        parts += [rows[:, :2].astype(np.int64), rows[:, 2]]
    return Split(*parts)


def join(splits: dict[str, Split]) -> tuple[np.ndarray, np.ndarray]:
    """Training rows of all QoS, NaN for what a row does not tell."""
    X = np.concatenate([split.X for split in splits.values()])
    y = np.full((len(X), len(splits)), np.nan)
    start = 0
    for k, split in enumerate(splits.values()):
        y[start : start + len(split.y), k] = split.y
        start += len(split.y)
    return X, y


def run_alone(model: object, qos: str, split: Split) -> Iterator[tuple[str, np.ndarray, dict]]:
    """Fit and predict one QoS."""
    yield qos, *fit_and_predict(model, split)


def run_joint(model: object, splits: dict[str, Split]) -> Iterator[tuple[str, np.ndarray, dict]]:
    """Fit all QoS at once and predict each; the time of the fit is shared out among them."""
    X, y = join(splits)
    _, fit_s = timed(lambda: model.fit(X, y))
    for k, (qos, split) in enumerate(splits.items()):
        prediction, predict_s = timed(lambda split=split: model.predict(split.X_test))
        times = {"fit_s": fit_s / len(splits), "pairs_per_s": len(prediction) / predict_s}
        yield qos, prediction[:, k], times


def run_all(args: argparse.Namespace) -> Iterator[dict]:
    """Yield a row of the results as soon as it is there."""
    splits = {qos: read_split(args.data, qos) for qos in args.qos}
    data = load_wsdream(args.data, qos="rt")
    if args.permute_test_labels:
        for split in splits.values():
            np.random.default_rng(0).shuffle(split.y_test)
    outliers = {qos: flag_outliers(split) for qos, split in splits.items()}
    for seed in args.seeds:
        runs = [
            (name, lambda model=model, qos=qos: run_alone(model, qos, splits[qos]))
            for qos in args.qos
            for name, model in make_models(data, qos, seed).items()
        ]
        runs += [
            (name, lambda model=model: run_joint(model, splits))
            for name, model in make_joint_models(data, seed).items()
        ]
        for name, task in runs:
            if args.models and name not in args.models:
                continue
            for qos, prediction, times in task():
                if args.out:
                    np.save(args.out / f"{qos}-{file_name(name)}-{seed}.npy", prediction)
                scores = score(splits[qos], prediction, {"_filtered": ~outliers[qos]})
                yield {"qos": qos, "model": name, "seed": seed, **scores, **times}


UNITS = {"rt": ("response time, s", 3), "tp": ("throughput, kbps", 2)}


def make_table(summary: pd.DataFrame) -> str:
    """Write the summary as the README's table."""
    rows = []
    for (qos, model), row in summary.iterrows():
        unit, digits = UNITS[qos]
        mae, deviation, rmse = (f"{row[name]:.{digits}f}" for name in ("mae", "mae_std", "rmse"))
        rows.append(
            [
                unit,
                model,
                f"{row['seeds']:.0f}",
                f"{mae} ({deviation})",
                rmse,
                f"{row['mae / MLP']:.3f}",
                f"{row['fit_s']:.0f}",
                f"{row['fit_s / MLP']:.1f}",
            ]
        )
    head = ["QoS", "model", "seeds", "MAE (deviation)", "RMSE", "MAE / MLP", "fit, s", "fit / MLP"]
    return markdown(head, rows)


def measure(args: argparse.Namespace) -> list[dict]:
    """Run all models, tell each result at once, and keep what is done so far."""
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in run_all(args):
        rows.append(row)
        tell(row, "qos")
        if args.out:
            pd.DataFrame(rows).to_csv(args.out / "results.csv", index=False)
    return rows


def main(argv: list[str] | None = None) -> pd.DataFrame:
    parser = make_parser(__doc__.split("\n")[0], data_set=1)
    parser.add_argument("--qos", nargs="+", default=["rt", "tp"], choices=["rt", "tp"])
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    rows = read_results(args.table) if args.table else measure(args)
    summary = summarise(take_errors(rows, "_filtered") if args.filtered else rows, by="qos")
    print(summary.to_string(float_format="{:.4g}".format))
    for qos, reference in BASELINE_MAE.items():
        if (qos, "embedding MLP") in summary.index and not args.filtered:
            mae = summary.loc[(qos, "embedding MLP"), "mae"]
            print(f"{qos}: baseline {mae:.4g}, {mae / reference:.3f} of the reference {reference}")
    if args.readme:
        write_into(args.readme, make_table(summary), "filtered" if args.filtered else "results")
    return summary


if __name__ == "__main__":
    main()
