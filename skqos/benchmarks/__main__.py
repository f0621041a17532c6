"""Run any regressor on the splits, reproduce a paper, write tables of the stored figures."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from skqos.benchmarks import list_splits, load_results, reproduce, run, summarize_results
from skqos.benchmarks._reproduce import write_comparison
from skqos.benchmarks.pages import find_pages, write_pages
from skqos.benchmarks.runs import log_to_stdout

SCORES = ["mae", "rmse", "mae_filtered", "rmse_filtered", "regret", "near_best", "coverage"]
SCORES += ["winkler", "fit_s", "predict_s"]


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run the command."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        with log_to_stdout():
            text = args.command(args)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except RuntimeError as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")
    sys.stdout.write(f"{text}\n")


def make_parser() -> argparse.ArgumentParser:
    """Create the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m skqos.benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("run", help="run a regressor on splits")
    command.add_argument("--model", required=True, help="what makes it: my_module:make_model")
    command.add_argument("--split", required=True, nargs="+", help="names of the command 'splits'")
    command.add_argument("--name", help="name of the model in the results")
    command.add_argument("--filtered", action="store_true", help="errors without outliers, too")
    command.add_argument("--fresh", action="store_true", help="forget the results in --out")
    _add_common(command)
    command.set_defaults(command=_run)
    command = commands.add_parser("reproduce", help="run a paper's setting")
    command.add_argument("method", help="such as SAMoE")
    command.add_argument("year", type=int)
    command.add_argument("split", help="a name of the command 'splits'")
    _add_common(command)
    command.set_defaults(command=_reproduce)
    command = commands.add_parser("splits", help="list the splits")
    command.set_defaults(command=lambda _: list_splits().to_string())
    command = commands.add_parser("results", help="list the stored results of ours")
    command.add_argument("--metric", default="mae", help="such as mae or fit_s")
    command.set_defaults(command=_show_results)
    command = commands.add_parser("tables", help="write the tables of stored results into files")
    command.add_argument(
        "files",
        nargs="*",
        type=Path,
        help="files with the marks of the tables; by default README.md and docs/*.md",
    )
    command.set_defaults(command=_write_tables)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, type=Path, help="folder of the data set")
    parser.add_argument("--out", required=True, type=Path, help="CSV of the results")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")


def _run(args: argparse.Namespace) -> str:
    _set_threads(args)
    rows = run(
        args.model,
        args.data,
        args.split,
        args.out,
        seeds=args.seeds,
        name=args.name,
        filtered=args.filtered,
        jobs=args.jobs,
        fresh=args.fresh,
    )
    scores = [name for name in SCORES if name in rows and rows[name].notna().any()]
    shown = rows[["split", "model", "seed", *scores]]
    return shown.to_string(index=False, float_format="{:.4g}".format, na_rep="")


def _reproduce(args: argparse.Namespace) -> str:
    _set_threads(args)
    table = reproduce(
        args.method, args.year, args.split, args.data, args.out, seeds=args.seeds, jobs=args.jobs
    )
    return write_comparison(table)


def _set_threads(args: argparse.Namespace) -> None:
    if args.jobs < 1 or args.threads < 1:
        raise ValueError("--jobs and --threads must be at least 1.")
    # Read by torch, tree libraries and linear algebra libraries when they are loaded.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)


def _show_results(args: argparse.Namespace) -> str:
    summary = summarize_results(load_results())
    rows = summary[summary["metric"] == args.metric]
    if rows.empty:
        known = ", ".join(summary["metric"].unique())
        raise ValueError(f"--metric: there is no {args.metric!r}; there are {known}.")
    shown = rows[["split", "model", "seeds", "mean", "std", "date", "version"]]
    return shown.to_string(index=False, float_format="{:.4g}".format, na_rep="")


def _write_tables(args: argparse.Namespace) -> str:
    paths = args.files or find_pages(Path())
    write_pages(paths)
    return f"wrote {', '.join(map(str, paths))}"


if __name__ == "__main__":
    main()
