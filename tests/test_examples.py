"""The example scripts: they run, and the benchmark is honest."""

import importlib
import inspect
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skqos import R2SLRegressor, SAMoERegressor, SharpQoSRegressor, TPMCFRegressor, base
from skqos.baselines import EmbeddingMLPRegressor
from skqos.benchmarks import Split, accuracy, load_published_results, runs, wsdream2
from skqos.benchmarks.runs import read_rows
from skqos.benchmarks.scores import flag_outliers
from skqos.benchmarks.stream_tables import METHODS
from skqos.benchmarks.wsdream1 import read_split
from skqos.datasets import make_qos
from tests import forked

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TINY = {
    # A search enqueues the defaults, which must be within its space.
    EmbeddingMLPRegressor: {"max_epochs": 2, "embedding_dim": 16},
    SAMoERegressor: {
        "max_epochs": 2,
        "first_stage_epochs": 2,
        "batch_size": 256,
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
            # A clone must keep the very objects that it is given.
            smaller = {name: v for name, v in tiny.items() if params.get(name) != v}
            original(self, **{**params, **smaller})

        # Not those of `small`: a clone is made with them.
        small.__signature__ = inspect.signature(original)
        return small

    monkeypatch.setattr(base, "MIN_AUTO_BATCH", 256)
    for regressor, tiny in TINY.items():
        monkeypatch.setattr(regressor, "__init__", shrink(regressor.__init__, tiny))


@pytest.fixture
def in_process(monkeypatch, tiny_regressors):
    """Let a benchmark run its tasks here, one after the other, with small regressors."""

    def change(benchmark):
        monkeypatch.setattr(benchmark, "in_own_process", lambda function, *args: function(*args))
        return benchmark

    return change


MODELS = ["service median", "embedding MLP", "LightGBM", "SAMoERegressor", "R2SL, no city"]
ALL_MODELS = [*MODELS, "R2SLRegressor", "VotingRegressor", "SharpQoSRegressor", "SHARP-QoS, no SNR"]
ALL_MODELS += ["UPCC", "IPCC", "UIPCC", "PMF"]
FAST = ["constant median", "service median", "embedding MLP"]
COLUMNS = ["qos", "density", "model", "seed", "mae", "rmse", "mae_filtered", "rmse_filtered"]
COLUMNS += ["regret", "near_best", "fit_s", "pairs_per_s", "peak_mb"]


def run_static(benchmark, folder, out, *options, models=FAST, qos=("rt",), seeds=("0",)):
    arguments = ["--data", str(folder), "--out", str(out), "--models", *models]
    return benchmark.main([*arguments, "--qos", *qos, "--seeds", *seeds, *options])


@pytest.fixture
def _no_figures(monkeypatch):
    """Draw no figures, which take as long as the fits."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@pytest.mark.usefixtures("tiny_regressors", "_no_figures")
def test_benchmark_predicts_the_same_from_permuted_test_labels(
    example, in_process, wsdream_folder, capsys
):
    benchmark = in_process(example("benchmark_static"))
    out = wsdream_folder / "out"
    permute = "--permute-test-labels"
    # Those that learn several QoS at once, then each alone.
    joint = {"models": ["SharpQoSRegressor"], "qos": ["rt", "tp"]}
    run_static(benchmark, wsdream_folder, out, **joint)
    run_static(benchmark, wsdream_folder, out, permute, **joint)
    alone = [name for name in ALL_MODELS if name not in joint["models"]]
    honest = run_static(benchmark, wsdream_folder, out, models=alone)
    permuted = run_static(benchmark, wsdream_folder, out, permute, models=alone)
    predictions = sorted(out.glob("*.npy"))
    assert len(predictions) == 2 + len(alone)
    for path in predictions:
        np.testing.assert_array_equal(np.load(path), np.load(out / "permuted" / path.name))
    assert (honest["rmse"] != permuted["rmse"]).all()
    assert "rt 2.5 % + tp 2.5 %, SharpQoSRegressor, seed 0: MAE" in capsys.readouterr().out


@pytest.mark.usefixtures("_no_figures")
def test_models_are_given_no_test_values(example, in_process, wsdream_folder, monkeypatch):
    benchmark = in_process(example("benchmark_static"))
    seen = []
    fit = benchmark.fit_jointly
    monkeypatch.setattr(
        benchmark,
        "fit_jointly",
        lambda model, splits: seen.extend(splits) or fit(model, splits),
    )
    run_static(benchmark, wsdream_folder, wsdream_folder / "out", models=FAST[:1])
    assert [split.y_test for split in seen] == [None]


@pytest.mark.usefixtures("_no_figures")
def test_processes_at_a_time_change_nothing_but_the_costs(example, wsdream_folder, monkeypatch):
    monkeypatch.setattr(runs, "get_context", lambda _: forked.CONTEXT)
    benchmark = example("benchmark_static")
    two = run_static(
        benchmark, wsdream_folder, wsdream_folder / "a", "--jobs", "2", models=FAST[:2]
    )
    monkeypatch.setattr(benchmark, "in_own_process", lambda function, *args: function(*args))
    one = run_static(benchmark, wsdream_folder, wsdream_folder / "b", models=FAST[:2])
    pd.testing.assert_frame_equal(two[["mae", "rmse"]], one[["mae", "rmse"]])
    assert (two["peak_mb"] > 50).all()


@pytest.mark.usefixtures("_no_figures")
def test_a_failing_model_does_not_stop_the_others(
    example, in_process, wsdream_folder, monkeypatch, capsys
):
    benchmark = in_process(example("benchmark_static"))

    def fail(*_):
        raise RuntimeError("no such luck")

    monkeypatch.setitem(benchmark.DEFAULT, "service median", fail)
    monkeypatch.setitem(example("_static_models").DEFAULT, "service median", fail)
    with pytest.raises(SystemExit, match="service median, seed 0: RuntimeError: no such luck"):
        run_static(benchmark, wsdream_folder, wsdream_folder / "out")
    rows = pd.read_csv(wsdream_folder / "out" / "results.csv")
    assert list(rows["model"]) == ["constant median", "embedding MLP"]
    assert (wsdream_folder / "out" / "results.md").exists()
    assert "FAILED, RuntimeError: no such luck" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no such luck"):
        run_static(benchmark, wsdream_folder, wsdream_folder / "b", models=["service median"])


@pytest.mark.usefixtures("_no_figures")
def test_a_run_goes_on_where_a_killed_one_ended(example, in_process, wsdream_folder, capsys):
    benchmark = in_process(example("benchmark_static"))
    out = wsdream_folder / "out"
    first = run_static(benchmark, wsdream_folder, out)
    path = out / "results.csv"
    text = path.read_text()
    path.write_text(text[: text.rindex("embedding MLP") + 20])
    capsys.readouterr()
    assert list(read_rows(path)["model"]) == FAST[:2]
    second = run_static(benchmark, wsdream_folder, out)
    output = capsys.readouterr().out
    assert output.count("skipped, its results are there") == 2
    assert "[3/3] rt 2.5 %, embedding MLP, seed 0: MAE" in output
    assert list(pd.read_csv(path).columns) == COLUMNS
    pd.testing.assert_frame_equal(second[["mae", "rmse"]], first[["mae", "rmse"]])
    run_static(benchmark, wsdream_folder, out, seeds=("0", "1"))
    assert capsys.readouterr().out.count("skipped, its results are there") == 3
    run_static(benchmark, wsdream_folder, out, "--fresh", models=FAST[:1])
    assert "skipped" not in capsys.readouterr().out
    assert list(pd.read_csv(path)["model"]) == FAST[:1]


def test_results_of_another_benchmark_are_not_added_to(example, in_process, wsdream_folder):
    benchmark = in_process(example("benchmark_static"))
    path = wsdream_folder / "out" / "results.csv"
    path.parent.mkdir()
    path.write_text("task,model,seed\nother,constant median,0\n")
    with pytest.raises(ValueError, match="must begin with the columns"):
        run_static(benchmark, wsdream_folder, path.parent)
    with pytest.raises(ValueError, match="not results of this script"):
        benchmark.main(["--table", str(path)])


def test_a_result_that_is_there_twice_counts_once(example, tmp_path):
    benchmark = example("benchmark_static")
    path = tmp_path / "results.csv"
    row = {"qos": "rt", "density": 0.025, "model": "embedding MLP", "seed": 0, "rmse": 2.0}
    row |= {"mae_filtered": 1.0, "rmse_filtered": 2.0, "fit_s": 1.0, "pairs_per_s": 1.0}
    pd.DataFrame([{**row, "mae": mae, "peak_mb": 1.0} for mae in (1.0, 3.0)]).to_csv(
        path, index=False
    )
    summary = benchmark.main(["--table", str(path)])
    assert summary.loc[("rt", 0.025, "embedding MLP"), "mae"] == 3


def test_benchmark_writes_tables_and_figures(example, in_process, wsdream_folder):
    pytest.importorskip("matplotlib")
    benchmark = in_process(example("benchmark_static"))
    out = wsdream_folder / "out"
    summary = run_static(benchmark, wsdream_folder, out, qos=("rt", "tp"), seeds=("0", "1"))
    assert list(pd.read_csv(out / "results.csv").columns) == COLUMNS
    text = (out / "results.md").read_text()
    head = "| model | seeds | MAE (deviation) | RMSE (deviation) | MAE / MLP | RMSE / MLP |"
    assert text.count(head) == 4
    assert f"{head} regret | near the best | fit, CPU s | fit / MLP | pairs / CPU s |" in text
    assert text.index("Test cells unfiltered") < text.index("Test cells filtered")
    row = summary.loc[("rt", 0.025, "service median")]
    assert row["seeds"] == 2
    beside = f"| **service median** |  | {row['mae']:.3f} / {row['rmse']:.3f} |  |"
    published = text[text.index("## Published figures beside ours") :]
    assert beside in published
    assert "| SA-MoE- | 2026 | 0.424 / 1.375 |" in published
    for name in ("errors.png", "error_against_time.png"):
        assert (out / name).stat().st_size > 10_000
        assert f"({name})" in text


def test_benchmark_goes_without_figures_where_matplotlib_is_not(
    example, in_process, wsdream_folder, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    benchmark = in_process(example("benchmark_static"))
    run_static(benchmark, wsdream_folder, wsdream_folder / "out", models=FAST[:1])
    assert "no figures: matplotlib is not installed" in capsys.readouterr().out
    assert "png" not in (wsdream_folder / "out" / "results.md").read_text()


@pytest.mark.usefixtures("_no_figures")
def test_benchmark_writes_its_table_into_the_readme(example, in_process, wsdream_folder):
    benchmark = in_process(example("benchmark_static"))
    readme, out = wsdream_folder / "README.md", wsdream_folder / "out"
    readme.write_text("before\n<!-- results: begin -->\nold\n<!-- results: end -->\nafter\n")
    run_static(benchmark, wsdream_folder, out, seeds=("0", "1"))
    benchmark.main(["--table", str(out / "results.csv"), "--readme", str(readme)])
    text = readme.read_text()
    assert text.startswith("before\n<!-- results: begin -->\n**Response time in s, density 2.5 %**")
    assert text.endswith("<!-- results: end -->\nafter\n")
    assert "old" not in text
    mlp = next(line for line in text.splitlines() if "embedding MLP" in line)
    assert "| 1.000 | 1.000 |" in mlp
    measured = pd.read_csv(out / "results.csv").query("model == 'embedding MLP'")["mae"]
    assert f"| {measured.mean():.3f} ({measured.std(ddof=0):.3f}) |" in mlp
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="has none of the marks"):
        benchmark.main(["--table", str(out / "results.csv"), "--readme", str(readme)])


@pytest.mark.usefixtures("_no_figures")
def test_benchmark_scores_the_filtered_protocol_from_the_same_predictions(
    example, in_process, wsdream_folder
):
    benchmark = in_process(example("benchmark_static"))
    out, page = wsdream_folder / "out", wsdream_folder / "page.md"
    page.write_text("<!-- filtered: begin -->\n<!-- filtered: end -->\n")
    run_static(benchmark, wsdream_folder, out, "--readme", str(page))
    rows = pd.read_csv(out / "results.csv").set_index("model")
    split = read_split(wsdream_folder, "rt")
    outliers = flag_outliers(split)
    assert 0 < outliers.sum() < len(outliers) / 5
    prediction = np.load(out / "rt-0.025-embedding_MLP-0.npy")
    expected = np.abs(prediction - split.y_test)[~outliers].mean()
    assert rows.loc["embedding MLP", "mae_filtered"] == pytest.approx(expected)
    assert rows.loc["embedding MLP", "mae"] == pytest.approx(
        np.abs(prediction - split.y_test).mean()
    )
    assert f"| {expected:.3f} |" in page.read_text().replace("*", "")


TEMPORAL_MODELS = ["pair median", "LightGBM", "embedding MLP", "EmbeddingMLPRegressor, 1 member"]
TEMPORAL_MODELS += ["TPMCFRegressor", "TPMCF, GRU"]
TEMPORAL_SPLIT = ["--slot", "5", "--window", "4", "--density", "0.2", "--given-share", "0.4"]


@pytest.mark.usefixtures("tiny_regressors", "_no_figures")
@pytest.mark.parametrize("protocol", ["imputation", "forecast"])
def test_temporal_benchmark_predicts_the_same_from_permuted_test_labels(
    example, in_process, temporal_folder, protocol
):
    benchmark = in_process(example("benchmark_temporal"))
    out = temporal_folder / "out"
    common = ["--data", str(temporal_folder), *TEMPORAL_SPLIT, "--protocol", protocol]
    common += ["--out", str(out), "--seeds", "0", "--models", *TEMPORAL_MODELS]
    honest = benchmark.main(common)
    permuted = benchmark.main([*common, "--permute-test-labels"])
    predictions = sorted(out.glob("*.npy"))
    assert len(predictions) == len(TEMPORAL_MODELS)
    for path in predictions:
        np.testing.assert_array_equal(np.load(path), np.load(out / "permuted" / path.name))
    assert (honest["rmse"] != permuted["rmse"]).all()


@pytest.mark.usefixtures("tiny_regressors")
def test_temporal_benchmark_forecasts_several_distances_with_one_fit(
    example, in_process, temporal_folder, monkeypatch
):
    benchmark = in_process(example("benchmark_temporal"))
    fitted = []
    fit = benchmark.MedianRegressor.fit
    monkeypatch.setattr(
        benchmark.MedianRegressor,
        "fit",
        lambda self, X, *args: fitted.append(set(X[:, 2])) or fit(self, X, *args),
    )
    run = ["--data", str(temporal_folder), "--density", "0.2", "--given-share", "0.4"]
    run += ["--protocol", "forecast", "--slot", "4", "--window", "3", "--ahead", "1", "2"]
    out = temporal_folder / "out"
    benchmark.main([*run, "--out", str(out), "--seeds", "0", "--models", "pair median"])
    assert fitted == [{1, 2, 3}]
    rows = pd.read_csv(out / "results.csv")
    names = ["forecast 20 % of slot 4 from 3", "forecast 20 % of slot 5 from 3, 2 ahead"]
    assert list(rows["task"]) == names
    assert rows["mae"].nunique() == 2
    with pytest.raises(SystemExit):
        benchmark.main([*run, "--out", str(out), "--protocol", "imputation"])


@pytest.mark.usefixtures("tiny_regressors")
def test_temporal_benchmark_adds_results_and_makes_each_table(example, in_process, temporal_folder):
    benchmark = in_process(example("benchmark_temporal"))
    out, page = temporal_folder / "out", temporal_folder / "page.md"
    run = ["--data", str(temporal_folder), *TEMPORAL_SPLIT, "--out", str(out), "--seeds", "0"]
    benchmark.main([*run, "--models", "embedding MLP"])
    marks = {"temporal": "mae", "temporal filtered": "mae_filtered"}
    marks["temporal answered"] = "mae_answered"
    page.write_text("".join(f"<!-- {m}: begin -->\nold\n<!-- {m}: end -->\n" for m in marks))
    benchmark.main([*run, "--models", "TPMCFRegressor", "--epochs", "2", "--readme", str(page)])
    rows = pd.read_csv(out / "results.csv").set_index("model")
    assert list(rows.index) == ["embedding MLP", "TPMCFRegressor (2 epochs)"]
    errors = np.abs(np.load(next(out.glob("*embedding_MLP-0.npy"))) - _test_values(temporal_folder))
    answered = _test_values(temporal_folder) < 19.9
    assert 0 < answered.sum() < len(answered)
    row = rows.loc["embedding MLP"]
    assert row["mae"] == pytest.approx(errors.mean())
    assert row["mae_answered"] == pytest.approx(errors[answered].mean())
    text = page.read_text()
    assert "old" not in text
    lines = [line for line in text.splitlines() if "| embedding MLP |" in line]
    for line, column in zip(lines, marks.values(), strict=True):
        assert f"| {row[column]:.3f} |" in line.replace("*", "")
        assert "| 1.000 | 1.000 |" in line


def test_tables_list_the_models_of_the_benchmarks_in_their_order(example):
    assert tuple(example("benchmark_static").DEFAULT) == accuracy.STATIC_MODELS
    assert tuple(example("benchmark_temporal").DEFAULT) == accuracy.TEMPORAL_MODELS
    assert tuple(example("benchmark_stream").METHODS) == METHODS


def test_temporal_figures_stand_beside_the_published_ones(example):
    benchmark = example("benchmark_temporal")
    errors = {"mae": 0.7, "rmse": 2.4, "seeds": 3}
    rows = [
        {"task": benchmark.BASELINE_TASK, "model": "TPMCFRegressor", **errors},
        {"task": benchmark.BASELINE_TASK, "model": "TPMCF, GRU", **errors},
        {"task": "forecast 10 % of slot 63 from 8", "model": "TPMCFRegressor", **errors},
    ]
    summary = pd.DataFrame(rows).set_index(["task", "model"])
    page = benchmark.make_temporal_page({"temporal": summary, "temporal filtered": summary - 0.1})
    ours = [line for line in page.splitlines() if "this benchmark" in line]
    assert len(ours) == 2
    assert "| **TPMCFRegressor** |  |  | 0.700 / 2.400 |" in ours[0]
    assert "| **TPMCFRegressor** |  |  | 0.600 / 2.300 |" in ours[1]


def _test_values(folder):
    options = {"slot": 5, "window": 4, "density": 0.2, "given_share": 0.4}
    return wsdream2.make_split(wsdream2.read_cells(folder), "imputation", **options).y_test


def test_temporal_benchmark_warns_of_an_unfair_run(example, capsys):
    benchmark = example("benchmark_temporal")
    row = {"task": benchmark.BASELINE_TASK, "model": "embedding MLP", "seed": 0}
    benchmark.warn_unless_fair(pd.DataFrame([{**row, "mae": 0.86, "rmse": 2.8}]))
    assert "WARNING" not in capsys.readouterr().out
    benchmark.warn_unless_fair(pd.DataFrame([{**row, "mae": 0.88, "rmse": 2.8}]))
    assert "WARNING" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_regressors")
def test_the_stream_benchmark_goes_on_where_it_was_interrupted(example, temporal_folder):
    benchmark = example("benchmark_stream")
    run = ["--data", str(temporal_folder), "--density", "0.2", "--given-share", "0.4"]
    run += ["--slots", "6", "--window", "3"]
    out, other, page = (temporal_folder / name for name in ("out", "other", "page.md"))
    page.write_text("<!-- stream: begin -->\nold\n<!-- stream: end -->\n")
    benchmark.FIRST_COUNTED = 4
    benchmark.main([*run, "--out", str(out), "--readme", str(page)])
    # As if the process had been killed after two slots of each method.
    first = [*run, "--out", str(other)]
    first[first.index("6")] = "5"
    benchmark.main(first)
    benchmark.main([*run, "--out", str(other)])
    whole, resumed = (
        pd.read_csv(folder / "results.csv").set_index(["method", "slot"]).sort_index()
        for folder in (out, other)
    )
    assert set(whole.index) == {(name, slot) for name in benchmark.METHODS for slot in (3, 4, 5)}
    np.testing.assert_array_equal(whole["mae"], resumed["mae"])
    text = page.read_text()
    assert "old" not in text
    assert f"| {benchmark.UPDATES} |" in text


@pytest.mark.usefixtures("tiny_regressors")
def test_temporal_scale_is_measured(example, temporal_folder):
    scale = example("benchmark_temporal_scale")
    result = scale.measure(temporal_folder, share=0.5, threads=1)
    assert result["rows"] == pytest.approx(
        len(np.loadtxt(temporal_folder / "rtdata.txt")) / 2, rel=0.1
    )
    assert 0.05 < result["read_gb"] <= result["peak_gb"] < 20
    assert result["gcmf_epoch_s"] > 0
    assert result["final_epoch_s"] > 0


@pytest.mark.usefixtures("tiny_regressors")
@pytest.mark.parametrize("name", ["SAMoERegressor", "TPMCFRegressor"])
def test_scale_is_measured(example, tiny_regressors, monkeypatch, name):
    # More batches than are to be measured.
    monkeypatch.setitem(TINY[SAMoERegressor], "batch_size", 32)
    benchmark = example("benchmark_scale")
    found = benchmark.measure(name, 0.05, 3)
    assert found["rows"] == pytest.approx(17 * 291 * 0.025, abs=1)
    # Tiny regressors have two epochs of a stage, or one.
    assert len(benchmark.StepTimes.found) == {"SAMoERegressor": 12, "TPMCFRegressor": 1}[name]
    assert min(found.values()) > 0
    assert found["peak_gb"] >= found["data_gb"]


def test_parts_are_compared_with_one_fit(example, tiny_regressors, monkeypatch, capsys):
    pytest.importorskip("pyarrow")
    benchmark = example("benchmark_scale")
    monkeypatch.setattr(benchmark, "N_USERS", 20)
    monkeypatch.setattr(benchmark, "N_SERVICES", 30)
    arguments = ["--models", "R2SLRegressor", "--parts", "3", "--rows", "300"]
    (found,) = benchmark.main(arguments)
    assert found["ratio"] == pytest.approx(found["mae_3"] / found["mae_1"])
    assert "R2SLRegressor: fit_s_3" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_regressors")
def test_cold_start_benchmark_tells_the_errors(example, wsdream_folder, capsys):
    cold_start = example("benchmark_cold_start")
    run = ["--data", str(wsdream_folder), "--out", str(wsdream_folder / "out"), "--qos", "rt"]
    cold_start.main(run)
    output = capsys.readouterr().out
    assert "wsdream1-rt-new-users, SAMoERegressor: MAE" in output
    assert "| model | new users, response time, s | new services, response time, s |" in output
    assert "| constant median |  |" in output
    cold_start.main(run)
    assert "MAE" not in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_regressors")
def test_benchmark_of_intervals_goes_on_where_it_ended(example, in_process, wsdream_folder, capsys):
    benchmark = in_process(example("benchmark_intervals"))
    out = wsdream_folder / "out"
    common = ["--data", str(wsdream_folder), "--out", str(out), "--qos", "rt"]
    common += ["--models", "EmbeddingMLPRegressor"]
    benchmark.main([*common, "--seeds", "0"])
    benchmark.main([*common, "--seeds", "0", "1"])
    rows = pd.read_csv(out / "intervals.csv")
    assert len(rows) == 2
    assert rows["coverage"].between(0.3, 1).all()
    assert (rows["lowest_tenth"] <= rows["highest_tenth"]).all()
    # Of the first seed, each time.
    assert rows["times"].notna().tolist() == [True, False]
    assert "| given | response time | `EmbeddingMLPRegressor` | 2 |" in capsys.readouterr().out
    assert (out / "intervals.md").read_text().count("\n") == 3


@pytest.mark.usefixtures("tiny_regressors")
def test_benchmark_of_intervals_fits_all_qos_at_once(example, in_process, wsdream_folder):
    benchmark = in_process(example("benchmark_intervals"))
    # The made-up users have a few cells of throughput each.
    benchmark.N_SERVICES = 5
    out = wsdream_folder / "out"
    common = ["--data", str(wsdream_folder), "--out", str(out), "--models", "SharpQoSRegressor"]
    benchmark.main([*common, "--seeds", "0"])
    rows = pd.read_csv(out / "intervals.csv")
    assert list(rows["qos"]) == ["rt", "tp"]
    assert rows["fit_s"].nunique() == 1
    assert rows["mae"].nunique() == 2


def test_export_benchmark_measures_both_files(example, in_process, wsdream_folder, capsys):
    pytest.importorskip("onnxscript")
    benchmark = in_process(example("benchmark_export"))
    run = ["--data", str(wsdream_folder), "--out", str(wsdream_folder / "out")]
    run += ["--models", "EmbeddingMLPRegressor"]
    rows = benchmark.main(run)
    assert list(rows["predictor"]) == ["OnnxPredictor", "load_model"]
    costs = rows.drop(columns=["model", "predictor", "difference", "export_s"])
    assert (costs > 0).all(axis=None)
    assert rows["export_s"][0] > 0
    assert rows["difference"][0] < 1e-4
    assert "| `EmbeddingMLPRegressor` | `OnnxPredictor` |" in capsys.readouterr().out
    pd.testing.assert_frame_equal(benchmark.main(run), rows)
    assert "skipped, its results are there" in capsys.readouterr().out


def test_exports_are_compared_on_unknown_ids_too(example):
    X = np.array([[1, 5, 0], [2, 6, 3]])
    pairs = example("benchmark_export").list_pairs([Split(X, np.ones(2), X, np.ones(2))])
    assert pairs["pair"].tolist() == [[1, 5, 3]]
    assert pairs["user"].tolist() == [[1, 5, 3], [1, 6, 3], [1, 7, 3]]
    assert len(pairs["all"]) == 9
    assert pairs["all"][-1].tolist() == [3, 7, 3]


def test_a_service_that_is_held_out_of_one_qos_is_learnt_from_none(example, wsdream_folder):
    benchmark = example("benchmark_intervals")
    problem = benchmark.Problem(("rt", "tp"), "services", "SharpQoSRegressor", 0)
    splits = problem.read(wsdream_folder)
    asked, learnt = (
        np.unique(np.concatenate([getattr(split, name)[:, 1] for split in splits]))
        for name in ("X_test", "X")
    )
    assert len(asked) > 0
    assert not np.isin(asked, learnt).any()


@pytest.mark.usefixtures("tiny_regressors")
def test_few_shot_benchmark_goes_on_where_it_ended(example, in_process, wsdream_folder, capsys):
    benchmark = in_process(example("benchmark_few_shot"))
    # The made-up users have a few rows each.
    benchmark.N_MEASURED = (0, 1, 2)
    out = wsdream_folder / "out"
    common = ["--data", str(wsdream_folder), "--out", str(out), "--seeds", "0"]
    names = ["SharpQoSRegressor, graph", "R2SLRegressor", "service median", "UPCC"]
    benchmark.main([*common, "--models", "service median"])
    errors = benchmark.main([*common, "--models", *names])
    told = capsys.readouterr().out
    assert "[1/3] SharpQoSRegressor, graph, seed 0" in told
    assert "| QoS | model | update | 0 | 1 | 2 |" in told
    rows = pd.read_csv(out / "results.csv")
    assert len(rows) == 2 * 3 * (2 + 2 + 1 + 1)
    assert errors.shape == (12, 3)
    assert errors.notna().all(axis=None)
    # One QoS alone has results of its own, which take the place of none.
    other = [*common, "--models", "service median", "--out", str(out / "more")]
    assert len(benchmark.main([*other, "--qos", "rt"])) == 1
    assert len(benchmark.main([*other, "--qos", "rt", "tp"])) == 2
    again = benchmark.main(["--table", str(out / "results.csv"), "--out", str(out)])
    pd.testing.assert_frame_equal(again, errors)
    assert {path.name for path in (out / "more").iterdir()} == {
        "results.csv",
        "few_shot.md",
        "few_shot.png",
    }


@pytest.mark.usefixtures("tiny_regressors")
def test_ablation_benchmark_compares_parts_on_the_same_cells(
    example, in_process, wsdream_folder, capsys
):
    benchmark = in_process(example("benchmark_ablation"))
    out = wsdream_folder / "out"
    common = ["--data", str(wsdream_folder), "--out", str(out), "--qos", "rt", "--seeds", "0"]
    common += ["--settings", "0.025", "--parts", "network", "routing"]
    benchmark.main([*common, "--short", "--models", "r2sl"])
    summary = benchmark.main([*common, "--short", "--models", "r2sl", "sharp_qos"])
    assert capsys.readouterr().out.count("skipped, its results are there") == 2
    assert list(summary["part"]) == ["default", "no routing", "default", "no skip connection"]
    rows = pd.read_csv(out / "results.csv")
    errors = pd.read_csv(out / "user_errors.csv")
    sums = errors.groupby(["model"])[["n", "absolute"]].sum()
    found = rows.set_index("model")["mae"]
    pd.testing.assert_series_equal(
        found.sort_index(), sums["absolute"] / sums["n"], check_names=False, rtol=1e-4
    )
    again = benchmark.main(["--table", str(out), "--out", str(wsdream_folder / "all")])
    pd.testing.assert_frame_equal(again, summary)
    folds = benchmark.main([*common, "--short", "--models", "r2sl", "--folds", "2"])
    assert list(folds["cells"]) == ["test"] * 4 + ["validation"] * 2
    assert set(pd.read_csv(out / "results.csv")["fold"]) == {"test", "0", "1"}


def test_ablation_benchmark_lists_its_fits(example, capsys):
    benchmark = example("benchmark_ablation")
    common = ["--data", "none", "--out", "none", "--list", "--seeds", "0"]
    benchmark.main([*common, "--short"])
    n_fits = int(capsys.readouterr().out.split()[-2])
    assert 40 < n_fits < 70
    benchmark.main([*common, "--models", "tpmcf", "--parts", "GRU"])
    assert capsys.readouterr().out.splitlines() == [
        "wsdream2-rt-imputation-0.1, TPMCF, default, seed 0",
        "wsdream2-rt-imputation-0.1, TPMCF, GRU, seed 0",
        "2 fits",
    ]
    for options, message in (
        (["--parts", "gru"], r"--parts: unknown ['gru']"),
        (["--settings", "0.01", "--models", "tpmcf"], "no fits"),
        (["--jobs", "0"], "must be at least 1"),
    ):
        with pytest.raises(SystemExit):
            benchmark.main([*common, *options])
        assert message in capsys.readouterr().err


def test_new_users_are_unknown_and_their_rows_are_asked_once(example):
    benchmark = example("benchmark_few_shot")
    data = make_qos(20, 40, density=0.9, random_state=0)
    part = benchmark.hold_out(data.X, data.y, seed=0)
    assert not set(part.X[:, 0]) & set(part.X_new[:, 0])
    assert len(part.y) + len(part.y_new) == len(data.y)
    few, many = part.given(1), part.given(20)
    assert pd.Series(few.X[:, 0]).value_counts().eq(1).all()
    assert pd.Series(many.X[:, 0]).value_counts().eq(20).all()
    np.testing.assert_array_equal(few.X_test, many.X_test)
    assert not {*map(tuple, many.X)} & {*map(tuple, many.X_test)}


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
        X_others, y_others = benchmark.of_others(stream.split, part, column)
        assert set(X_others[:, column]) <= known
        assert 0 < len(y_others) < len(stream.split.y_test)


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
    parts = benchmark.main(
        ["--made-up", "--seeds", "0", "--models", "R2SLRegressor", "--updates", "3"]
    )
    by_one = results[results["model"] == "R2SLRegressor"]
    assert parts["refit"].item() == by_one["refit"].item()
    assert parts["updated"].item() != by_one["updated"].item()
    text = page.read_text()
    last = results.iloc[-1]
    assert f"| {last['model']} | 1 | {last['before']:.4f} |" in text
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
    assert "The five services with the lowest predictions for user" in captured.out
    assert "final: epoch 2/2" in captured.err


@pytest.mark.usefixtures("tiny_regressors")
def test_speed_benchmark_runs(example, monkeypatch, capsys):
    benchmark = example("benchmark_speed")
    monkeypatch.setattr(benchmark, "load", lambda _: make_qos(20, 30, 0.5, random_state=0))
    benchmark.main(["--epochs", "1", "--repeats", "1"])
    output = capsys.readouterr().out
    assert "fit / bare loop at batch 256" in output
    assert "module alone / predict" in output


@pytest.mark.usefixtures("tiny_regressors")
def test_gpu_benchmark_runs(example, wsdream_folder, capsys):
    benchmark = example("benchmark_gpu")
    data = ["--static", str(wsdream_folder), "--devices", "cpu"]
    found = benchmark.main([*data, "--epochs", "1"])
    assert list(found["model"]) == ["SAMoERegressor", "R2SLRegressor", "SharpQoSRegressor"]
    assert (found["fit_s"] > 0).all()
    assert found["mae_1"].notna().tolist() == [False, False, True]
    with pytest.raises(SystemExit):
        benchmark.main([*data, "--models", "TPMCFRegressor"])
    assert "TPMCFRegressor: the data is missing" in capsys.readouterr().err


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
    assert len(result["display"].figure_.axes) == 3
    assert set(result["history"].lines_) == {("final", f"task_weight_{k}") for k in range(2)}
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
    assert result["attention"].attention_.index[-1] == result["last"] - 1
    importlib.import_module("matplotlib.pyplot").close("all")
    assert "one step ahead: MAE" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_regressors")
@pytest.mark.parametrize("real", [False, True], ids=["made-up", "files"])
@pytest.mark.parametrize(
    ("name", "n_axes", "printed"),
    [
        ("plot_training_history", 3, "train_loss"),
        ("plot_experts_and_gates", 4, "best_share"),
        ("plot_group_errors", 3, "same"),
        ("plot_choose_a_service", 2, "met the limit"),
    ],
)
def test_displays_are_drawn(wsdream_folder, monkeypatch, capsys, name, n_axes, printed, real):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    arguments = ["--out", str(wsdream_folder / "picture.png")]
    arguments += ["--data", str(wsdream_folder)] if real else []
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    result = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    assert (wsdream_folder / "picture.png").stat().st_size > 10_000
    assert len(result["figure"].axes) == n_axes
    importlib.import_module("matplotlib.pyplot").close("all")
    assert printed in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_regressors")
@pytest.mark.parametrize(
    ("name", "n_axes", "printed"),
    [
        ("plot_cold_start", 1, "both new"),
        ("plot_forecast", 2, "mean regret"),
        ("plot_partial_fit", 1, "four updates take"),
        ("plot_tuning", 1, "learning_rate"),
    ],
)
def test_stories_run(tmp_path, monkeypatch, capsys, name, n_axes, printed):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--out", str(tmp_path / "picture.png")])
    result = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert len(result["figure"].axes) == n_axes
    importlib.import_module("matplotlib.pyplot").close("all")
    assert printed in capsys.readouterr().out


# --- Beside the published figures ---------------------------------------------------------------


def test_published_draws_are_disjoint_and_count_users_as_the_uniform_draw_does(
    example, monkeypatch
):
    script = example("benchmark_published")
    monkeypatch.setattr(script, "SHAPE", (20, 200))
    monkeypatch.setattr(script, "MIN_TEST_CELLS", 10)
    rng = np.random.default_rng(0)
    # A uniform tenth, and of the first users many more cells than of the last.
    X = np.argwhere(rng.random((20, 200)) < np.linspace(0.9, 0.3, 20)[:, None])
    y = rng.random(len(X))
    uniform = rng.random(len(X)) < 0.1 / np.linspace(0.9, 0.3, 20)[X[:, 0]]
    data = script.Bunch(X=X, y=y, uniform=uniform)
    train, test, weights = script.draw(data, 0.15, seed=0)
    assert not set(train) & set(test)
    assert set(np.flatnonzero(uniform)) <= set(train)
    assert abs(len(train) - 0.15 * 4000) <= 10
    counted = np.bincount(X[test, 0], weights, minlength=20)
    np.testing.assert_allclose(counted, np.bincount(X[uniform, 0], minlength=20))
    data.uniform[:] = True
    train, test, weights = script.draw(data, 0.15, seed=0)
    assert len(train) == 600
    assert len({*train, *test}) == len(X)
    assert (weights == 1).all()


def test_published_errors_of_neighbours_and_pmf_are_those_of_the_package(example):
    published = load_published_results().query("data_set == 'wsdream1'")
    for (qos, density), models in example("benchmark_published").PUBLISHED.items():
        values = published[(published["qos"] == qos) & (published["density"] == density)]["value"]
        for mae, rmse, _ in models.values():
            assert {mae, rmse} <= {*values}


def test_every_example_has_a_test():
    """By name in some test, or as a module that another example imports."""
    sources = [*EXAMPLES.glob("*.py"), *Path(__file__).parent.glob("test_*.py")]
    texts = {path: path.read_text() for path in sources}
    for example in EXAMPLES.glob("[!_]*.py"):
        others = (text for path, text in texts.items() if path != example)
        assert any(
            f"from {example.stem} import" in text or f'"{example.stem}' in text for text in others
        ), f"{example.name} has no test"
