"""Variants of the methods, validation folds, paired differences, and their report."""

import warnings

import numpy as np
import pandas as pd
import pytest

from skqos import __version__
from skqos._parameters import warn_of_unused_parameters
from skqos.benchmarks import Split, list_splits
from skqos.benchmarks.ablation_report import (
    label_split,
    load_ablations,
    make_page_tables,
    make_table,
    read_runs,
    summarise,
    write_report,
)
from skqos.benchmarks.ablations import DEFAULT, METHODS, R2SL, SA_MOE, SETTINGS, SHARP_QOS
from skqos.benchmarks.differences import Z, compare, sum_by_user
from skqos.benchmarks.folds import take_fold
from skqos.datasets import make_qos

REFILL = [DEFAULT, "factors", "... fresh", "... refill"]
PARTS = [(method, part) for method in METHODS.values() for part in method.parts]


@pytest.mark.parametrize(("method", "part"), PARTS, ids=lambda one: getattr(one, "name", ""))
def test_each_part_has_an_effect(method, part):
    params = method.params(part)
    model = method.estimator(**params)
    model._validate_params()
    model._check_parameters()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unused_parameters(model)
    if part.name == DEFAULT:
        assert not params
    else:
        reference = method.estimator(**method.params(method.part(part.reference)))
        assert model.get_params() != reference.get_params()


def test_names_are_unique_and_splits_exist():
    for method in METHODS.values():
        assert len({part.name for part in method.parts}) == len(method.parts)
        for setting in method.settings:
            for qos in method.qos:
                assert SETTINGS[setting].format(qos) in list_splits().index


def test_chosen_parts_come_with_what_they_are_compared_with():
    names = [part.name for part in SHARP_QOS.choose(["... 3 layers"])]
    assert names == [DEFAULT, "valued graph", "... 3 layers"]
    assert [part.name for part in SA_MOE.choose(["refill"])] == REFILL
    names = [part.name for part in R2SL.choose(["network"], only_main=True)]
    assert names == [DEFAULT, "no skip connection"]
    params = {"n_factors": 16, "second_stage_start": "fresh", "refill_ratio": 1.0}
    assert SA_MOE.params(SA_MOE.part("... refill")) == params


def test_one_fit_learns_all_qos_where_the_method_does():
    both = ("wsdream1-rt-0.01", "wsdream1-tp-0.01")
    assert SHARP_QOS.groups("0.01", ["rt", "tp"]) == [both]
    assert R2SL.groups("0.01", ["rt", "tp"]) == [(name,) for name in both]
    assert SHARP_QOS.groups("0.01", ["tp"]) == [both[1:]]


def test_models_receive_context_where_there_is_some():
    data = make_qos(20, 30, density=0.5, random_state=0)
    split = Split(data.X, data.y, data.X, None, users=data.users, services=data.services)
    model = R2SL.make(R2SL.part("5 states"), split, random_state=3)
    assert model[-1].get_params()["n_states"] == 5
    assert model[-1].random_state == 3
    plain = R2SL.make(R2SL.part(DEFAULT), Split(data.X, data.y, data.X, None))
    assert type(plain) is R2SL.estimator


@pytest.fixture
def split():
    data = make_qos(20, 30, density=0.6, random_state=0)
    rows = np.random.default_rng(0).permutation(len(data.y))
    X, y = data.X[rows], data.y[rows]
    return Split(X[:200], y[:200], X[200:], y[200:])


def cells(X):
    return sorted(map(tuple, X.tolist()))


def test_folds_are_the_training_rows_each_once(split):
    folds = [take_fold(split, k) for k in range(5)]
    assert cells(np.concatenate([fold.X_test for fold in folds])) == cells(split.X)
    for fold in folds:
        assert cells(np.concatenate([fold.X, fold.X_test])) == cells(split.X)
        assert len(fold.y) == 160


def test_folds_of_new_users_hold_out_users(split):
    is_new = split.X[:, 0] < 4
    new = Split(split.X[~is_new], split.y[~is_new], split.X[is_new], split.y[is_new])
    for k in range(5):
        fold = take_fold(new, k)
        assert not {*fold.X[:, 0]} & {*fold.X_test[:, 0]}
        assert len(fold.y) + len(fold.y_test) == len(new.y)


def test_folds_in_time_are_rows_of_the_last_step():
    data = make_qos(20, 30, density=0.4, n_time_steps=3, random_state=0)
    split = Split(data.X, data.y, data.X[:5], None)
    folds = [take_fold(split, k) for k in range(5)]
    tests = np.concatenate([fold.X_test for fold in folds])
    assert cells(tests) == cells(data.X[data.X[:, 2] == 2])
    assert all((fold.X[:, 2] < 2).sum() == (data.X[:, 2] < 2).sum() for fold in folds)


def make_errors(split, seed, scale=1.0):
    noise = np.random.default_rng(seed).standard_normal(len(split.y_test))
    return sum_by_user(split, split.y_test + scale * noise).assign(seed=seed, fold="test")


def test_errors_are_summed_by_user(split):
    found = sum_by_user(split, split.y_test + 2.0)
    assert found["n"].sum() == len(split.y_test)
    np.testing.assert_allclose(found["absolute"], 2 * found["n"])
    np.testing.assert_allclose(found["squared"], 4 * found["n"])


def test_a_difference_has_the_width_that_resampled_users_give():
    rng = np.random.default_rng(0)
    n = 300
    level = rng.gamma(2.0, size=n)
    reference = pd.DataFrame({"seed": 0, "user": np.arange(n), "n": 1, "absolute": level})
    reference["squared"] = level**2
    own = reference.assign(absolute=level * rng.normal(0.9, 0.3, n))
    found = compare(own, reference)
    draws = rng.integers(n, size=(2000, n))
    ratios = own["absolute"].to_numpy()[draws].sum(1) / level[draws].sum(1)
    assert found.mae == pytest.approx(own["absolute"].sum() / level.sum() - 1)
    assert found.half_width == pytest.approx(Z * ratios.std(), rel=0.1)


def test_the_same_models_do_not_differ_and_seeds_widen_the_interval(split):
    both = pd.concat([make_errors(split, seed) for seed in (0, 1)])
    same = compare(both, both)
    assert same.mae == same.half_width == same.rmse == 0
    other = pd.concat([make_errors(split, 0, 1.0), make_errors(split, 1, 1.5)])
    found = compare(other, both)
    np.testing.assert_allclose(found.by_seed, [0, 0.5], atol=1e-12)
    assert found.rmse == pytest.approx(0.25, abs=0.05)
    assert found.half_width > Z * 0.25


def make_runs(folder, split, models, fold="test", seeds=(0, 1)):
    folder.mkdir()
    rows, errors = [], []
    for model, scale in models.items():
        for seed in seeds:
            key = {"split": "wsdream1-rt-0.025", "fold": fold, "model": model, "seed": seed}
            cost = {"mae": scale, "rmse": 2 * scale, "fit_s": 3.0, "device": "cpu"}
            rows.append({**key, **cost})
            errors.append(make_errors(split, seed, scale).drop(columns="fold").assign(**key))
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    pd.concat(errors).to_csv(folder / "user_errors.csv", index=False)


def test_the_report_compares_each_part_with_its_reference(split, tmp_path):
    models = {"SA-MoE, default": 1.0, "SA-MoE, factors": 2.0, "SA-MoE, ... fresh": 1.0}
    make_runs(tmp_path / "a", split, models)
    make_runs(tmp_path / "b", split, {"SA-MoE, MLP alone": 1.1}, seeds=(1,))
    summary = write_report(tmp_path, *read_runs([tmp_path / "a", tmp_path / "b"]))
    found = summary.set_index("part")["difference"]
    assert found.to_dict() == pytest.approx(
        {"default": 0, "factors": 100, "... fresh": -50, "MLP alone": 10}
    )
    text = (tmp_path / "ablations.md").read_text()
    assert "| ... fresh | factors | 2 | 1 | 2 | -50.0 ± " in text
    assert "| default |  | 2 | 1 | 2 |  |  |  | 3 | cpu |" in text
    assert "## SA-MoE" in text


def test_the_page_has_a_table_per_method_with_a_column_per_split(split, tmp_path):
    make_runs(tmp_path / "a", split, {"SA-MoE, default": 1.0, "SA-MoE, factors": 2.0})
    make_runs(tmp_path / "b", split, {"R2SL, default": 1.0, "R2SL, 2 filters": 1.0})
    make_runs(tmp_path / "c", split, {"R2SL, no states": 1.0}, seeds=(7,))
    write_report(tmp_path, *read_runs([tmp_path / name for name in "abc"]))
    stored = pd.read_csv(tmp_path / "ablations.csv")
    assert stored["version"].eq(__version__).all()
    tables = make_page_tables(stored)
    assert list(tables) == ["ablations-r2sl", "ablations-sa_moe"]
    assert list(make_page_tables(stored, "-a")) == ["ablations-r2sl-a", "ablations-sa_moe-a"]
    assert tables["ablations-r2sl"].splitlines() == [
        "| variant | compared with | RT, 2.5 % | fit, times the default |",
        "|---|---|---|---|",
        "| default |  | 1 |  |",
        "| no states | default |  | 1.0 |",
        "| 2 filters | default | +0.0 ± 0.0 | 1.0 |",
    ]
    on_gpu = make_page_tables(stored.assign(device="cuda"))["ablations-r2sl"]
    assert "| variant | compared with | RT, 2.5 % |" in on_gpu.splitlines()
    # The interval of this difference does not contain 0.
    assert "| factors | default | **+100.0 ± " in tables["ablations-sa_moe"]


@pytest.mark.parametrize("defaults", ["former", "present"])
def test_stored_ablations_are_of_known_parts_and_splits(defaults):
    summary = load_ablations(defaults)
    for row in summary.itertuples():
        assert METHODS[row.method].part(row.part).reference == row.reference
        assert label_split(row.split)
    with pytest.raises(ValueError, match="'wsdream9' is not a split of the ablations"):
        label_split("wsdream9")


def test_validation_folds_are_told_apart_from_the_test(split, tmp_path):
    make_runs(tmp_path / "a", split, {"R2SL, default": 1.0, "R2SL, no states": 2.0}, fold="0")
    make_runs(tmp_path / "b", split, {"R2SL, no states": 2.0})
    summary = summarise(*read_runs([tmp_path / "a", tmp_path / "b"]))
    assert list(summary["cells"]) == ["test", "validation", "validation"]
    assert summary.set_index(["cells", "part"])["difference"].to_dict() == pytest.approx(
        {
            ("test", "no states"): np.nan,
            ("validation", "default"): 0,
            ("validation", "no states"): 100,
        },
        nan_ok=True,
    )
    assert make_table(summary).count("\n") == 4


def test_other_files_are_refused(tmp_path):
    for name in ("results.csv", "user_errors.csv"):
        (tmp_path / name).write_text("split,mae\na,1\n")
    with pytest.raises(ValueError, match=r"results.csv must have the columns"):
        read_runs([tmp_path])
