"""Quickstart: fit SA-MoE, predict unmeasured pairs, evaluate, and choose services.

python examples/quickstart.py               synthetic data, no download
python examples/quickstart.py --data DIR    WS-DREAM data set 1, the original files
"""

from __future__ import annotations

import argparse

import pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn.utils import Bunch

from skqos import SAMoERegressor
from skqos.baselines import MedianRegressor
from skqos.datasets import load_wsdream, make_qos
from skqos.metrics import nan_mean_absolute_error, nan_root_mean_squared_error
from skqos.model_selection import DensitySplit
from skqos.preprocessing import ContextJoiner
from skqos.selection import rank_services

LIMIT = 0.5


def load(path: str | None) -> Bunch:
    """Load response times in seconds, with context tables."""
    if path:
        return load_wsdream(path, qos="rt")
    return make_qos(n_users=120, n_services=400, density=0.4, random_state=0)


def main(argv: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of WS-DREAM data set 1; default: synthetic data")
    parser.add_argument("--density", type=float, help="fraction of all cells for training")
    args = parser.parse_args(argv)

    data = load(args.data)
    density = args.density or (0.025 if args.data else 0.2)
    splitter = DensitySplit(
        n_splits=1,
        density=density,
        n_users=len(data.users),
        n_services=len(data.services),
        random_state=0,
    )
    train, test = next(splitter.split(data.X))
    X, y, X_test, y_test = data.X[train], data.y[train], data.X[test], data.y[test]
    print(f"{len(y):,} measured pairs for training, {len(y_test):,} for testing")

    # The pipeline joins the context of users and services, so that X is an array of ids.
    context = ContextJoiner(data.users, data.services)
    model = make_pipeline(context, SAMoERegressor(intervals=True, random_state=0, verbose=1))
    model.fit(X, y)

    predictions = {
        "SAMoERegressor": model.predict(X_test),
        "service median": MedianRegressor(by="service").fit(X, y).predict(X_test),
        "constant median": MedianRegressor(by="constant").fit(X, y).predict(X_test),
    }
    table = pd.DataFrame(
        {
            "MAE": {
                name: nan_mean_absolute_error(y_test, prediction)
                for name, prediction in predictions.items()
            },
            "RMSE": {
                name: nan_root_mean_squared_error(y_test, prediction)
                for name, prediction in predictions.items()
            },
        }
    )
    print(f"\nErrors on the test pairs, in seconds\n{table.round(3).to_string()}")

    user = X_test[0, 0]
    ranking = rank_services(model, user, data.services.index, limit=LIMIT)
    columns = ["service", "prediction", "lower", "upper", "probability"]
    print(f"\nThe five services with the lowest predictions for user {user}, in seconds, with 90 %")
    print(f"intervals and the probability of a response within {LIMIT} s")
    print(ranking[columns].round(3).to_string(index=False))
    return table


if __name__ == "__main__":
    main()
