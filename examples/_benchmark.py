"""What the benchmarks share: medians, splits, scores, tables and options."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from skqos.metrics import nan_mean_absolute_error, nan_root_mean_squared_error, outlier_mask


class ConstantMedian:
    """The median of all training values."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> ConstantMedian:  # noqa: ARG002
        self.median_ = np.median(y)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return np.full(len(X), self.median_)


class ServiceMedian(ConstantMedian):
    """The median of the service's training values, else of all."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> ServiceMedian:
        super().fit(X, y)
        self.medians_ = pd.Series(y).groupby(X[:, 1]).median()
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.medians_.reindex(X[:, 1]).fillna(self.median_).to_numpy()


@dataclass(frozen=True)
class Split:
    """Training and test rows of one QoS."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def flag_outliers(split: Split) -> np.ndarray:
    """Mark the test cells that the filtered protocol leaves out; it looks at their labels."""
    values = np.concatenate([split.y, split.y_test])
    return outlier_mask(values, contamination=0.1, max_samples="all", random_state=42)[
        len(split.y) :
    ]


def score(split: Split, prediction: np.ndarray, kept: dict[str, np.ndarray]) -> dict[str, float]:
    """Errors on all test cells, and on the cells kept by each of the named protocols."""
    scores = {}
    for name, cells in {"": slice(None), **kept}.items():
        values = split.y_test[cells], prediction[cells]
        scores[f"mae{name}"] = nan_mean_absolute_error(*values)
        scores[f"rmse{name}"] = nan_root_mean_squared_error(*values)
    return scores


def timed(task: Callable[[], object]) -> tuple[object, float]:
    start = time.perf_counter()
    result = task()
    return result, time.perf_counter() - start


def fit_and_predict(model: object, split: Split) -> tuple[np.ndarray, dict[str, float]]:
    """Return the prediction of the test cells, and how long it and the fit took."""
    _, fit_s = timed(lambda: model.fit(split.X, split.y))
    prediction, predict_s = timed(lambda: model.predict(split.X_test))
    return prediction, {"fit_s": fit_s, "pairs_per_s": len(prediction) / predict_s}


def file_name(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


def summarise(
    rows: list[dict], by: str, relative: Sequence[str] = ("mae", "fit_s")
) -> pd.DataFrame:
    """Average over seeds; some columns also relative to the baseline of the same run.

    A run without the baseline is compared with the baseline of all others.
    """
    frame = pd.DataFrame(sorted(rows, key=lambda row: row[by]))
    if "run" not in frame:
        frame["run"] = ""
    baseline = frame[frame["model"] == "embedding MLP"]
    for column in relative:
        everywhere = frame[by].map(baseline.groupby(by)[column].mean())
        in_run = baseline.groupby([by, "run"])[column].mean().rename("baseline")
        own = frame.join(in_run, on=[by, "run"])["baseline"]
        frame[f"{column} / MLP"] = frame[column] / own.fillna(everywhere)
    table = frame.groupby([by, "model"], sort=False)
    columns = ["mae", "rmse", "fit_s", "pairs_per_s", *(f"{name} / MLP" for name in relative)]
    result = table[columns].mean()
    result.insert(0, "seeds", table["seed"].nunique())
    result.insert(2, "mae_std", table["mae"].std(ddof=0))
    return result


def take_errors(rows: list[dict], protocol: str) -> list[dict]:
    """Put the errors of another protocol in the place of the others, where there are any."""
    return [
        {**row, "mae": row[f"mae{protocol}"], "rmse": row[f"rmse{protocol}"]}
        for row in rows
        if not np.isnan(row.get(f"mae{protocol}", np.nan))
    ]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    lines.insert(1, "|---" * len(head) + "|")
    return "\n".join(lines)


def write_into(path: Path, table: str, name: str) -> None:
    """Replace what stands between the marks of that name."""
    begin, end = (f"<!-- {name}: {mark} -->" for mark in ("begin", "end"))
    before, rest = path.read_text().split(begin)
    _, after = rest.split(end)
    path.write_text(f"{before}{begin}\n{table}\n{end}{after}")


def tell(row: dict, by: str) -> None:
    print(
        f"{row[by]} {row['model']:18s} seed {row['seed']}  MAE {row['mae']:.4f}  "
        f"RMSE {row['rmse']:.4f}  fit {row['fit_s']:.1f} s",
        flush=True,
    )


def read_results(paths: list[Path]) -> list[dict]:
    """Read the results of earlier runs, each row with the run it comes from."""
    return [
        {**row, "run": str(path)} for path in paths for row in pd.read_csv(path).to_dict("records")
    ]


def make_parser(description: str, data_set: int) -> argparse.ArgumentParser:
    """Make a parser with the options of every benchmark of accuracy."""
    parser = argparse.ArgumentParser(description=description)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help=f"folder of WS-DREAM data set {data_set}")
    source.add_argument("--table", type=Path, nargs="+", help="results.csv of earlier runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", help="names of the table; all by default")
    parser.add_argument("--out", type=Path, help="folder for results.csv and predictions")
    parser.add_argument("--readme", type=Path, help="file to put the table into")
    parser.add_argument("--filtered", action="store_true", help="errors without outliers")
    parser.add_argument("--permute-test-labels", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    return parser
