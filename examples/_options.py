"""The options of the benchmarks of accuracy."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from skqos.benchmarks.fits import Fitted


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


def costs(fitted: Fitted) -> dict[str, float]:
    """Return the columns of the costs."""
    pairs_per_s = len(fitted.prediction) / fitted.predict_s
    return {"fit_s": fitted.fit_s, "pairs_per_s": pairs_per_s, "peak_mb": fitted.peak_mb}


def stop_if(failures: list[str], unless: Path | None = None) -> None:
    """End the script with status 1 and a line for each failure, unless there is this file."""
    if failures and not (unless and unless.exists()):
        sys.exit("\n".join(["these failed:", *failures]))
