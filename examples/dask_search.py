"""Search and predict on a Dask cluster: scikit-learn's own search, its fits on other machines.

python examples/dask_search.py                        two worker processes on this machine
python examples/dask_search.py --address tcp://...    a scheduler that runs already
python examples/dask_search.py --data DIR             WS-DREAM data set 1

First a grid search whose data travels to each worker once, then predictions for all pairs of a user
and a service, part by part: no process ever holds all of them.
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

    What every candidate needs goes to every worker, once, ahead of the search: X, y and the rows
    of each split. joblib would send them by itself, but to one worker each, and what a lost worker
    alone held cannot be had again.
    """
    splits = list(cv.split(X, y))
    shared = [X, y, *(rows for split in splits for rows in split)]
    with parallel_config(backend="dask", scatter=shared):
        return GridSearchCV(model, grid, cv=splits, error_score="raise", **params).fit(X, y)


def predict_part(model: BaseEstimator, source: Path, target: Path) -> int:
    """Predict one file of pairs and write another; return the number of rows."""
    pairs = pd.read_csv(source)
    # A model that was fitted to an array takes an array.
    X = pairs if hasattr(model, "feature_names_in_") else pairs.to_numpy()
    pairs.assign(prediction=model.predict(X)).to_csv(target, index=False)
    return len(pairs)


def predict_parts(
    client: Client, model: BaseEstimator, sources: Sequence[Path], folder: Path
) -> list[Path]:
    """Predict files of pairs on all workers, into files of the same names in a folder.

    The model goes to every worker once. A worker holds one part at a time.
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
    """Write all pairs of a user and a service, some users at a time."""
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
    """Rows to train on, as a frame of ids and their context."""
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
    # Joined once, here: in a pipeline the tables would travel with every candidate.
    return Bunch(
        X=joiner.fit_transform(data.X[rows]),
        y=data.y[rows],
        joiner=joiner,
        users=data.users.index,
        services=data.services.index,
    )


def main(argv: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--address", help="of a scheduler; a local cluster without it")
    parser.add_argument("--workers", type=int, default=2, help="processes of the local cluster")
    parser.add_argument("--data", help="folder of WS-DREAM data set 1; made-up data without it")
    parser.add_argument("--out", help="folder for predictions, which the workers share; none kept")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--n-users", type=int, default=100, help="of made-up data")
    parser.add_argument("--n-services", type=int, default=200, help="of made-up data")
    args = parser.parse_args(argv)
    data = load(args)
    if args.address:
        with Client(args.address) as client:
            return run(client, data, args)
    # One thread each: threads share torch's random state, fits in them cannot be repeated.
    with (
        LocalCluster(
            n_workers=args.workers, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        return run(client, data, args)


def run(client: Client, data: Bunch, args: argparse.Namespace) -> pd.DataFrame:
    """Search, then predict all pairs."""
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
        # Both are fitted: from here on ids are enough.
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
