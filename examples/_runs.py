"""How the benchmarks run: each model and seed in a process of its own, with progress and resume."""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from _benchmark import Fitted, timed


class Task(NamedTuple):
    """One fit: a model with a seed, on one problem, or on several at once.

    A problem is a named tuple that tells one split from another; its fields are columns of the
    results.
    """

    model: str
    seed: int
    problems: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{' + '.join(map(str, self.problems))}, {self.model}, seed {self.seed}"

    def row_keys(self) -> list[dict[str, Any]]:
        """Columns that name the rows of the results of this task."""
        return [{**p._asdict(), "model": self.model, "seed": self.seed} for p in self.problems]


def in_own_process(function: Callable[..., Any], *args: object) -> Any:
    """Call in a fresh process: memory is that of the call, and only the call dies with it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *args).result()


def run_tasks(
    tasks: Sequence[Task], fit: Callable[[Task], list[Fitted]], jobs: int
) -> Iterator[tuple[Task, Future]]:
    """Yield each task when it has ended, with the future of its results and seconds."""
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = {pool.submit(timed, lambda task=task: fit(task)): task for task in tasks}
        for future in as_completed(futures):
            yield futures[future], future
    finally:
        pool.shutdown(cancel_futures=True)


class Progress:
    """Prints a line for each task that has ended: how many have, and the time left."""

    def __init__(self, tasks: Sequence[Task], jobs: int) -> None:
        self.left = list(tasks)
        self.total = len(tasks)
        self.jobs = jobs
        self.seconds = defaultdict(list)

    def tell(self, task: Task, text: str, seconds: float | None = None) -> None:
        self.left.remove(task)
        if seconds is not None:
            self.seconds[task.model].append(seconds)
        done = self.total - len(self.left)
        print(f"[{done}/{self.total}] {task}: {text}{self.time_left()}", flush=True)

    def time_left(self) -> str:
        """Expect of each task what its model took so far, or what all models did."""
        known = {model: np.mean(seconds) for model, seconds in self.seconds.items()}
        if not (known and self.left):
            return ""
        typical = np.mean(list(known.values()))
        left = sum(known.get(task.model, typical) for task in self.left) / self.jobs
        return f"; about {left / 60:.0f} min left"


def read_rows(path: Path, dtype: type | None = None) -> pd.DataFrame:
    """Read results; a last line that a killed run left incomplete does not count."""
    text = path.read_text()
    complete = text[: text.rfind("\n") + 1]
    if not complete:
        return pd.DataFrame()
    return pd.read_csv(io.StringIO(complete), dtype=dtype)


def append_rows(path: Path, rows: list[dict]) -> None:
    """Add rows by one write."""
    header = not path.exists() or not path.stat().st_size
    text = pd.DataFrame(rows).to_csv(index=False, header=header)
    with path.open("a") as file:
        file.write(text)


def open_results(path: Path, columns: list[str], *, fresh: bool) -> set[tuple]:
    """Return the keys that have results, as text, and cut off an incomplete last line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if fresh or not path.exists():
        path.unlink(missing_ok=True)
        return set()
    rows = read_rows(path, str)
    if len(rows) and list(rows.columns[: len(columns)]) != columns:
        raise ValueError(
            f"{path} must begin with the columns {columns}; got {list(rows.columns)}. It is of "
            "another benchmark: choose another --out, or --fresh to replace it."
        )
    text = path.read_text()
    path.write_text(text[: text.rfind("\n") + 1])
    return set(rows.iloc[:, : len(columns)].itertuples(index=False, name=None))


def file_name(key: dict[str, Any]) -> str:
    return "-".join(str(part).replace(",", "").replace(" ", "_") for part in key.values())


def measure(
    tasks: Sequence[Task],
    fit: Callable[[Task], list[Fitted]],
    rate: Callable[[Any, np.ndarray], dict[str, float]],
    args: argparse.Namespace,
) -> list[str]:
    """Run the tasks that have no results yet, and add each one's to those of the folder.

    Parameters
    ----------
    tasks : sequence of Task
        All tasks of the benchmark.

    fit : callable
        Turns a task into a prediction for each of its problems.

    rate : callable
        Turns a problem and the prediction of its test rows into errors.

    args : Namespace
        With `out`, `fresh` and `jobs`.

    Returns
    -------
    failures : list of str
        A line for each task that ended in an error.
    """
    path = args.out / "results.csv"
    there = open_results(path, list(tasks[0].row_keys()[0]), fresh=args.fresh)
    progress, to_run, failures = Progress(tasks, args.jobs), [], []
    for task in tasks:
        if all(tuple(map(str, key.values())) in there for key in task.row_keys()):
            progress.tell(task, "skipped, its results are there")
        else:
            to_run.append(task)
    for task, future in run_tasks(to_run, fit, args.jobs):
        try:
            found, seconds = future.result()
        except Exception as error:
            # Of an error in another process, the cause is the traceback there.
            traceback.print_exception(error.__cause__ or error)
            failures.append(f"{task}: {type(error).__name__}: {error}")
            progress.tell(task, f"FAILED, {type(error).__name__}: {error}")
            continue
        rows = []
        for problem, key, fitted in zip(task.problems, task.row_keys(), found, strict=True):
            np.save(args.out / f"{file_name(key)}.npy", fitted.prediction)
            rows.append({**key, **rate(problem, fitted.prediction), **fitted.cost})
        append_rows(path, rows)
        progress.tell(task, "; ".join(map(describe, rows)), seconds)
    if not path.exists():
        stop_if(failures)
    return failures


def stop_if(failures: list[str]) -> None:
    """End the script with status 1 and a line for each failure."""
    if failures:
        sys.exit("\n".join(["these failed:", *failures]))


def describe(row: dict[str, float]) -> str:
    return (
        f"MAE {row['mae']:.4g}, RMSE {row['rmse']:.4g}, fit {row['fit_s']:.1f} s, "
        f"{row['peak_mb']:.0f} MB"
    )


def make_parser(description: str, data_set: int) -> argparse.ArgumentParser:
    """Make a parser with the options of every benchmark of accuracy."""
    parser = argparse.ArgumentParser(description=description)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help=f"folder of WS-DREAM data set {data_set}")
    source.add_argument("--table", type=Path, nargs="+", help="results.csv of earlier runs")
    parser.add_argument("--out", type=Path, help="folder for results, predictions, figures")
    parser.add_argument("--readme", type=Path, nargs="+", help="files to put the tables into")
    parser.add_argument("--figures", type=Path, help="folder for the figures alone")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", help="names of the table, in place of the default")
    parser.add_argument("--ablations", action="store_true", help="the variants of ours, too")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--fresh", action="store_true", help="forget the results of the folder")
    parser.add_argument("--permute-test-labels", action="store_true")
    return parser


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse, check what all benchmarks share, and set the threads of the processes to come."""
    args = parser.parse_args(argv)
    if args.data and not args.out:
        parser.error("--data needs --out, the folder for the results")
    if args.jobs < 1 or args.threads < 1:
        parser.error("--jobs and --threads must be at least 1")
    if args.permute_test_labels and args.out:
        args.out /= "permuted"
    # Read by torch, LightGBM and the linear algebra when a process loads them.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    return args


def choose_models(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    default: Sequence[str],
    ablations: Sequence[str],
) -> list[str]:
    """Return the names of the models to run."""
    unknown = set(args.models or ()) - {*default, *ablations}
    if unknown:
        parser.error(
            f"--models: unknown {sorted(unknown)}; there are {', '.join([*default, *ablations])}"
        )
    if args.models:
        return args.models
    return [*default, *ablations] if args.ablations else list(default)
