"""Errors slot by slot over a stream of measurements: WS-DREAM data set 2, response time.

    python examples/benchmark_stream.py --data DIR --out results/stream
    python examples/benchmark_stream.py --data DIR --out results/stream --device cuda
    python examples/benchmark_stream.py --table results.csv --readme docs/partial_fit.md

The 64 slots come one after the other. The measurements of a slot are predicted before any of them
is known; they arrive when the slot is over; then a method learns from them, and predicts the next
slot. The first ``--window`` slots are there at the start. Methods:

- TPMCF with updates: `partial_fit` with the rows of each slot;
- TPMCF, updates without training: likewise with ``partial_fit_epochs=0``;
- TPMCF, refits: fitted anew to the last ``--window`` slots after every eighth slot;
- TPMCF without updates: as fitted at the start;
- pair median: of all earlier measurements of the pair, else of the service;
- weighted mean: of the earlier measurements of the pair, whose weights fall by ``DECAY`` from one
  to the next, else of the service;
- AMF: `skqos.baselines.AMFRegressor`, updated with each slot (Zhu et al. 2017);
- EmbeddingMLP with updates: `skqos.baselines.EmbeddingMLPRegressor` with one member, which has no
  time, updated with each slot.

DIR holds ``rtdata.txt`` or ``rtdata.txt.gz``, as for `benchmark_temporal.py`. Density is the share
of the measured cells, given or not. Each result is added to ``results.csv`` in the folder ``--out``
when it is there, and the models are kept beside it, so that a further run goes on where this one
ended. ``--methods`` runs some of the methods, and ``--service-share`` takes a part of the services,
for a shorter run. The refits and the updates of TPMCF take most of the time. They run on
``--device``; all others run on the CPU. Times are CPU seconds or, with another device, seconds.
"""

from __future__ import annotations

import argparse
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skqos import TPMCFRegressor
from skqos._files import replace_file
from skqos.baselines import AMFRegressor, EmbeddingMLPRegressor, MedianRegressor
from skqos.benchmarks.markdown import write_between_marks
from skqos.benchmarks.stream_tables import (
    FIRST_COUNTED,
    REFIT_EVERY,
    REFITS,
    UPDATES,
    draw_errors,
    make_table,
    read_results,
    summarise,
)
from skqos.benchmarks.wsdream2 import SlotCells, draw, read_cells

N_SLOTS = 64
DECAY = 0.7


@dataclass(frozen=True)
class Stream:
    """The rows of the slots."""

    X: np.ndarray
    y: np.ndarray

    def slots(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Return X and y of the slots from `first` to `last`."""
        rows = (self.X[:, 2] >= first) & (self.X[:, 2] <= last)
        return self.X[rows], self.y[rows]


class Updated:
    """A model that learns each slot by `partial_fit`."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def start(self, stream: Stream, last: int, window: int) -> None:
        self.model.fit(*stream.slots(last - window + 1, last))

    def learn(self, stream: Stream, slot: int, window: int) -> None:  # noqa: ARG002
        self.model.partial_fit(*stream.slots(slot, slot))

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.model.predict(X)


class UpdatedPairs(Updated):
    """A model of pairs without time, which learns each slot."""

    def start(self, stream: Stream, last: int, window: int) -> None:
        X, y = stream.slots(last - window + 1, last)
        self.model.fit(X[:, :2], y)

    def learn(self, stream: Stream, slot: int, window: int) -> None:  # noqa: ARG002
        X, y = stream.slots(slot, slot)
        self.model.partial_fit(X[:, :2], y)

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.model.predict(X[:, :2])


class Fixed(Updated):
    """A model that learns no more."""

    def learn(self, stream: Stream, slot: int, window: int) -> None:
        pass


class Refitted(Updated):
    """A model that is fitted to the last slots after every eighth slot."""

    def learn(self, stream: Stream, slot: int, window: int) -> None:
        if (slot + 1) % REFIT_EVERY == 0:
            self.start(stream, slot, window)


class PairMedian(Updated):
    """The median of all that was measured of a pair."""

    def start(self, stream: Stream, last: int, window: int) -> None:  # noqa: ARG002
        self.model.fit(*stream.slots(0, last))

    def learn(self, stream: Stream, slot: int, window: int) -> None:
        self.start(stream, slot, window)


class WeightedMean:
    """A mean of what was measured of a pair, the later the more; of the service, where nothing."""

    def __init__(self) -> None:
        self.pairs = self.services = self.overall = None

    def start(self, stream: Stream, last: int, window: int) -> None:
        n_users, n_services = stream.X[:, :2].max(axis=0) + 1
        self.pairs = np.full((n_users, n_services), np.nan)
        self.services, self.overall = np.full(n_services, np.nan), np.nan
        for slot in range(last + 1):
            self.learn(stream, slot, window)

    def learn(self, stream: Stream, slot: int, window: int) -> None:  # noqa: ARG002
        X, y = stream.slots(slot, slot)
        users, services = X[:, 0], X[:, 1]
        self.pairs[users, services] = _follow(self.pairs[users, services], y)
        counts = np.bincount(services, minlength=len(self.services))
        seen = counts > 0
        means = np.bincount(services, y, minlength=len(self.services))[seen] / counts[seen]
        self.services[seen] = _follow(self.services[seen], means)
        self.overall = float(_follow(np.array(self.overall), y.mean()))

    def predict(self, X: np.ndarray) -> np.ndarray:
        found = self.pairs[X[:, 0], X[:, 1]]
        found = np.where(np.isnan(found), self.services[X[:, 1]], found)
        return np.where(np.isnan(found), self.overall, found)


def _follow(mean: np.ndarray, value: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(mean), value, DECAY * mean + (1 - DECAY) * value)


def tpmcf(args: argparse.Namespace, **params: Any) -> TPMCFRegressor:
    return TPMCFRegressor(random_state=args.seed, device=args.device, **params)


METHODS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "pair median": lambda _: PairMedian(MedianRegressor(by="pair")),
    "weighted mean": lambda _: WeightedMean(),
    "AMF": lambda args: Updated(AMFRegressor(random_state=args.seed)),
    "EmbeddingMLP with updates": lambda args: UpdatedPairs(
        EmbeddingMLPRegressor(n_members=1, random_state=args.seed, device="cpu")
    ),
    "TPMCF without updates": lambda args: Fixed(tpmcf(args)),
    "TPMCF, updates without training": lambda args: Updated(tpmcf(args, partial_fit_epochs=0)),
    UPDATES: lambda args: Updated(tpmcf(args)),
    REFITS: lambda args: Refitted(tpmcf(args)),
}


def make_stream(cells: SlotCells, args: argparse.Namespace) -> Stream:
    """Draw the rows of all slots, of all services or a part of them."""
    drawn = draw(len(cells.y), args.density / (args.given_share or cells.given_share))
    n_services = int(cells.X[:, 1].max()) + 1
    chosen = np.random.default_rng(0).random(n_services) < args.service_share
    rows = drawn & chosen[cells.X[:, 1]] & (cells.X[:, 2] < args.slots)
    return Stream(cells.X[rows], cells.y[rows])


def run_method(name: str, stream: Stream, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Follow the stream from where an earlier run ended; yield a row a slot."""
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    kept = args.out / f"{name.replace(',', '').replace(' ', '_')}-{args.seed}.pkl"
    if kept.is_file():
        method, first, seconds = pickle.loads(kept.read_bytes())
    else:
        method, first = METHODS[name](args), args.window
        begin = clock()
        method.start(stream, first - 1, args.window)
        seconds = clock() - begin
    for slot in range(first, args.slots):
        X, y = stream.slots(slot, slot)
        error = method.predict(X) - y
        yield {
            "method": name,
            "seed": args.seed,
            "slot": slot,
            "rows": len(y),
            "mae": np.abs(error).mean(),
            "rmse": np.sqrt(np.square(error).mean()),
            "learn_s": seconds,
        }
        begin = clock()
        method.learn(stream, slot, args.window)
        seconds = clock() - begin
        replace_file(kept, pickle.dumps((method, slot + 1, seconds)))


def run(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.csv"
    stream = make_stream(read_cells(args.data), args)
    print(f"{len(stream.y):,} rows in {args.slots} slots", flush=True)
    for name in args.methods:
        for row in run_method(name, stream, args):
            pd.DataFrame([row]).to_csv(path, mode="a", header=not path.exists(), index=False)
            print(
                f"{name}, slot {row['slot']}: MAE {row['mae']:.4g}, RMSE {row['rmse']:.4g}, "
                f"learnt in {row['learn_s']:.1f} s",
                flush=True,
            )


def draw_figure(rows: pd.DataFrame, path: Path) -> None:
    """Draw the error of each method slot by slot, if matplotlib is there."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no figure: matplotlib is not installed")
        return
    figure = Figure(figsize=(9, 5), layout="constrained")
    draw_errors(figure.subplots(), rows)
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of WS-DREAM data set 2")
    source.add_argument("--table", type=Path, nargs="+", help="results.csv of earlier runs")
    parser.add_argument("--out", type=Path, help="folder for results, models and the figure")
    parser.add_argument("--readme", type=Path, nargs="+", help="files to put the table into")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="torch device of TPMCF, such as cuda")
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--given-share", type=float, help="share of the measured cells in DIR")
    parser.add_argument("--service-share", type=float, default=1.0)
    parser.add_argument("--slots", type=int, default=N_SLOTS)
    parser.add_argument("--window", type=int, default=8, help="slots of a fit")
    args = parser.parse_args(argv)
    if args.data:
        if not args.out:
            parser.error("--data needs --out, the folder for the results")
        run(args)
    rows = read_results(args.table or [args.out / "results.csv"])
    summary = summarise(rows, FIRST_COUNTED)
    table = make_table(summary)
    for path in args.readme or ():
        write_between_marks(path, {"stream": table})
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "results.md").write_text(table + "\n")
        draw_figure(rows, args.out / "errors.png")
    print(table)


if __name__ == "__main__":
    main()
