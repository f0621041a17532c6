"""Benchmarks on WS-DREAM: splits, published results, our results, and runs of any regressor."""

from skqos.benchmarks._published import load_published_results
from skqos.benchmarks._reproduce import reproduce
from skqos.benchmarks._results import load_results, summarize_results
from skqos.benchmarks._run import evaluate, run
from skqos.benchmarks._split import Split
from skqos.benchmarks._splits import list_splits, load_split

__all__ = [
    "Split",
    "evaluate",
    "list_splits",
    "load_published_results",
    "load_results",
    "load_split",
    "reproduce",
    "run",
    "summarize_results",
]
