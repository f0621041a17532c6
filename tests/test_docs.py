"""The pages of the documentation: their Python blocks run, their commands name what there is."""

import contextlib
import functools
import importlib.util
import inspect
import io
import re
import runpy
import shlex
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from types import ModuleType
from unittest import SkipTest

import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from skqos.benchmarks.__main__ import make_parser
from skqos.benchmarks.ablation_report import load_ablations
from skqos.datasets import make_qos
from tests.common import CONTRACTS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAX_EPOCHS = 3
SCRIPT = re.compile(r"(docs|examples)/\w+\.py")
# Installations, builds and servers, which `.ci/run` or a reader starts.
NOT_RUN = re.compile(
    r"(\.venv/bin/)?(git|cd|pip|ruff|mypy|dask|torchrun|python3? -m (venv|pytest|sphinx))\b"
)


@functools.cache
def _options(script):
    """Return the options of an example, as its ``--help`` tells them."""
    path, output = ROOT / script, io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.suppress(SystemExit),
    ):
        patch.syspath_prepend(path.parent)
        patch.setattr(sys, "argv", [script, "--help"])
        runpy.run_path(str(path), run_name="__main__")
    for neighbour in path.parent.glob("*.py"):
        sys.modules.pop(neighbour.stem, None)
    return set(re.findall(r"--[a-z][a-z-]*", output.getvalue()))


def _commands(source):
    """Split a shell block into commands, each a list of words."""
    words = shlex.shlex(source, posix=True, punctuation_chars="&\n")
    words.whitespace, words.whitespace_split = " \t", True
    groups = groupby(words, key=lambda word: word.strip("&\n") == "")
    return [list(command) for is_separator, command in groups if not is_separator]


def _check_commands(example):
    for command in _commands(example.parsed):
        script = next(filter(SCRIPT.fullmatch, command), None)
        if script:
            assert (ROOT / script).is_file(), f"{script} does not exist"
            given = {word.split("=")[0] for word in command if word.startswith("--")}
            assert not given or given <= _options(script), (
                f"{script} has no {given - _options(script)}"
            )
        elif command[:3] == ["python", "-m", "skqos.benchmarks"]:
            _check_benchmark(command[3:])
        elif command[:2] == ["python", "-c"]:
            subprocess.run([sys.executable, *command[1:]], check=True)
        else:
            assert NOT_RUN.match(" ".join(command)), f"nobody checks {command}"


def _check_benchmark(arguments):
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            make_parser().parse_args(arguments)
    except SystemExit:
        raise AssertionError(errors.getvalue()) from None


def _parse(path):
    parsers = [
        PythonCodeBlockParser(),
        CodeBlockParser(language="bash", evaluator=_check_commands),
        SkipParser(),
    ]
    return Sybil(parsers=parsers, pattern="*.md", path=str(ROOT)).parse(path)


@pytest.fixture
def page_module(monkeypatch, tmp_path):
    """A module in whose namespace a page runs, so that what it defines can be pickled."""
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    monkeypatch.chdir(tmp_path)
    return module


@pytest.fixture
def _quick(monkeypatch, path):
    """Small data, small networks and few epochs where a block does not set them; few trials."""
    # Of the function inside scikit-learn's check of parameters, which has no defaults.
    monkeypatch.setattr(inspect.unwrap(make_qos), "__defaults__", (100, 300, 0.02))

    def shrink(original, tiny):
        @functools.wraps(original)
        def small(self, **params):
            original(self, **{**tiny, **params})

        return small

    def cap(original):
        @functools.wraps(original)
        def capped(self, **params):
            few = {k: min(v, MAX_EPOCHS) if k.endswith("epochs") else v for k, v in params.items()}
            return original(self, **few)

        return capped

    for contract in CONTRACTS:
        kind = contract.estimator_class
        monkeypatch.setattr(kind, "__init__", shrink(kind.__init__, contract.tiny))
        # Searches set the parameters that they suggest.
        monkeypatch.setattr(kind, "set_params", cap(kind.set_params))
    optuna = pytest.importorskip("optuna")
    optimize = optuna.Study.optimize
    monkeypatch.setattr(
        optuna.Study,
        "optimize",
        lambda study, objective, n_trials, **options: optimize(
            study, objective, n_trials=min(n_trials, 2), **options
        ),
    )


# So short a training finds no service that meets the limits on some pages.
@pytest.mark.filterwarnings("ignore::skqos.exceptions.NoServiceWarning")
@pytest.mark.usefixtures("_quick", "_quick_exports")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_blocks_of_a_page_run_from_top_to_bottom(path, page_module):
    document = _parse(path)
    document.namespace = vars(page_module)
    for example in document:
        try:
            example.evaluate()
        except SkipTest:
            continue


def test_few_blocks_are_left_out():
    """Each says why: it needs real data, a cluster or a GPU."""
    reasons = [
        line for path in PAGES for line in path.read_text().splitlines() if "<!-- skip:" in line
    ]
    assert len(reasons) <= 6
    assert all(re.search(r'skip: next "needs .+"', line) for line in reasons)


def test_a_wrong_option_of_an_example_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    wrong = ["python examples/quickstart.py --fast", "python examples/slow.py", "rm -r ."]
    wrong += ["python -m skqos.benchmarks run --data DIR", "python -m skqos.benchmarks walk"]
    for command in wrong:
        page.write_text(f"```bash\n{command}\n```\n")
        with pytest.raises(AssertionError):
            next(iter(_parse(page))).evaluate()


@pytest.fixture
def docs_script(monkeypatch, tmp_path):
    """Import a script of the folder docs, whose figures go to a temporary folder."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    if importlib.util.find_spec("matplotlib"):
        monkeypatch.setattr(importlib.import_module("figure_style"), "FOLDER", tmp_path)
    return importlib.import_module


def test_diagrams_are_those_of_the_script(docs_script):
    script = docs_script("draw_diagrams")
    for name, diagram in script.DIAGRAMS.items():
        drawn = (ROOT / "docs" / "_static" / f"network_{name}.svg").read_text(encoding="utf-8")
        assert script.draw(diagram) == drawn, "run docs/draw_diagrams.py"


def test_figures_of_results_are_drawn_and_pages_are_written(docs_script, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    script, written = docs_script("write_results"), []
    monkeypatch.setattr(script, "write_pages", written.extend)
    script.main()
    assert ROOT / "README.md" in written
    names = {path.name for path in tmp_path.glob("*.svg")}
    of_methods = {
        f"ablations_{method}_{defaults}.svg"
        for defaults in ("former", "present")
        for method in load_ablations(defaults)["method"]
    }
    others = {"intervals.svg", "error_by_density_rt.svg", "error_by_density_tp.svg"}
    others |= {"error_against_time.svg", "error_by_task.svg"}
    assert names == of_methods | others


def test_labels_are_spread(docs_script):
    pytest.importorskip("matplotlib")
    spread = docs_script("write_results").spread
    assert spread({"a": 1.0, "b": 0.9, "c": 3.0}, 0.5) == {"b": 0.9, "a": 1.4, "c": 3.0}


def test_front_page_script_draws_three_panels(docs_script, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    script = docs_script("draw_front_page")
    contract = next(c for c in CONTRACTS if c.estimator_class is script.SAMoERegressor)
    monkeypatch.setattr(
        script,
        "SAMoERegressor",
        functools.partial(script.SAMoERegressor, **contract.tiny),
    )
    monkeypatch.setattr(script, "make_qos", lambda *_, **__: make_qos(30, 60, 1, random_state=0))
    script.main()
    assert len(list(tmp_path.glob("front_page_*.svg"))) == 3
