"""The commands of ``python -m skqos.benchmarks``."""

import pandas as pd
import pytest

from skqos.benchmarks import __main__ as command
from skqos.benchmarks import _run

MODEL = """\
from sklearn.ensemble import HistGradientBoostingRegressor
make_model = lambda seed: HistGradientBoostingRegressor(max_iter=5, random_state=seed)
"""


def test_a_model_of_two_lines_runs(wsdream_folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_two_lines.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    out = tmp_path / "results.csv"
    arguments = ["run", "--data", str(wsdream_folder), "--model", "my_two_lines:make_model"]
    arguments += ["--split", "wsdream1-rt-0.025", "--seeds", "0", "--out", str(out)]
    command.main(arguments)
    output = capsys.readouterr().out
    assert "[1/1] wsdream1-rt-0.025, my_two_lines:make_model, seed 0: MAE" in output
    rows = pd.read_csv(out)
    assert len(rows) == 1
    assert f"{rows['mae'].item():.4g}" in output
    command.main(arguments)
    assert "skipped, its results are there" in capsys.readouterr().out


@pytest.fixture
def run_median(wsdream_folder, tmp_path, monkeypatch, capsys):
    """Run the command with the service median, and return its output."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(_run, "in_own_process", lambda function, *args: function(*args))

    def call(*options, out=tmp_path / "results.csv"):
        arguments = ["run", "--data", str(wsdream_folder), "--out", str(out), "--seeds", "0"]
        arguments += ["--model", "skqos.baselines:MedianRegressor", "--split", "wsdream1-rt-0.025"]
        command.main([*arguments, *options])
        return capsys.readouterr().out

    return call


def test_filtered_errors_are_shown_if_requested(run_median):
    assert "mae_filtered" not in run_median()
    assert "mae_filtered" in run_median("--filtered", "--fresh")


def test_a_repeated_split_is_run_once_and_a_name_may_be_a_number(run_median):
    name = "wsdream1-rt-0.025"
    output = run_median("--name", "7", "--split", name, name)
    assert "[1/1]" in output
    assert output.splitlines()[-1].split()[:3] == [name, "7", "0"]


@pytest.mark.parametrize("out", ["", "folder", "file/results.csv"])
def test_an_output_that_cannot_be_written_is_reported(run_median, tmp_path, capsys, out):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        run_median(out=tmp_path / out if out else "")
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--model", "a", "--split", "rt"], "no split 'rt'; there are wsdream1-rt-0.0"),
        (["run", "--model", "a", "--split", "wsdream1-rt-0.025"], "must be 'module:name'"),
        (["reproduce", "LDCF", "2019", "wsdream1-rt-0.05"], "no paper 'LDCF 2019'; there are"),
        (["run", "--model", "a:b", "--split", "rt", "--jobs", "0"], "--jobs and --threads"),
    ],
)
def test_what_is_wrong_is_told_without_a_traceback(tmp_path, capsys, arguments, message):
    files = ["--data", str(tmp_path), "--out", str(tmp_path / "o.csv")]
    with pytest.raises(SystemExit) as stop:
        command.main([*arguments, *files])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_lists_are_shown(capsys):
    command.main(["splits"])
    assert "wsdream2-rt-forecast-all" in capsys.readouterr().out
    command.main(["results", "--metric", "winkler"])
    assert "SAMoERegressor, intervals" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["results", "--metric", "speed"])
    assert "there is no 'speed'; there are mae, " in capsys.readouterr().err


def test_stored_figures_are_put_between_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- published: begin -->\nold\n<!-- published: end -->\n")
    command.main(["tables", str(page)])
    assert "| R2SL | 2023 | 0.151 / 0.440 |" in page.read_text()
    assert "| **SAMoERegressor** |" in page.read_text()
    assert "old" not in page.read_text()
