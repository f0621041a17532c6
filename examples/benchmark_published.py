"""UIPCC and PMF beside the published figures of WS-DREAM data set 1, test cells unfiltered.

    python examples/benchmark_published.py --data DIR [--out results] [--docs docs/baselines.md]
    python examples/benchmark_published.py --data DIR --scale

The published protocol: training cells, counted as a share of all cells, are drawn uniformly from
what was measured; all other measured cells are the test; users and services without a training
cell are left out of it. DIR holds the files of data set 1, complete or in part. With a part of
them, ``splits/rt_train_0.025.txt`` names a uniform draw, and response times, of which each user has
another share, are drawn and weighted per user: a user trains on as many more cells as on those of
the file in proportion, and counts in the test as much as there.

The means of users and of services have nothing to set: how far they are from the published ones
tells how much of a difference is due to the cells.

The second line measures time and memory: fit on 2.5 % of the cells, prediction of all pairs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from skqos.baselines import PMFRegressor, UIPCCRegressor
from skqos.benchmarks.baseline_table import PUBLISHED, add_ratios, make_baseline_table
from skqos.benchmarks.fits import peak_memory
from skqos.benchmarks.markdown import write_between_marks
from skqos.datasets import load_wsdream

SHAPE = (339, 5825)
# WSRec sets the weight of the user side per QoS.
USER_WEIGHT = {"rt": 0.1, "tp": 0.9}
MIN_TEST_CELLS = 30


def load(path: Path, qos: str) -> Bunch:
    """Load the given cells, and mark those of a uniform draw where only a part is given."""
    data = load_wsdream(path, qos=qos)
    positive = data.y > 0
    X, y = data.X[positive], data.y[positive]
    uniform = np.ones(len(y), dtype=bool)
    if qos == "rt" and len(y) < 0.9 * np.prod(SHAPE):
        drawn = np.loadtxt(path / "splits" / "rt_train_0.025.txt")[:, :2].astype(int)
        uniform = np.isin(X @ [SHAPE[1], 1], drawn @ [SHAPE[1], 1])
    return Bunch(X=X, y=y, uniform=uniform)


def draw(data: Bunch, density: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return training rows, test rows, and the weights of the latter."""
    rng = np.random.default_rng(seed)
    n_train = round(density * np.prod(SHAPE))
    uniform = rng.permutation(np.flatnonzero(data.uniform))
    train, rest = uniform[:n_train], ~data.uniform
    if data.uniform.all():
        return train, uniform[n_train:], np.ones(len(uniform) - n_train)
    users, share = data.X[:, 0], np.bincount(data.X[data.uniform, 0], minlength=SHAPE[0])
    more = [rng.permutation(np.flatnonzero(rest & (users == user))) for user in range(SHAPE[0])]
    wanted = share * max(0, n_train - len(uniform)) / len(uniform) + rng.random(SHAPE[0])
    available = [max(0, len(rows) - MIN_TEST_CELLS) for rows in more]
    more = [rows[: min(int(wanted[u]), available[u])] for u, rows in enumerate(more)]
    train = np.concatenate([train, *more])
    rest[train] = False
    test = np.flatnonzero(rest)
    return (
        train,
        test,
        (share / np.maximum(np.bincount(users[test], minlength=SHAPE[0]), 1))[users[test]],
    )


def predict_all(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, qos: str, models: list) -> dict:
    """Predict with every model; UIPCC is the weighted mean of its two ends."""
    upcc = UIPCCRegressor(user_weight=1.0).fit(X, y)
    by_users = upcc.predict(X_test)
    by_services = UIPCCRegressor(user_weight=0.0).fit(X, y).predict(X_test)
    weight = USER_WEIGHT[qos]
    predictions = {
        "user mean": pd.Series(upcc.user_means_, upcc.users_.ids_)[X_test[:, 0]].to_numpy(),
        "service mean": pd.Series(upcc.service_means_, upcc.services_.ids_)[
            X_test[:, 1]
        ].to_numpy(),
        "UPCC": by_users,
        "IPCC": by_services,
        "UIPCC": weight * by_users + (1 - weight) * by_services,
    }
    for name in models:
        if name.startswith("PMF, "):
            regularization = float(name.removeprefix("PMF, ")) / np.abs(y).mean()
            model = PMFRegressor(regularization=regularization, random_state=0)
            predictions[name] = model.fit(X, y).predict(X_test)
    predictions["PMF, default"] = PMFRegressor(random_state=0).fit(X, y).predict(X_test)
    return predictions


def compare(path: Path, seeds: list[int]) -> pd.DataFrame:
    """Return the errors of every model, averaged over seeds, and their ratios."""
    rows = []
    for (qos, density), published in sorted(PUBLISHED.items(), key=lambda item: -item[0][1]):
        data = load(path, qos)
        for seed in seeds:
            train, test, weights = draw(data, density, seed)
            X, y = data.X[train], data.y[train]
            known = np.ones(len(test), dtype=bool)
            for column in (0, 1):
                known &= np.isin(data.X[test, column], X[:, column])
            test, weights = test[known], weights[known]
            for name, prediction in predict_all(X, y, data.X[test], qos, list(published)).items():
                error = prediction - data.y[test]
                mae = np.average(np.abs(error), weights=weights)
                rmse = np.sqrt(np.average(error**2, weights=weights))
                rows.append((qos, density, name, mae, rmse))
                print(
                    f"{qos} {density:.1%} seed {seed} {name:13s} {mae:.4f} {rmse:.4f}", flush=True
                )
    frame = pd.DataFrame(rows, columns=["qos", "density", "model", "mae", "rmse"])
    means = frame.groupby(["qos", "density", "model"], sort=False).mean()
    ordered = means.sort_index(level=[0, 1], sort_remaining=False).reset_index()
    return add_ratios(ordered)


def measure_scale(path: Path) -> str:
    """Time UIPCC on 2.5 % of the cells and all pairs; the peak is that of the whole process."""
    data = load(path, "rt")
    train, _, _ = draw(data, 0.025, 0)
    pairs = np.argwhere(np.ones(SHAPE, dtype=bool))
    wall, cpu = time.perf_counter(), time.process_time()
    UIPCCRegressor().fit(data.X[train], data.y[train]).predict(pairs)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = peak_memory() * 1e6 / 2**20
    return f"{len(pairs):,} pairs: {wall:.1f} s ({cpu:.1f} s of CPU), peak {peak:.0f} MiB"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of WS-DREAM data set 1")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="folder for published_baselines.csv")
    parser.add_argument("--docs", type=Path, help="file to put the table into")
    parser.add_argument("--scale", action="store_true", help="time and memory instead of errors")
    options = parser.parse_args()
    if options.scale:
        print(measure_scale(options.data))
    else:
        found = compare(options.data, options.seeds)
        text = make_baseline_table(found)
        print(text)
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            found.to_csv(options.out / "published_baselines.csv", index=False)
        if options.docs:
            write_between_marks(options.docs, {"reproduced baselines": text})
