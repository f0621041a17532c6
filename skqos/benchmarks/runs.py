"""Fits in separate processes, with results in a CSV file."""

from __future__ import annotations

import io
import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from skqos._files import replace_file
from skqos.benchmarks.fits import Fitted, timed

logger = logging.getLogger("skqos.benchmarks")


class Task(NamedTuple):
    """One fit: a model with a seed, on one problem, or on several at once.

    A problem is a named tuple that identifies a split; its fields are columns of the results.
    """

    model: str
    seed: int
    problems: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{' + '.join(map(str, self.problems))}, {self.model}, seed {self.seed}"

    def row_keys(self) -> list[dict[str, Any]]:
        """Columns that identify the rows of the results of this task."""
        return [{**p._asdict(), "model": self.model, "seed": self.seed} for p in self.problems]


@contextmanager
def log_to_stdout() -> Iterator[None]:
    """Write the progress to the standard output, for commands."""
    handler = logging.StreamHandler(sys.stdout)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def in_own_process(function: Callable[..., Any], *args: object) -> Any:
    """Call a function in a new process, which isolates its memory and crashes."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *args).result()


def run_tasks(
    tasks: Sequence[Task], fit: Callable[[Task], list[Fitted]], jobs: int
) -> Iterator[tuple[Task, Future]]:
    """Yield each finished task, with the future of its results and its seconds."""
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = {pool.submit(timed, lambda task=task: fit(task)): task for task in tasks}
        for future in as_completed(futures):
            yield futures[future], future
    finally:
        pool.shutdown(cancel_futures=True)


class Progress:
    """Log a line for each finished task, with the number of finished tasks and the time left."""

    def __init__(self, tasks: Sequence[Task], jobs: int) -> None:
        self.left = list(tasks)
        self.total = len(tasks)
        self.jobs = jobs
        self.seconds = defaultdict(list)

    def tell(self, task: Task, text: str, seconds: float | None = None) -> None:
        """Log that a task has finished, and the expected time of the others."""
        self.left.remove(task)
        if seconds is not None:
            self.seconds[task.model].append(seconds)
        done = self.total - len(self.left)
        logger.info("[%d/%d] %s: %s%s", done, self.total, task, text, self.time_left())

    def time_left(self) -> str:
        """Estimate the time left from the previous tasks of the same model, or of all models."""
        known = {model: np.mean(seconds) for model, seconds in self.seconds.items()}
        if not (known and self.left):
            return ""
        typical = np.mean(list(known.values()))
        left = sum(known.get(task.model, typical) for task in self.left) / self.jobs
        return f"; about {left / 60:.0f} min left"


def read_rows(path: Path, dtype: type | None = None) -> pd.DataFrame:
    """Read results, without an incomplete last line of a killed run."""
    text = path.read_text()
    complete = text[: text.rfind("\n") + 1]
    if not complete:
        return pd.DataFrame()
    # The name of a model may look like a number, or like a missing value.
    return pd.read_csv(
        io.StringIO(complete),
        dtype=dtype or {"split": str, "model": str},
        keep_default_na=False,
        na_values=[""],
    )


def append_rows(path: Path, rows: list[dict]) -> None:
    """Append rows in a single write, in the order of the columns of the file.

    Raises
    ------
    ValueError
        If the file has other columns.
    """
    table = pd.DataFrame(rows)
    is_new = not path.exists() or not path.stat().st_size
    if not is_new:
        columns = list(pd.read_csv(path, nrows=0).columns)
        if {*columns} != {*table.columns}:
            raise ValueError(f"{path} has the columns {columns}; got {list(table.columns)}.")
        table = table[columns]
    text = table.to_csv(index=False, header=is_new)
    with path.open("a") as file:
        file.write(text)


def open_results(path: Path, columns: list[str], *, fresh: bool) -> set[tuple]:
    """Return the keys with results, as text, and remove an incomplete last line.

    Raises
    ------
    ValueError
        If the file has other columns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if fresh or not path.exists():
        path.unlink(missing_ok=True)
        return set()
    rows = read_rows(path, str)
    if len(rows) and list(rows.columns[: len(columns)]) != columns:
        raise ValueError(
            f"{path} must begin with the columns {columns}; got {list(rows.columns)}. It holds "
            "results of another benchmark: choose another file for the results, or replace it by "
            "'fresh'."
        )
    text = path.read_text()
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        replace_file(path, complete.encode())
    return set(rows.iloc[:, : len(columns)].itertuples(index=False, name=None))


def file_name(key: dict[str, Any]) -> str:
    """Return a file name for the row of its results."""
    return "-".join(str(part).replace(",", "").replace(" ", "_") for part in key.values())


def measure(
    tasks: Sequence[Task],
    fit: Callable[[Task], list[Fitted]],
    rate: Callable[[Any, Fitted], dict[str, Any]],
    path: Path,
    *,
    jobs: int = 1,
    fresh: bool = False,
    predictions: Path | None = None,
    keep: Callable[[dict[str, Any], Any, Fitted], None] | None = None,
) -> list[str]:
    """Run the tasks without results, and append their results to a CSV file.

    Parameters
    ----------
    tasks : sequence of Task
        All tasks of the benchmark.

    fit : callable
        Function from a task to predictions of each of its problems.

    rate : callable
        Function from a problem and predictions of its test rows to the columns of a row.

    path : Path
        CSV file of the results.

    jobs : int
        Number of tasks that run at the same time.

    fresh : bool
        Whether to delete existing results.

    predictions : Path or None
        Folder for the predictions. If None, they are not kept.

    keep : callable or None
        Function that stores more of the predictions of a problem, before its row is added. It
        receives the columns that identify the row, the problem and the predictions.

    Returns
    -------
    failures : list of str
        One line for each failed task, which is also logged.
    """
    there = open_results(path, list(tasks[0].row_keys()[0]), fresh=fresh)
    progress, to_run, failures = Progress(tasks, jobs), [], []
    for task in tasks:
        if all(tuple(map(str, key.values())) in there for key in task.row_keys()):
            progress.tell(task, "skipped, its results are there")
        else:
            to_run.append(task)
    for task, future in run_tasks(to_run, fit, jobs):
        try:
            found, seconds = future.result()
            rows = [
                {**key, **rate(problem, fitted)}
                for problem, key, fitted in zip(task.problems, task.row_keys(), found, strict=True)
            ]
        except Exception as error:
            # The cause of an error in another process is the traceback there.
            logger.error("%s", task, exc_info=error.__cause__ or error)
            failures.append(f"{task}: {type(error).__name__}: {error}")
            progress.tell(task, f"FAILED, {type(error).__name__}: {error}")
            continue
        if predictions is not None:
            for key, fitted in zip(task.row_keys(), found, strict=True):
                np.save(predictions / f"{file_name(key)}.npy", fitted.prediction)
        if keep is not None:
            for key, problem, fitted in zip(task.row_keys(), task.problems, found, strict=True):
                keep(key, problem, fitted)
        append_rows(path, rows)
        progress.tell(task, "; ".join(map(describe, rows)), seconds)
    return failures


def describe(row: dict[str, float]) -> str:
    """Return a text with the errors and the costs of a row."""
    return (
        f"MAE {row['mae']:.4g}, RMSE {row['rmse']:.4g}, fit {row['fit_s']:.1f} s, "
        f"{row['peak_mb']:.0f} MB"
    )
