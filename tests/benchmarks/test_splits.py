"""The splits: nested densities, held-out entities, one slot, names."""

import itertools
import shutil

import numpy as np
import pytest

from skqos.benchmarks import Split, list_splits, load_split
from skqos.benchmarks.wsdream1 import hold_out, read_split
from skqos.benchmarks.wsdream2 import make_split, read_cells


def _cells(X, y):
    return set(zip(*X.T.tolist(), y.tolist(), strict=True))


def _shorten_files(folder, split, n):
    """Leave in the files of the split the first rows of each part."""
    for part, X, y in (("train", split.X, split.y), ("test", split.X_test, split.y_test)):
        path = folder / "splits" / f"rt_{part}_0.025.txt"
        np.savetxt(path, np.column_stack([X, y])[:n], fmt=["%d", "%d", "%.3f"])


def test_densities_share_the_test_cells_and_nest_the_training_cells(wsdream_folder):
    # 300 of 600 cells are measured and in the files: leave a part of them out of these.
    _shorten_files(wsdream_folder, read_split(wsdream_folder, "rt"), 60)
    splits = [read_split(wsdream_folder, "rt", density) for density in (0.05, 0.025, 0.2, 0.3)]
    assert [len(split.y) for split in splits] == [30, 60, 120, 180]
    for small, large in itertools.pairwise(splits):
        np.testing.assert_array_equal(small.X_test, large.X_test)
        assert _cells(small.X, small.y) < _cells(large.X, large.y)
    largest = splits[-1]
    assert not {*map(tuple, largest.X)} & {*map(tuple, largest.X_test)}
    with pytest.raises(ValueError, match="the highest density is"):
        read_split(wsdream_folder, "rt", 0.5)


def test_a_folder_without_splits_is_split(wsdream_folder):
    shutil.rmtree(wsdream_folder / "splits")
    split, larger = (read_split(wsdream_folder, "rt", density) for density in (0.025, 0.1))
    assert [len(split.y), len(larger.y)] == [15, 60]
    np.testing.assert_array_equal(split.X_test, larger.X_test)
    assert not {*map(tuple, larger.X)} & {*map(tuple, larger.X_test)}


@pytest.mark.parametrize("column", [0, 1])
def test_held_out_entities_have_no_training_rows(wsdream_folder, column):
    split = read_split(wsdream_folder, "rt")
    part = hold_out(split, column, seed=0)
    assert not set(part.X[:, column]) & set(part.X_test[:, column])
    assert len(part.X_test) > 0
    assert _cells(part.X, part.y) < _cells(split.X, split.y)


def test_the_slot_is_drawn_as_the_baseline_was(temporal_folder):
    cells = read_cells(temporal_folder)
    options = {"density": 0.2, "given_share": 0.4, "slot": 5, "window": 4}
    split = make_split(cells, "imputation", **options)
    rows = np.loadtxt(temporal_folder / "rtdata.txt")
    rows = rows[(rows[:, 2] > 5 - 4) & (rows[:, 2] <= 5)]
    keep = np.random.default_rng(0).random(len(rows)) < 0.2 / 0.4
    test = ~keep & (rows[:, 2] == 5)
    np.testing.assert_array_equal(np.column_stack([split.X, split.y]), rows[keep])
    np.testing.assert_array_equal(np.column_stack([split.X_test, split.y_test]), rows[test])
    for protocol, share in (("forecast", 0.5), ("forecast_all", 1)):
        forecast = make_split(cells, protocol, **options)
        np.testing.assert_array_equal(forecast.X_test, split.X_test)
        assert set(forecast.X[:, 2]) == {1, 2, 3, 4}
        n_past = np.isin(cells.X[:, 2], [1, 2, 3, 4]).sum()
        assert len(forecast.y) == pytest.approx(share * n_past, rel=0.1)


OF_ALL_CELLS = list_splits().query("data_set == 'wsdream1' and not task.str.contains('measured')")


@pytest.mark.parametrize("name", OF_ALL_CELLS.index)
def test_each_name_of_data_set_1_leads_to_its_rows(wsdream_folder, name):
    _shorten_files(wsdream_folder, read_split(wsdream_folder, "rt"), 60)
    split = load_split(name, wsdream_folder)
    listed = list_splits().loc[name]
    assert split.name == name
    assert split.qos == listed["qos"]
    assert {"country", "as"} <= {*split.users, *split.services}
    if "new" not in name and listed["density"] != 0.025:
        assert len(split.y) == round(listed["density"] * 600)
    unknown = [{*split.X_test[:, k]} - {*split.X[:, k]} for k in (0, 1)]
    if "new" in name:
        column = int("services" in name)
        assert unknown[column] == {*split.X_test[:, column]}


def test_densities_of_the_measured_cells_count_those(wsdream_folder, monkeypatch):
    from skqos.benchmarks import _splits

    monkeypatch.setattr(_splits, "N_MEASURED", 300)
    assert len(load_split("wsdream1-rt-measured-0.1", wsdream_folder).y) == 30


def test_data_set_2_may_lie_in_a_folder_of_its_name(temporal_folder, monkeypatch):
    from skqos.benchmarks import wsdream2

    (temporal_folder / "wsdream2").mkdir()
    (temporal_folder / "rtdata.txt").rename(temporal_folder / "wsdream2" / "rtdata.txt")
    monkeypatch.setattr(wsdream2.make_split, "__defaults__", (None, 5, 4))
    imputed, forecast, every = (
        load_split(f"wsdream2-rt-{task}", temporal_folder)
        for task in ("imputation-0.1", "forecast-0.1", "forecast-all")
    )
    assert imputed.X[:, 2].max() == 5
    assert forecast.X[:, 2].max() == 4
    assert len(every.y) > len(forecast.y)


def test_the_share_that_is_given_follows_from_the_number_of_cells(monkeypatch):
    from skqos.benchmarks import wsdream2

    X = np.column_stack(
        [np.zeros(20_000, dtype=int), np.arange(20_000), np.arange(20_000) % 8 + 56]
    )
    cells = wsdream2.SlotCells(X, np.ones(20_000))
    part = wsdream2.make_split(cells, "imputation", density=0.1)
    assert len(part.y) / len(X) == pytest.approx(0.5, abs=0.02)
    with pytest.raises(ValueError, match=r"density must be below .*; got 0\.2 and 0\.2"):
        wsdream2.make_split(cells, "imputation", density=0.2)
    monkeypatch.setattr(wsdream2, "COMPLETE", 10_000)
    whole = wsdream2.make_split(cells, "imputation", density=0.1)
    assert len(whole.y) / len(X) == pytest.approx(0.1, abs=0.02)


def test_an_unknown_name_is_refused_with_those_that_exist(tmp_path):
    with pytest.raises(ValueError, match=r"no split 'rt'; there are wsdream1-rt-0\.005, "):
        load_split("rt", tmp_path)


def test_context_is_appended(wsdream_folder):
    split = load_split("wsdream1-rt-0.025", wsdream_folder).with_context()
    assert {"user_country", "service_provider"} <= set(split.X)
    assert list(split.X) == list(split.X_test)


def test_a_blind_split_has_no_test_values():
    split = Split(np.zeros((2, 2)), np.zeros(2), np.ones((5, 2)), np.arange(5.0))
    assert split.blind().y_test is None
    permuted = split.permuted().y_test
    assert sorted(permuted) == sorted(split.y_test)
    assert (permuted != split.y_test).any()


def test_a_file_without_the_last_slots_is_reported(temporal_folder):
    with pytest.raises(ValueError, match=r"leave no training rows.* needs cells of slot 63"):
        load_split("wsdream2-rt-imputation-0.1", temporal_folder)
