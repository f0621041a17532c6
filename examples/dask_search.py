"""Search and predict on a Dask cluster, with the grid search of scikit-learn.

python examples/dask_search.py                        two worker processes on this machine
python examples/dask_search.py --address tcp://...    a running scheduler
python examples/dask_search.py --data DIR             WS-DREAM data set 1

The script runs a grid search, for which the data is sent to each worker once, and then predicts all
pairs of a user and a service in parts, so that no process holds all of them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from dask.distributed import Client, LocalCluster
from joblib import parallel_config
from sklearn.base import BaseEstimator
from sklearn.model_selection import BaseCrossValidator, GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.utils import Bunch

from skqos import R2SLRegressor
from skqos.datasets import load_wsdream, make_qos
from skqos.model_selection import DensitySplit
from skqos.preprocessing import ContextJoiner

ROWS_PER_PART = 200_000


def search(
    model: BaseEstimator,
    grid: Mapping[str, Sequence[Any]],
    X: Any,
    y: Any,
    cv: BaseCrossValidator,
    **params: Any,
) -> GridSearchCV:
    """Search on the cluster of the current client.

    X, y and the rows of each split are sent to every worker once, before the search. joblib would
    also send them, but to one worker each, and the data of a lost worker could not be restored.
    """
    splits = list(cv.split(X, y))
    shared = [X, y, *(rows for split in splits for rows in split)]
    with parallel_config(backend="dask", scatter=shared):
        return GridSearchCV(model, grid, cv=splits, error_score="raise", **params).fit(X, y)


def predict_part(model: BaseEstimator, source: Path, target: Path) -> int:
    """Predict the pairs in a file, write them to another file, and return the number of rows."""
    pairs = pd.read_csv(source)
    # A model that was fitted to an array needs an array.
    X = pairs if hasattr(model, "feature_names_in_") else pairs.to_numpy()
    pairs.assign(prediction=model.predict(X)).to_csv(target, index=False)
    return len(pairs)


def predict_parts(
    client: Client, model: BaseEstimator, sources: Sequence[Path], folder: Path
) -> list[Path]:
    """Predict files of pairs on all workers, and write files of the same names to a folder.

    The model is sent to every worker once. A worker keeps one part in memory at a time.
    """
    on_workers = client.scatter(model, broadcast=True)
    targets = [folder / source.name for source in sources]
    client.gather(client.map(predict_part, [on_workers] * len(sources), sources, targets))
    return targets


def predict_partition(pairs: pd.DataFrame, model: BaseEstimator) -> pd.Series:
    """Predict one partition of a Dask dataframe; a filter may have left no row in it."""
    values = model.predict(pairs) if len(pairs) else []
    return pd.Series(values, index=pairs.index, name="prediction", dtype=float)


def predict_frame(client: Client, model: BaseEstimator, pairs: Any) -> Any:
    """Predict a Dask dataframe of pairs; return a Dask series, computed when it is asked for.

    The model goes to every worker once.
    """
    on_workers = client.scatter(model, broadcast=True)
    meta = pd.Series(name="prediction", dtype=float)
    return pairs.map_partitions(predict_partition, on_workers, meta=meta)


def write_pairs(users: pd.Index, services: pd.Index, folder: Path, n_rows: int) -> list[Path]:
    """Write files with all pairs of users and services, each for a part of the users."""
    n_users = max(1, n_rows // len(services))
    paths = []
    for start in range(0, len(users), n_users):
        part = pd.MultiIndex.from_product(
            [users[start : start + n_users], services], names=["user", "service"]
        )
        paths.append(folder / f"{start:08d}.csv")
        part.to_frame().to_csv(paths[-1], index=False)
    return paths


def load(args: argparse.Namespace) -> Bunch:
    """Load training rows as a frame of ids and context."""
    if args.data:
        data, density = load_wsdream(args.data, qos="rt"), 0.025
    else:
        data = make_qos(args.n_users, args.n_services, density=0.4, random_state=0)
        density = 0.3
    splitter = DensitySplit(
        1, density=density, n_users=len(data.users), n_services=len(data.services), random_state=0
    )
    rows, _ = next(splitter.split(data.X))
    joiner = ContextJoiner(data.users, data.services)
    # Joined here once; in a pipeline, the tables would be sent with every candidate.
    return Bunch(
        X=joiner.fit_transform(data.X[rows]),
        y=data.y[rows],
        joiner=joiner,
        users=data.users.index,
        services=data.services.index,
    )


def main(argv: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--address", help="address of a scheduler; default: a local cluster")
    parser.add_argument("--workers", type=int, default=2, help="processes of the local cluster")
    parser.add_argument("--data", help="folder of WS-DREAM data set 1; default: synthetic data")
    parser.add_argument(
        "--out", help="folder for predictions, shared by the workers; default: not kept"
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--n-users", type=int, default=100, help="of synthetic data")
    parser.add_argument("--n-services", type=int, default=200, help="of synthetic data")
    args = parser.parse_args(argv)
    data = load(args)
    if args.address:
        with Client(args.address) as client:
            return run(client, data, args)
    # One thread each, because fits in threads that share torch's random state are not reproducible.
    with (
        LocalCluster(
            n_workers=args.workers, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        return run(client, data, args)


def run(client: Client, data: Bunch, args: argparse.Namespace) -> pd.DataFrame:
    """Search, then predict all pairs."""
    if args.out:
        Path(args.out).mkdir(parents=True, exist_ok=True)
    found = search(
        R2SLRegressor(max_epochs=args.epochs, random_state=0),
        {"learning_rate": [1e-3, 3e-3], "n_states": [2, 3]},
        data.X,
        data.y,
        KFold(2, shuffle=True, random_state=0),
        scoring="neg_mean_absolute_error",
    )
    results = pd.DataFrame(found.cv_results_)[["params", "mean_test_score", "rank_test_score"]]
    print(results.to_string(index=False))
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        pairs, predictions = Path(folder, "pairs"), Path(args.out or folder, "predictions")
        pairs.mkdir()
        predictions.mkdir(exist_ok=True)
        # Both steps are fitted, and X contains only ids from here on.
        model = make_pipeline(data.joiner, found.best_estimator_)
        sources = write_pairs(data.users, data.services, pairs, ROWS_PER_PART)
        parts = predict_parts(client, model, sources, predictions)
        n_rows = sum(len(pd.read_csv(part)) for part in parts)
        print(f"{n_rows:,} pairs predicted in {len(parts)} part(s)")
        fastest = pd.concat([pd.read_csv(part).nsmallest(3, "prediction") for part in parts])
        print(fastest.nsmallest(3, "prediction").to_string(index=False))
    return results


if __name__ == "__main__":
    main()
