"""The example scripts: they run, and the benchmark is honest."""

import importlib
import runpy
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skqos import R2SLRegressor, SAMoERegressor, SharpQoSRegressor, TPMCFRegressor
from skqos.datasets import make_qos

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TINY = {
    SAMoERegressor: {
        "max_epochs": 2,
        "first_stage_epochs": 2,
        "embedding_dim": 4,
        "tower_dim": 8,
        "mlp_hidden_sizes": (8, 8),
    },
    R2SLRegressor: {
        "max_epochs": 2,
        "n_states": 2,
        "embedding_dim": 4,
        "n_filters": 2,
        "hidden_size": 32,
    },
    SharpQoSRegressor: {
        "max_epochs": 2,
        "n_factors": 2,
        "autoencoder_epochs": 2,
        "hidden_dim": 4,
        "routed_dim": 4,
        "output_dim": 4,
    },
    TPMCFRegressor: {
        "max_epochs": 1,
        "gcmf_epochs": 1,
        "gcmf_dim": 4,
        "entity_dim": 4,
        "token_dim": 8,
        "head_dim": 4,
        "n_filters": 4,
        "window": 3,
        "hidden_sizes": (8,),
    },
}


@pytest.fixture
def example(monkeypatch):
    """Import an example as a script's neighbours would."""
    monkeypatch.syspath_prepend(EXAMPLES)
    yield importlib.import_module
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def tiny_regressors(monkeypatch):
    """Shrink every regressor that an example builds."""

    def shrink(original, tiny):
        # A closure: scikit-learn takes named arguments of __init__ for parameters.
        def small(self, **params):
            original(self, **{**params, **tiny})

        return small

    for regressor, tiny in TINY.items():
        monkeypatch.setattr(regressor, "__init__", shrink(regressor.__init__, tiny))


def _write_list(path, head, rows):
    lines = ["\t".join(head), "=" * 20, *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def wsdream_folder(tmp_path):
    """Made-up measurements in the files and splits of WS-DREAM data set 1."""
    data = make_qos(20, 30, density=0.5, random_state=0)
    matrix = np.full((20, 30), -1.0)
    matrix[data.X[:, 0], data.X[:, 1]] = data.y
    np.savetxt(tmp_path / "rtMatrix.txt", matrix, fmt="%.3f", delimiter="\t")
    place = ["[Country]", "[AS]", "[Latitude]", "[Longitude]", "[Region]", "[City]"]
    _write_list(
        tmp_path / "userlist.txt",
        ["[User ID]", "[IP Address]", *place],
        [(k, f"10.{k % 3}.0.1", "C", f"AS{k % 4}", k, -k, "R", f"T{k % 2}") for k in range(20)],
    )
    _write_list(
        tmp_path / "wslist.txt",
        ["[Service ID]", "[WSDL Address]", "[Service Provider]", "[IP Address]", *place],
        [
            (k, "w", f"P{k % 5}", f"11.{k % 3}.0.1", "C", f"AS{k % 4}", k, -k, "R", f"T{k % 2}")
            for k in range(30)
        ],
    )
    rows = np.column_stack([data.X, np.maximum(data.y, 0.001).round(3)])
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    (tmp_path / "splits").mkdir()
    for qos, scale in (("rt", 1), ("tp", 10)):
        for part, lines in (("train", rows[:200]), ("test", rows[200:])):
            path = tmp_path / "splits" / f"{qos}_{part}_0.025.txt"
            np.savetxt(path, lines * [1, 1, scale], fmt=["%d", "%d", "%.3f"])
        rows = rows[::-1]
    return tmp_path


@pytest.fixture
def temporal_folder(tmp_path):
    """Made-up measurements in the file of WS-DREAM data set 2, in no order."""
    data = make_qos(20, 30, density=0.4, n_time_steps=6, timeout_rate=0.1, random_state=0)
    rows = np.column_stack([data.X, np.maximum(data.y, 0.001)])
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    np.savetxt(tmp_path / "rtdata.txt", rows, fmt=["%d", "%d", "%d", "%.3f"])
    return tmp_path


MODELS = ["service median", "embedding MLP", "SAMoERegressor", "R2SLRegressor", "R2SL, no city"]
JOINT_MODELS = ["SharpQoSRegressor", "SHARP-QoS, no SNR"]


@pytest.mark.usefixtures("tiny_regressors")
def test_benchmark_predicts_the_same_from_permuted_test_labels(example, wsdream_folder, capsys):
    benchmark = example("benchmark_static")
    models = [*MODELS, *JOINT_MODELS]
    common = ["--data", str(wsdream_folder), "--seeds", "0", "--models", *models]
    honest = benchmark.main([*common, "--out", str(wsdream_folder / "a")])
    permuted = benchmark.main(
        [*common, "--out", str(wsdream_folder / "b"), "--permute-test-labels"]
    )
    predictions = sorted((wsdream_folder / "a").glob("*.npy"))
    assert len(predictions) == 2 * len(models)
    for path in predictions:
        np.testing.assert_array_equal(np.load(path), np.load(wsdream_folder / "b" / path.name))
    assert (honest["rmse"] != permuted["rmse"]).all()
    assert "embedding MLP" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_regressors")
def test_benchmark_writes_its_table_into_the_readme(example, wsdream_folder):
    benchmark = example("benchmark_static")
    readme = wsdream_folder / "README.md"
    readme.write_text("before\n<!-- results: begin -->\nold\n<!-- results: end -->\nafter\n")
    out = wsdream_folder / "out"
    arguments = ["--qos", "rt", "--seeds", "0", "1", "--models", *MODELS, "--out", str(out)]
    benchmark.main(["--data", str(wsdream_folder), *arguments])
    benchmark.main(["--table", str(out / "results.csv"), "--readme", str(readme)])
    text = readme.read_text()
    assert text.startswith("before\n<!-- results: begin -->\n| QoS | model |")
    assert text.endswith("<!-- results: end -->\nafter\n")
    assert "old" not in text
    mlp = next(line for line in text.splitlines() if "embedding MLP" in line)
    assert "| 1.000 |" in mlp
    measured = pd.read_csv(out / "results.csv").query("model == 'embedding MLP'")["mae"].mean()
    assert f"| {measured:.3f} (" in mlp


@pytest.mark.usefixtures("tiny_regressors")
def test_benchmark_scores_the_filtered_protocol_from_the_same_predictions(example, wsdream_folder):
    benchmark = example("benchmark_static")
    out, page = wsdream_folder / "out", wsdream_folder / "page.md"
    arguments = ["--qos", "rt", "--seeds", "0", "--models", "constant median", "embedding MLP"]
    benchmark.main(["--data", str(wsdream_folder), *arguments, "--out", str(out)])
    rows = pd.read_csv(out / "results.csv").set_index("model")
    split = benchmark.read_split(wsdream_folder, "rt")
    outliers = benchmark.flag_outliers(split)
    assert 0 < outliers.sum() < len(outliers) / 5
    prediction = np.load(out / "rt-embedding_MLP-0.npy")
    expected = np.abs(prediction - split.y_test)[~outliers].mean()
    assert rows.loc["embedding MLP", "mae_filtered"] == pytest.approx(expected)
    assert rows.loc["embedding MLP", "mae"] == pytest.approx(
        np.abs(prediction - split.y_test).mean()
    )
    page.write_text("<!-- filtered: begin -->\n<!-- filtered: end -->\n")
    table = ["--table", str(out / "results.csv"), "--filtered", "--readme", str(page)]
    benchmark.main(table)
    assert f"| {expected:.3f} (" in page.read_text()


TEMPORAL_MODELS = ["pair median", "embedding MLP", "TPMCFRegressor", "TPMCF, GRU"]
TEMPORAL_SPLIT = ["--slot", "5", "--window", "4", "--density", "0.2", "--given-share", "0.4"]


def _temporal_rows(folder):
    return np.loadtxt(folder / "rtdata.txt")


def test_temporal_benchmark_draws_the_cells_of_the_baseline(example, temporal_folder):
    benchmark = example("benchmark_temporal")
    cells = benchmark.read_cells(temporal_folder)
    options = Namespace(slot=5, window=4, density=0.2, given_share=0.4, protocol="imputation")
    split = benchmark.make_split(cells, options)
    rows = _temporal_rows(temporal_folder)
    rows = rows[(rows[:, 2] > 5 - 4) & (rows[:, 2] <= 5)]
    keep = np.random.default_rng(0).random(len(rows)) < 0.2 / 0.4
    test = ~keep & (rows[:, 2] == 5)
    np.testing.assert_array_equal(np.column_stack([split.X, split.y]), rows[keep])
    np.testing.assert_array_equal(np.column_stack([split.X_test, split.y_test]), rows[test])
    for protocol, share in (("forecast", 0.5), ("forecast_all", 1)):
        options.protocol = protocol
        forecast = benchmark.make_split(cells, options)
        np.testing.assert_array_equal(forecast.X_test, split.X_test)
        assert set(forecast.X[:, 2]) == {1, 2, 3, 4}
        n_past = np.isin(cells.X[:, 2], [1, 2, 3, 4]).sum()
        assert len(forecast.y) == pytest.approx(share * n_past, rel=0.1)


def test_pair_median_falls_back_to_the_service_then_to_all(example):
    X = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
    model = example("benchmark_temporal").PairMedian().fit(X, np.array([1.0, 2.0, 4.0, 8.0]))
    prediction = model.predict(np.array([[0, 0, 2], [2, 0, 2], [0, 2, 2]]))
    np.testing.assert_array_equal(prediction, [1.5, 2.0, 3.0])


@pytest.mark.usefixtures("tiny_regressors")
@pytest.mark.parametrize("protocol", ["imputation", "forecast"])
def test_temporal_benchmark_predicts_the_same_from_permuted_test_labels(
    example, temporal_folder, protocol
):
    benchmark = example("benchmark_temporal")
    common = ["--data", str(temporal_folder), *TEMPORAL_SPLIT, "--protocol", protocol]
    common += ["--seeds", "0", "--models", *TEMPORAL_MODELS]
    a, b = temporal_folder / "a", temporal_folder / "b"
    honest = benchmark.main([*common, "--out", str(a)])
    permuted = benchmark.main([*common, "--out", str(b), "--permute-test-labels"])
    predictions = sorted(a.glob("*.npy"))
    assert len(predictions) == len(TEMPORAL_MODELS)
    for path in predictions:
        np.testing.assert_array_equal(np.load(path), np.load(b / path.name))
    assert (honest["rmse"] != permuted["rmse"]).all()


@pytest.mark.usefixtures("tiny_regressors")
def test_temporal_benchmark_adds_results_and_makes_each_table(example, temporal_folder):
    benchmark = example("benchmark_temporal")
    out, page = temporal_folder / "out", temporal_folder / "page.md"
    run = ["--data", str(temporal_folder), *TEMPORAL_SPLIT, "--out", str(out)]
    benchmark.main([*run, "--seeds", "0", "--models", "embedding MLP"])
    benchmark.main([*run, "--seeds", "0", "--models", "TPMCFRegressor", "--epochs", "2"])
    rows = pd.read_csv(out / "results.csv").set_index("model")
    assert list(rows.index) == ["embedding MLP", "TPMCFRegressor (2 epochs)"]
    errors = np.abs(
        np.load(next(out.glob("*embedding_MLP-0.npy"))) - _test_values(benchmark, temporal_folder)
    )
    answered = _test_values(benchmark, temporal_folder) < 19.9
    assert 0 < answered.sum() < len(answered)
    row = rows.loc["embedding MLP"]
    assert row["mae"] == pytest.approx(errors.mean())
    assert row["mae_answered"] == pytest.approx(errors[answered].mean())
    for options, name, column in (
        ([], "temporal", "mae"),
        (["--filtered"], "temporal filtered", "mae_filtered"),
        (["--drop-timeouts"], "temporal answered", "mae_answered"),
    ):
        page.write_text(f"before\n<!-- {name}: begin -->\nold\n<!-- {name}: end -->\nafter\n")
        benchmark.main(["--table", str(out / "results.csv"), "--readme", str(page), *options])
        text = page.read_text()
        assert text.startswith(f"before\n<!-- {name}: begin -->\n| task | model |")
        assert "old" not in text
        mlp = next(line for line in text.splitlines() if "embedding MLP" in line)
        assert f"| {row[column]:.3f} (0.000) |" in mlp
        assert "| 1.000 | 1.000 |" in mlp


def _test_values(benchmark, folder):
    options = Namespace(slot=5, window=4, density=0.2, given_share=0.4, protocol="imputation")
    return benchmark.make_split(benchmark.read_cells(folder), options).y_test


def test_temporal_benchmark_warns_of_an_unfair_run(example, capsys):
    benchmark = example("benchmark_temporal")
    row = {"task": benchmark.BASELINE_TASK, "model": "embedding MLP", "seed": 0}
    benchmark.warn_unless_fair([{**row, "mae": 0.86, "rmse": 2.8}])
    assert "WARNING" not in capsys.readouterr().out
    benchmark.warn_unless_fair([{**row, "mae": 0.88, "rmse": 2.8}])
    assert "WARNING" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_regressors")
def test_temporal_scale_is_measured(example, temporal_folder):
    scale = example("benchmark_temporal_scale")
    result = scale.measure(temporal_folder, share=0.5, threads=1)
    assert result["rows"] == pytest.approx(len(_temporal_rows(temporal_folder)) / 2, rel=0.1)
    assert 0.05 < result["read_gb"] <= result["peak_gb"] < 20
    assert result["gcmf_epoch_s"] > 0
    assert result["final_epoch_s"] > 0


@pytest.mark.usefixtures("tiny_regressors")
def test_cold_start_benchmark_holds_entities_out(example, wsdream_folder, capsys):
    cold_start = example("benchmark_cold_start")
    split = example("benchmark_static").read_split(wsdream_folder, "rt")
    for column in (0, 1):
        part = cold_start.hold_out(split, column, seed=0)
        assert not set(part.X[:, column]) & set(part.X_test[:, column])
        assert len(part.X_test) > 0
    cold_start.main(["--data", str(wsdream_folder), "--qos", "rt"])
    output = capsys.readouterr().out
    assert "rt unknown users: SAMoERegressor" in output
    assert "rt unknown services: SAMoERegressor" in output


@pytest.mark.usefixtures("tiny_regressors")
def test_partial_fit_benchmark_draws_further_cells_and_holds_entities_out(example, wsdream_folder):
    benchmark = example("benchmark_partial_fit")
    train, test = (
        np.loadtxt(wsdream_folder / "splits" / f"rt_{part}_0.025.txt") for part in ("train", "test")
    )
    # All cells are in either file: a third of the test file is to be further cells.
    np.savetxt(wsdream_folder / "splits" / "rt_test_0.025.txt", test[30:], ["%d", "%d", "%.3f"])
    stream = benchmark.read_stream(wsdream_folder, seed=0)
    cells = {tuple(pair) for pair in stream.X_new.tolist()}
    assert cells == {tuple(pair) for pair in test[:30, :2].astype(int).tolist()}
    for column in (0, 1):
        part = benchmark.hold_out(stream.split, column, seed=0)
        known, new, tested = (
            set(X[:, column]) for X in (part.split.X, part.X_new, part.split.X_test)
        )
        assert not known & (new | tested)
        n_rows = len(part.split.y), len(part.y_new), len(part.split.y_test)
        assert sum(n_rows) == len(train)
        assert abs(n_rows[1] - n_rows[2]) <= 1


@pytest.mark.usefixtures("tiny_regressors")
def test_partial_fit_benchmark_fills_its_page(example, wsdream_folder, monkeypatch):
    benchmark = example("benchmark_partial_fit")
    monkeypatch.setattr(
        benchmark, "make_qos", lambda *_, **__: make_qos(20, 30, 0.9, random_state=0)
    )
    page = wsdream_folder / "page.md"
    page.write_text(
        "".join(
            f"<!-- {name}: {m} -->\n" for name in ("cells", "entities") for m in ("begin", "end")
        )
    )
    common = ["--made-up", "--seeds", "0", "--page", str(page)]
    results = benchmark.main([*common, "--out", str(wsdream_folder)])
    again = pd.read_csv(wsdream_folder / "results.csv")
    pd.testing.assert_frame_equal(results, again)
    gains = results["before"] - results["updated"], results["before"] - results["refit"]
    np.testing.assert_allclose(results["recovery"], gains[0] / gains[1])
    benchmark.main([*common, "--new-entities", "--models", "SAMoERegressor"])
    text = page.read_text()
    assert f"| SharpQoSRegressor | 1 | {results['before'].iloc[-1]:.4f} |" in text
    assert "| new users | SAMoERegressor | 1 |" in text
    assert "| new services | SAMoERegressor | 1 |" in text


@pytest.mark.usefixtures("tiny_regressors")
@pytest.mark.parametrize("real", [False, True], ids=["made-up", "files"])
def test_quickstart_runs(example, wsdream_folder, capsys, monkeypatch, real):
    quickstart = example("quickstart")
    monkeypatch.setattr(quickstart, "make_qos", lambda **_: make_qos(20, 30, 0.5, random_state=0))
    arguments = ["--data", str(wsdream_folder)] if real else []
    table = quickstart.main([*arguments, "--density", "0.3"])
    assert list(table.index) == ["SAMoERegressor", "service median", "constant median"]
    captured = capsys.readouterr()
    assert "The five services predicted fastest for user" in captured.out
    assert "final: epoch 2/2" in captured.err


@pytest.mark.usefixtures("tiny_regressors")
def test_speed_benchmark_runs(example, monkeypatch, capsys):
    benchmark = example("benchmark_speed")
    monkeypatch.setattr(benchmark, "load", lambda _: make_qos(20, 30, 0.5, random_state=0))
    benchmark.main(["--epochs", "1", "--repeats", "1"])
    output = capsys.readouterr().out
    assert "fit / bare loop at batch 256" in output
    assert "module alone / predict" in output


@pytest.mark.parametrize("real", [False, True], ids=["made-up", "files"])
def test_latent_states_are_drawn(wsdream_folder, monkeypatch, capsys, real):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    arguments = ["--out", str(wsdream_folder / "picture.png")]
    arguments += ["--data", str(wsdream_folder)] if real else []
    monkeypatch.setattr(sys, "argv", ["plot_latent_states.py", *arguments])
    runpy.run_path(str(EXAMPLES / "plot_latent_states.py"))
    assert (wsdream_folder / "picture.png").stat().st_size > 10_000
    assert "log posterior" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_regressors")
def test_joint_prediction_is_drawn(capsys, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "show", lambda: None)
    result = runpy.run_path(str(EXAMPLES / "plot_joint_qos.py"))
    assert np.isfinite(result["errors"].to_numpy()).all()
    assert len(result["figure"].axes) == 4
    pyplot.close("all")
    assert "throughput" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_regressors")
@pytest.mark.parametrize("real", [False, True], ids=["made-up", "files"])
def test_course_and_attention_are_drawn(temporal_folder, monkeypatch, capsys, real):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    arguments = ["--out", str(temporal_folder / "picture.png")]
    arguments += ["--data", str(temporal_folder)] if real else []
    monkeypatch.setattr(sys, "argv", ["plot_temporal.py", *arguments])
    result = runpy.run_path(str(EXAMPLES / "plot_temporal.py"))
    assert (temporal_folder / "picture.png").stat().st_size > 10_000
    assert result["model"].attention_weights([[0, 0, 1]]).shape[-1] == len(result["window"])
    importlib.import_module("matplotlib.pyplot").close("all")
    assert "one step ahead: MAE" in capsys.readouterr().out
