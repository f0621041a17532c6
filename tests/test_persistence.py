"""Saved models: the same after loading, no code in the file, written whole or not at all."""

import contextlib
import copy
import datetime
import decimal
import errno
import hashlib
import importlib
import io
import json
import os
import pickle
import pkgutil
import random
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
import uuid
import warnings
import zipfile
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from skorch.callbacks import EarlyStopping

import skqos
from skqos import (
    R2SLRegressor,
    SAMoERegressor,
    SharpQoSRegressor,
    TPMCFRegressor,
    _loadable,
    persistence,
)
from skqos._plain import from_plain, to_plain
from skqos.baselines import MedianRegressor, PMFRegressor, UIPCCRegressor
from skqos.exceptions import InconsistentVersionWarning
from skqos.persistence import load_model, save_model
from skqos.preprocessing import ContextJoiner
from skqos.training import ProgressLine, QoSNet
from tests import forked
from tests.common import CONTRACTS, all_estimators

TINY = {contract.estimator_class: contract.make for contract in CONTRACTS}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.skqos"


@pytest.fixture
def model(qos):
    return TINY[R2SLRegressor]().fit(qos.X, qos.y)


def joined(qos, model):
    return make_pipeline(ContextJoiner(qos.users, qos.services), model)


def saved_and_loaded(model, path):
    save_model(model, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_model(path)


# --- What comes back ----------------------------------------------------------------------------


@all_estimators
def test_a_pipeline_predicts_the_same_after_loading(contract, qos, path):
    pipeline = joined(qos, contract.make(early_stopping="monitor")).fit(qos.X, qos.y)
    loaded = saved_and_loaded(pipeline, path)
    X = np.vstack([qos.X, contract.rows([[10**6, 3], [5, 10**7]])])
    np.testing.assert_array_equal(loaded.predict(X), pipeline.predict(X))
    before, after = pipeline[-1], loaded[-1]
    assert after.get_params() == before.get_params()
    pd.testing.assert_frame_equal(after.history_, before.history_)
    pd.testing.assert_frame_equal(loaded[0].users_, pipeline[0].users_)
    pd.testing.assert_frame_equal(loaded[0].services, pipeline[0].services)
    assert list(after.feature_names_in_) == list(before.feature_names_in_)
    assert after.n_iter_ == len(after.net_.history) == before.n_iter_
    assert not after.module_.training


@all_estimators
def test_newcomers_with_context_are_predicted_the_same_after_loading(contract, qos, path):
    X = ContextJoiner(qos.users, qos.services).fit_transform(qos.X)
    model = contract.make().fit(X, qos.y)
    newcomers = X.assign(user=10**6, service=10**7).head(20)
    newcomers.loc[newcomers.index[:5], "user_latitude"] = np.nan
    loaded = saved_and_loaded(model, path)
    np.testing.assert_array_equal(loaded.predict(newcomers), model.predict(newcomers))


@all_estimators
def test_a_loaded_model_can_be_cloned_and_fitted_again(contract, qos, path):
    model = contract.make().fit(qos.X, qos.y)
    loaded = saved_and_loaded(model, path)
    expected = model.predict(qos.X)
    np.testing.assert_array_equal(clone(loaded).fit(qos.X, qos.y).predict(qos.X), expected)
    np.testing.assert_array_equal(loaded.fit(qos.X, qos.y).predict(qos.X), expected)


@all_estimators
def test_an_unfitted_model(contract, qos, path):
    loaded = saved_and_loaded(contract.make(), path)
    assert loaded.get_params() == contract.make().get_params()
    with pytest.raises(NotFittedError):
        loaded.predict(qos.X)


VARIANTS = [
    (SharpQoSRegressor, {"learn_curvature": True, "n_layers": 2, "n_context_layers": 2}),
    (SharpQoSRegressor, {"convolution": "hygcn", "context_graphs": "merged"}),
    (SharpQoSRegressor, {"convolution": "gcn", "routing": False, "n_blocks": 4}),
    (SharpQoSRegressor, {"convolution": "none", "cross_routing": False, "n_cross_blocks": 4}),
    (SharpQoSRegressor, {"fine_tune_features": False, "task_weighting": "uncertainty"}),
    (SharpQoSRegressor, {"edge_values": "quantile", "side_scales": True}),
    (SharpQoSRegressor, {"context_convolution": "hygcn"}),
    (SharpQoSRegressor, {"messages": "factors_and_context", "factor_folds": 3}),
    (SAMoERegressor, {"experts": ("mlp",), "mixture_activation": "identity"}),
    (SAMoERegressor, {"experts": ("attention", "lhuc"), "refill_ratio": 0}),
    (R2SLRegressor, {"region_features": []}),
    (R2SLRegressor, {"region_features": ["country"], "loss": "e_huber"}),
    (TPMCFRegressor, {"temporal": "gru"}),
    (TPMCFRegressor, {"temporal": "lstm", "n_blocks": 2}),
    (TPMCFRegressor, {"convolution": "paper", "gcmf_weights": "own"}),
    (TPMCFRegressor, {"modules": "gcmf"}),
    (TPMCFRegressor, {"gcmf_joint": True, "gcmf_side_scales": True, "gcmf_edge_dropout": 0.2}),
    (TPMCFRegressor, {"modules": "pte", "entity_dim": None}),
    (TPMCFRegressor, {"similarity": "autoencoder", "token_dim": None, "n_folds": None}),
]


@pytest.mark.parametrize(("estimator", "params"), VARIANTS)
def test_variants_of_the_networks_predict_the_same(path, estimator, params):
    """A variant may hold a layer that no other does; it is stored only where it is listed."""
    contract = next(each for each in CONTRACTS if each.estimator_class is estimator)
    qos = contract.make_data(30, 40, density=0.5)
    pipeline = joined(qos, contract.make(**params)).fit(qos.X, qos.y)
    loaded = saved_and_loaded(pipeline, path)
    np.testing.assert_array_equal(loaded.predict(qos.X), pipeline.predict(qos.X))


@pytest.mark.parametrize(
    "estimator", [UIPCCRegressor(), PMFRegressor(random_state=0), MedianRegressor(by="pair")]
)
def test_baselines_predict_the_same(qos, path, estimator):
    loaded = saved_and_loaded(estimator.fit(qos.X, qos.y), path)
    np.testing.assert_array_equal(loaded.predict(qos.X), estimator.predict(qos.X))


@pytest.mark.parametrize("params", [params for kind, params in VARIANTS[:4]])
def test_what_layers_of_the_network_share_is_one(qos, path, params):
    y = np.column_stack([qos.y, np.where(qos.y > 1, np.nan, 10 * qos.y)])
    pipeline = joined(qos, TINY[SharpQoSRegressor](**params)).fit(qos.X, y)
    loaded = saved_and_loaded(pipeline, path)
    np.testing.assert_array_equal(loaded.predict(qos.X), pipeline.predict(qos.X))
    before, after = pipeline[-1].module_, loaded[-1].module_
    # What several layers share, the ball and its curvature, is still one.
    assert len(list(after.modules())) == len(list(before.modules()))
    assert [name for name, _ in after.named_parameters()] == [
        name for name, _ in before.named_parameters()
    ]
    for one, other in zip(after.parameters(), before.parameters(), strict=True):
        assert type(one) is type(other)
        assert vars(one).keys() == vars(other).keys()
        assert one.requires_grad == other.requires_grad


def test_fitted_attributes_of_the_methods(qos, path):
    r2sl = joined(qos, TINY[R2SLRegressor]()).fit(qos.X, qos.y)
    loaded = saved_and_loaded(r2sl, path)[-1]
    for kind, states in r2sl[-1].latent_states_.items():
        pd.testing.assert_frame_equal(loaded.latent_states_[kind], states)
    sharp = TINY[SharpQoSRegressor]().fit(*_with_context(qos))
    loaded = saved_and_loaded(sharp, path)
    np.testing.assert_array_equal(
        loaded.gate_probabilities_["snr"], sharp.gate_probabilities_["snr"]
    )
    sa_moe = TINY[SAMoERegressor](experts=("lhuc", "mlp")).fit(qos.X, qos.y)
    loaded = saved_and_loaded(sa_moe, path)
    pd.testing.assert_frame_equal(
        loaded.expert_shares(qos.X, qos.y), sa_moe.expert_shares(qos.X, qos.y)
    )


def _with_context(qos):
    return ContextJoiner(qos.users, qos.services).fit_transform(qos.X), qos.y


@pytest.mark.parametrize(
    ("label", "other_kind"),
    [
        (lambda k: f"id {k}", 3),
        (lambda k: k + 0.5, "3.5"),
        (lambda k: (k, "x"), "x"),
        (int, "3"),
    ],
    ids=["strings", "floats", "tuples", "integers"],
)
def test_ids_and_categories_of_any_plain_kind(qos, path, label, other_kind):
    X = pd.DataFrame({"user": [label(k) for k in qos.X[:, 0]], "service": qos.X[:, 1]})
    places = [None, "a", True, 3]
    X["user_place"] = pd.Series([places[k % 4] for k in qos.X[:, 0]], dtype=object)
    X["user_vip"] = qos.X[:, 0] % 3 == 0
    model = TINY[R2SLRegressor]().fit(X, qos.y)
    loaded = saved_and_loaded(model, path)
    X.loc[:5, "user"] = pd.Series([label(k + 1000) for k in range(6)], dtype=X["user"].dtype)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    with pytest.raises(ValueError, match="user ids are of kind"):
        loaded.predict(X.assign(user=other_kind))


COLUMNS = {
    "Int64": pd.array([1, None, 3] * 10, dtype="Int64"),
    "UInt8": pd.array([1, None, 3] * 10, dtype="UInt8"),
    "Float64": pd.array([1.5, None, 3] * 10, dtype="Float64"),
    "Float32": pd.array([1.5, None, 3] * 10, dtype="Float32"),
    "boolean": pd.array([True, None, False] * 10, dtype="boolean"),
    "string": pd.array(["a", None, "b"] * 10, dtype="string"),
    "python strings": pd.array(["a", None, "b"] * 10, dtype="string[python]"),
    "default strings": pd.Series(["a", None, "b"] * 10).array,
    "float16": np.array([1.5, np.nan, 3] * 10, dtype=np.float16),
    "uint64": np.array([2**63 + 1, 5, 7] * 10, dtype=np.uint64),
    "big endian": np.array([1, 2, 3] * 10, dtype=">f4"),
    "category": pd.Categorical(["a", None, "b"] * 10, categories=["b", "a", "c"], ordered=True),
    "dates as categories": pd.Categorical(pd.to_datetime(["2020-01-01", None, "2021-02-03"] * 10)),
    "intervals as text": pd.Categorical(pd.cut(range(30), 3).astype(str)),
    "objects": np.array(["a", None, 3] * 10, dtype=object),
    "sparse": pd.arrays.SparseArray([0.0, 1.0, 0.0] * 10),
}
NOT_JOINED = {
    "dates": pd.to_datetime(["2020-01-01", None, "2021-02-03"] * 10),
    "dates in a zone": pd.to_datetime(["2020-01-01", None, "2021-02-03"] * 10).tz_localize(
        "Europe/Berlin"
    ),
    "durations": pd.to_timedelta([1, None, 3] * 10, unit="s"),
    "dates and times": np.array(
        [
            datetime.date(2020, 1, 2),
            datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
            datetime.time(3, 4),
            datetime.timedelta(1, 2, 3),
            pd.Timestamp("2020-01-01 00:00:00.000000001"),
            pd.Timestamp("2020-01-01", tz="Europe/Berlin"),
            pd.Timedelta(5, "ms"),
            pd.NaT,
            pd.NA,
            b"bytes",
            uuid.UUID(int=3),
            decimal.Decimal("1.20"),
            2**100,
            (1, ("a", None)),
            np.float32(0.1),
            np.datetime64("2020-01-01"),
            *range(14),
        ],
        dtype=object,
    ),
}
ARROW = {
    "int32[pyarrow]": [1, None, 3],
    "float[pyarrow]": [0.1, None, 3],
    "halffloat[pyarrow]": [np.float16(1.5), None, np.float16(3)],
    "bool[pyarrow]": [True, None, False],
    "string[pyarrow]": ["a", None, "b"],
    "large_string[pyarrow]": ["a", None, "b"],
    "timestamp[ns][pyarrow]": [
        pd.Timestamp("2020-01-01 00:00:00.000000001"),
        None,
        pd.Timestamp(0),
    ],
    "date32[day][pyarrow]": [datetime.date(2020, 1, 1), None, datetime.date(2021, 1, 1)],
}


def _arrow_column(name):
    pa = pytest.importorskip("pyarrow")
    dtype = pd.ArrowDtype(pa.type_for_alias(name.removesuffix("[pyarrow]")))
    return pd.array(ARROW[name] * 10, dtype=dtype)


@pytest.mark.parametrize("name", [*COLUMNS, *NOT_JOINED, *ARROW])
def test_columns_come_back_with_their_dtype(path, name):
    column = {**COLUMNS, **NOT_JOINED}[name] if name not in ARROW else _arrow_column(name)
    users = pd.DataFrame({"x": column, "y": range(30)}, index=pd.Index(range(30), name="id"))
    loaded = saved_and_loaded(ContextJoiner(users), path).users
    if name == "sparse":
        users["x"] = users["x"].sparse.to_dense()
    pd.testing.assert_frame_equal(loaded, users)
    assert list(map(type, loaded["x"])) == list(map(type, users["x"]))


@pytest.mark.parametrize("name", [*COLUMNS, *list(ARROW)[:6]])
def test_context_of_any_dtype_predicts_the_same(qos, path, name):
    column = COLUMNS[name] if name in COLUMNS else _arrow_column(name)
    users = pd.DataFrame({"x": column}, index=range(30))
    services = pd.DataFrame({"y": range(40)}, index=range(40))
    pipeline = make_pipeline(ContextJoiner(users, services), TINY[R2SLRegressor]())
    loaded = saved_and_loaded(pipeline.fit(qos.X, qos.y), path)
    np.testing.assert_array_equal(loaded.predict(qos.X), pipeline.predict(qos.X))
    X = pipeline[0].transform(qos.X).assign(user=10**6)
    np.testing.assert_array_equal(loaded[-1].predict(X), pipeline[-1].predict(X))


def test_tables_of_polars(path):
    pl = pytest.importorskip("polars")
    table = pl.DataFrame(
        {
            "id": pl.Series([3, 2**63 + 1], dtype=pl.UInt64),
            "place": pl.Series(["a", None], dtype=pl.Categorical),
            "day": [datetime.date(2020, 1, 2), None],
            "load": pl.Series([0.1, None], dtype=pl.Float32),
            "name": ["x", "y"],
            "vip": [True, None],
        }
    )
    loaded = saved_and_loaded(ContextJoiner(table), path).users
    assert loaded.equals(table)
    assert loaded.schema == table.schema
    with pytest.raises(TypeError, match=r"ContextJoiner.users\['lists'\] is of dtype List"):
        save_model(ContextJoiner(pl.DataFrame({"lists": [[1], [2]]})), path)


def test_strings_of_pyarrow_load_without_it(path, monkeypatch):
    column = _arrow_column("string[pyarrow]")
    save_model(ContextJoiner(pd.DataFrame({"x": column})), path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    loaded = load_model(path).users["x"]
    assert loaded.dtype == object
    assert loaded.tolist() == column.tolist()


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6).reshape(2, 3).T,
        np.arange(6)[::-1],
        np.array(3.5),
        np.empty((0, 3), dtype=np.float32),
        np.array(["a", "bcd"]),
        np.array([b"a", b"bcd"]),
        np.array([1 + 2j]),
        np.array(["2020-01-01"], dtype="datetime64[s]"),
        np.array([3], dtype=">i4"),
        np.array([1, 2], dtype=np.uint16),
        np.array([[1, "a"], [None, (1,)]], dtype=object),
        np.bool_(True),
        np.float16(0.1),
        np.uint64(2**63 + 1),
        np.str_("a"),
    ],
    ids=repr,
)
def test_arrays_come_back_as_they_were(value):
    loaded = from_plain(to_plain(value, "value"))
    assert type(loaded) is type(value)
    assert loaded.dtype == value.dtype
    np.testing.assert_array_equal(loaded, value)


@pytest.mark.parametrize(
    "value",
    [
        np.ma.masked_array([1, 2], [True, False]),
        np.zeros(1, dtype=[("a", "f8")]),
        np.longdouble([1]),
        pd.Series(pd.period_range("2020", periods=2)),
        torch.zeros(2, 2).to_sparse(),
        lambda: 1,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_file_holds_is_told(value):
    with pytest.raises(TypeError, match="value"):
        to_plain(value, "value")


# --- No code ------------------------------------------------------------------------------------


def _kinds(value):
    yield type(value)
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        for part in value:
            yield from _kinds(part)


@all_estimators
def test_the_file_holds_plain_data(contract, qos, path):
    save_model(joined(qos, contract.make()).fit(qos.X, qos.y), path)
    content = torch.load(path, weights_only=True)
    plain = {dict, list, tuple, str, int, float, bool, type(None), torch.Tensor}
    assert set(_kinds(content)) <= plain
    assert content["skqos_version"] == skqos.__version__


def sealed(content):
    """Return the file of a forger, whose checksum is right."""
    file = io.BytesIO()
    torch.save(content, file)
    persistence._seal(file)
    return file.getvalue()


def _rewrite(path, change):
    """Change every node of a saved model."""
    content = torch.load(path, weights_only=True)

    def walk(value):
        if isinstance(value, dict):
            value = change({name: walk(part) for name, part in value.items()})
        elif isinstance(value, list | tuple):
            value = type(value)(walk(part) for part in value)
        return value

    content["model"] = walk(content["model"])
    path.write_bytes(sealed(content))


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "eval",
        "skqos.datasets.wsdream.Path",
        "skqos.datasets.wsdream.tempfile.TemporaryDirectory",
        "skqos.persistence.save_model",
        "torch.nn.modules.module.partial",
        "torch.nn.modules.no.Such",
        "sklearn.linear_model._ridge.Ridge",
        "torch.jit._script.ScriptModule",
        "torch.nn.parallel.data_parallel.DataParallel",
        "torch.optim.adam.Adam",
        "skqos.training.QoSNet",
        "skqos.training.ProgressLine",
        "skqos.tuning.OptunaPruning",
        "skqos.sharp_qos.hyperbolic.RiemannianAdamW",
        "skqos.graphs.BipartiteOperators",
        "skqos.losses.ObservedLoss",
    ],
)
def test_a_class_that_is_not_ours_is_refused(model, path, name):
    save_model(model, path)
    _rewrite(path, lambda node: {**node, "class": name} if "class" in node else node)
    with pytest.raises(ValueError, match=f"it names the class '{name}'"):
        load_model(path)


class Malicious:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.remove, (str(self.victim),)


def _dump_sealed(content, path):
    path.write_bytes(sealed(content))


@pytest.mark.parametrize("dump", [torch.save, joblib.dump, _dump_sealed])
def test_a_pickle_is_not_executed(tmp_path, path, dump):
    victim = tmp_path / "victim"
    victim.touch()
    dump({"format": "skqos model", "format_version": 2, "model": Malicious(victim)}, path)
    with pytest.raises(ValueError, match="not a model saved by this version of skqos"):
        load_model(path)
    assert victim.exists()


def _classes_of_skqos():
    for info in pkgutil.walk_packages(skqos.__path__, "skqos."):
        module = importlib.import_module(info.name)
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == info.name:
                yield value


def test_every_loadable_class_can_be_made_without_foreign_code():
    for name in _loadable.LISTED:
        kind = _loadable.find_class(name)
        assert _loadable.class_name(kind) == name
        if _loadable.is_ours(name):
            _loadable.check_own_class(kind)
            assert not issubclass(
                kind, QoSNet | ProgressLine | torch.optim.Optimizer | torch.nn.DataParallel
            )
        else:
            assert name.split(".")[0] in ("torch", "sklearn")
    # No method of these is asked to set a state, and no argument of theirs is interpreted.
    plain = {"bool", "int", "float", "str"}
    assert all(isinstance(name, str) for names in _loadable.LAYERS.values() for name in names)
    assert plain >= {type(value).__name__ for value in _arguments_of_layers()}


def _arguments_of_layers():
    for layer in (
        torch.nn.Linear(2, 2),
        torch.nn.Conv1d(2, 2, 3, padding="same"),
        torch.nn.GRU(2, 2),
        torch.nn.LayerNorm(2),
        torch.nn.BatchNorm1d(2),
    ):
        for value in to_plain(layer, "layer")["attributes"].values():
            yield from value if isinstance(value, tuple) else [value]


class Foreign(QoSNet):
    """Inherits a ``__setstate__`` that unpickles bytes."""


Foreign.__module__ = "skqos.sharp_qos.module"


class Reducing:
    """Names what is to be called."""

    def __reduce__(self):
        return str, ()


Reducing.__module__ = "skqos.sharp_qos.module"


@pytest.mark.parametrize("kind", [Foreign, Reducing, QoSNet, torch.nn.Linear, Ridge])
def test_a_class_with_foreign_state_handling_cannot_be_listed(kind):
    with pytest.raises(TypeError, match="of another package"):
        _loadable.check_own_class(kind)


def test_models_are_saved_and_loaded_after_torch_has_replaced_its_own_state_handling(
    model, path, monkeypatch, qos
):
    """As it does when it first compiles a network or exports one."""
    handle = torch.nn.Module.__setstate__

    def patched(self, state):
        return handle(self, state)

    monkeypatch.setattr(torch.nn.Module, "__setstate__", patched)
    loaded = saved_and_loaded(model, path)
    np.testing.assert_array_equal(loaded.predict(qos.X), model.predict(qos.X))


def test_every_layer_of_the_networks_is_listed():
    """A new layer is added to the list, or, if no model keeps it, here."""
    of_training = {"ObservedLoss", "JointLoss", "JointFeatures", "StackedAutoencoder"}
    of_export = {"InverseTransform", "PairGraph"}
    layers = {kind for kind in _classes_of_skqos() if issubclass(kind, torch.nn.Module)}
    names = {
        _loadable.class_name(kind)
        for kind in layers
        if kind.__name__ not in of_training | of_export
    }
    assert names <= _loadable.LISTED


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("callbacks", [EarlyStopping()], r"R2SLRegressor.callbacks\[0\] is of type skorch"),
        ("random_state", np.random.RandomState(0), r"R2SLRegressor.random_state is of type numpy"),
        ("device", torch.device("cpu"), r"R2SLRegressor.device is of type torch.device"),
    ],
)
def test_what_is_no_data_cannot_be_saved(path, attribute, value, message):
    model = TINY[R2SLRegressor]().set_params(**{attribute: value})
    with pytest.raises(TypeError, match=message):
        save_model(model, path)
    assert not path.exists()


def test_what_is_no_model_is_neither_saved_nor_loaded(model, path):
    with pytest.raises(TypeError, match=r"estimator must be an estimator of skqos .* got \[1, 2\]"):
        save_model([1, 2], path)
    save_model(model, path)
    path.write_bytes(sealed({**torch.load(path), "model": [1, 2]}))
    with pytest.raises(ValueError, match=r"it contains a list"):
        load_model(path)


def test_other_packages_cannot_be_saved(path):
    with pytest.raises(
        TypeError, match=r"Pipeline.steps\[0\]\[1\] is of type sklearn.linear_model"
    ):
        save_model(make_pipeline(Ridge()), path)


def test_a_fitted_search_names_its_best_estimator(qos, path):
    search = GridSearchCV(TINY[R2SLRegressor](), {"max_epochs": [1, 2]}, cv=KFold(2))
    search.fit(qos.X, qos.y)
    with pytest.raises(TypeError, match="save its best_estimator_"):
        save_model(search, path)
    loaded = saved_and_loaded(search.best_estimator_, path)
    np.testing.assert_array_equal(loaded.predict(qos.X), search.predict(qos.X))


# --- Wrong files --------------------------------------------------------------------------------


def test_a_damaged_file_raises(model, path):
    save_model(model, path)
    content = path.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(
            ValueError, match=r"model\.skqos is not a model saved by this version of skqos"
        ):
            load_model(path)


@pytest.mark.parametrize(
    "content", [{"format": "x"}, [1, 2], {"format": "skqos model", "format_version": 1}]
)
def test_another_file_of_torch_raises(path, content):
    torch.save(content, path)
    with pytest.raises(ValueError, match="not a model saved by this version of skqos"):
        load_model(path)


def test_a_file_of_another_format_raises(model, path, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(persistence, "FORMAT_VERSION", 99)
        save_model(model, path)
    with pytest.raises(ValueError, match=r"it has format 99 of another version"):
        load_model(path)
    # Format 1 had no checksum.
    torch.save({**torch.load(path), "format_version": 1}, path)
    with pytest.raises(ValueError, match=r"a format before version 2"):
        load_model(path)


@pytest.mark.parametrize("version", [None, 3, "x" * 1000, ["0.1"]])
def test_a_file_that_names_no_version_raises(model, path, version):
    save_model(model, path)
    path.write_bytes(sealed({**torch.load(path), "skqos_version": version}))
    with pytest.raises(ValueError, match="does not state the version that saved it"):
        load_model(path)


def test_an_error_of_another_versions_file_names_the_version(model, path, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr(skqos, "__version__", "0.0.1")
        save_model(model, path)
    _rewrite(path, lambda node: {k: v for k, v in node.items() if k != "tail_weight"})
    with pytest.raises(ValueError, match=r"saved by skqos 0\.0\.1.* lacks its tail_weight"):
        load_model(path)


def test_a_mixed_up_file_raises(model, path):
    save_model(model, path)
    _rewrite(path, lambda node: {k: v for k, v in node.items() if k != "values"})
    with pytest.raises(ValueError, match="its parts are not what was stored"):
        load_model(path)


def test_a_missing_file_raises(path):
    with pytest.raises(FileNotFoundError):
        load_model(path)


def test_any_flipped_bit_is_told(model, qos, path):
    save_model(model, path)
    content = path.read_bytes()
    rng = random.Random(0)
    for position in rng.sample(range(len(content)), 200):
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.randrange(8)
        with pytest.raises(ValueError, match="not a model saved by this version of skqos"):
            load_model(io.BytesIO(damaged))


def _resealed(content):
    """Bytes of a forger, who also counted the checksum."""
    body = bytes(content[: -persistence.DIGEST_SIZE])
    return io.BytesIO(body + hashlib.sha256(body).hexdigest().encode())


def _mangled(content, rng):
    content = bytearray(content)
    position = rng.randrange(len(content))
    operation = rng.randrange(3)
    if operation == 0:
        content[position] ^= 1 << rng.randrange(8)
    elif operation == 1:
        del content[position : position + rng.randrange(1, 300)]
    else:
        content[position : position + 8] = rng.randbytes(rng.randrange(16))
    return content


JUNK = [
    lambda _: None,
    lambda _: -1,
    lambda _: 2**70,
    lambda _: float("nan"),
    lambda _: "__class__",
    lambda _: [],
    lambda _: {},
    lambda _: {"type": "same", "number": 0},
    lambda _: torch.zeros(0),
    lambda _: torch.tensor(-5),
    lambda _: torch.zeros(1).expand(2**40),
    lambda old: {"forward": old},
    lambda old: (old, old),
    lambda old: {**old, "_forward_hooks": 1} if isinstance(old, dict) else [old],
]


def _paths(value, path=()):
    """Where in plain data all its parts are."""
    yield path
    if isinstance(value, dict | list | tuple):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _paths(value[key], (*path, key))


def _replaced(value, path, change):
    if not path:
        return change(value)
    key, *rest = path
    keys = value if isinstance(value, dict) else range(len(value))
    parts = [_replaced(value[k], rest, change) if k == key else value[k] for k in keys]
    return dict(zip(keys, parts, strict=True)) if isinstance(value, dict) else type(value)(parts)


def _mutated(plain, paths, rng):
    part = _at(plain, rng.choice(paths))
    for _ in range(rng.randint(1, 2)):
        change = rng.choice([*JUNK, lambda _: part])
        with contextlib.suppress(KeyError, IndexError, TypeError):
            plain = _replaced(plain, rng.choice(paths), change)
    return plain


def _at(value, path):
    for key in path:
        value = value[key]
    return value


@all_estimators
def test_a_forged_file_loads_or_raises_a_value_error(contract, path):
    """Mutations of the bytes and of what they say, with the right checksum: no other error."""
    qos = contract.make_data(12, 14, density=0.5)
    save_model(joined(qos, contract.make()).fit(qos.X, qos.y), path)
    content, plain = path.read_bytes(), torch.load(path, weights_only=True)
    paths, rng = list(_paths(plain["model"])), random.Random(0)
    # Bytes are read before anything tells of an estimator.
    n_mangled = 50 if contract is CONTRACTS[0] else 10
    forged = [_resealed(_mangled(content, rng)) for _ in range(n_mangled)]
    forged += [
        io.BytesIO(sealed({**plain, "model": _mutated(plain["model"], paths, rng)}))
        for _ in range(50)
    ]
    n_told = 0
    for file in forged:
        try:
            assert hasattr(load_model(file), "get_params")
        except ValueError:
            n_told += 1
    assert n_told > len(forged) / 2


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def _with_state(model, **state):
    plain = to_plain(model, "model")
    return {**plain, "state": {**plain["state"], **state}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(1).expand(2**45), "a tensor claims another size"),
        (torch.zeros(3)[1:], "a tensor does not begin where"),
        (_nested(100), "nested too deep"),
        ({"type": "same", "number": 0}, "KeyError"),
        ({"type": "array", "dtype": "<f8", "values": torch.zeros(2)}, "another dtype"),
        ({"type": "array", "dtype": "O", "values": torch.zeros(2)}, "of dtype 'O'"),
        (
            {"type": "array", "dtype": "<U9", "values": torch.zeros(9, dtype=torch.uint8)},
            "another dtype",
        ),
        ({"type": "objects", "items": [], "shape": (0, 2**60)}, "claims another size"),
        ({"type": "objects", "items": [1, 2], "shape": (3,)}, "claims another size"),
        ({"type": "label", "kind": "timestamp", "value": (1, "ns", "../../x")}, "Zone"),
    ],
)
def test_parts_that_claim_more_than_the_file_holds(model, value, message):
    content = {
        "format": "skqos model",
        "format_version": 2,
        "skqos_version": skqos.__version__,
        "model": _with_state(model, extra_=value),
    }
    with pytest.raises(ValueError, match=message):
        load_model(io.BytesIO(sealed(content)))


def test_an_object_that_contains_itself_raises(model):
    plain = to_plain(model, "model")
    plain["state"]["extra_"] = {"type": "same", "number": plain["number"]}
    with pytest.raises(KeyError):
        from_plain(plain)
    cyclic = [1]
    cyclic.append(cyclic)
    with pytest.raises(TypeError, match="nested too deep, or contains itself"):
        save_model(R2SLRegressor(region_features=cyclic), io.BytesIO())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["predict"], "has another 'predict'"),
        (["__class__"], "has an attribute '__class__'"),
        (["__dict__"], "has an attribute '__dict__'"),
        (["not a name"], "has an attribute 'not a name'"),
        (["get_params_x"], "R2SLRegressor has no get_params_x"),
    ],
)
def test_attributes_that_an_estimator_cannot_have(model, names, message):
    with pytest.raises(ValueError, match=message):
        from_plain(_with_state(model, **dict.fromkeys(names, 1)))


@pytest.mark.parametrize(
    ("group", "name", "message"),
    [
        ("attributes", "forward", "has another 'forward'"),
        ("attributes", "_forward_hooks", "a part whose name is taken"),
        ("attributes", "_modules", "a part whose name is taken"),
        ("modules", "sides", "should be"),
        ("parameters", "sides", "should be"),
        ("buffers", "_call_impl", "has another '_call_impl'"),
    ],
)
def test_attributes_that_a_module_cannot_have(model, group, name, message):
    plain = to_plain(model.module_, "module")
    plain[group][name] = torch.zeros(1) if group == "buffers" else 1
    with pytest.raises(ValueError, match=message):
        from_plain(plain)


def test_a_layer_has_weights_of_the_shapes_that_it_says():
    layer = torch.nn.Linear(3, 2)
    plain = to_plain(layer, "layer")
    state = torch.get_rng_state()
    np.testing.assert_array_equal(from_plain(plain).weight.detach(), layer.weight.detach())
    assert torch.equal(torch.get_rng_state(), state), "loading draws no random numbers"
    for attributes in (
        {**plain["attributes"], "in_features": 10**15},
        {**plain["attributes"], "device": "cpu"},
        {**plain["attributes"], "bias": False},
    ):
        with pytest.raises(ValueError, match=r"weights of other shapes|made of other parts"):
            from_plain({**plain, "attributes": attributes})
    recurrent = to_plain(torch.nn.GRU(2, 2), "layer")
    recurrent["attributes"]["num_layers"] = 10**12
    with pytest.raises(ValueError, match="weights for fewer layers"):
        from_plain(recurrent)


def test_indices_that_lead_out_of_bounds_are_refused(qos):
    """They would lead compiled code there."""
    sharp = to_plain(TINY[SharpQoSRegressor]().fit(qos.X, qos.y).module_, "module")
    uipcc = to_plain(UIPCCRegressor().fit(qos.X, qos.y), "model")
    n_changed = 0
    for path in [*_paths(sharp), *_paths(uipcc)]:
        if path[-1:] not in [("columns",), ("row_starts",), ("order",), ("starts",)]:
            continue
        for plain in (sharp, uipcc):
            with contextlib.suppress(KeyError, TypeError):
                changed = copy.deepcopy(plain)
                part = _at(changed, path)
                values = part if isinstance(part, torch.Tensor) else part["values"]
                values[-1] = 10**8
                n_changed += 1
                with pytest.raises(ValueError, match=r"outside of its shape|index|indices"):
                    from_plain(changed)
    assert n_changed > 5


def test_a_pipeline_with_a_cache_is_refused(model, tmp_path):
    """A cache is a folder of pickles."""
    pipeline = make_pipeline(model, memory=str(tmp_path))
    with pytest.raises(TypeError, match=r"set_params\(memory=None\)"):
        save_model(pipeline, io.BytesIO())
    plain = to_plain(make_pipeline(model), "pipeline")
    plain["state"]["memory"] = str(tmp_path)
    with pytest.raises(ValueError, match="folder of pickles"):
        from_plain(plain)


def _zip(path, records, **options):
    with zipfile.ZipFile(path, "w", **options) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in records:
            archive.writestr(f"archive/{name}", content)
    file = io.BytesIO(path.read_bytes())
    persistence._seal(file)
    file.seek(0)
    return file


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "it asks to call 'os system'"),
        (b"\x80\x02]q\x00h\x00a.", "a part of it is in two places"),
        (b"\x80\x02}b.", "it asks for the operation BUILD"),
        (b"\x80\x02]]s.", "a list is where a str should be"),
        (b"\x80\x04\x8c\x01a.", "it asks for the operation SHORT_BINUNICODE"),
        (b"\x80\x02}K\x01K\x02s.", "a int is where a str should be"),
        (b"\x80\x02r\xff\xff\xff\xff.", "IndexError"),
        (b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x7f\x85R.", "bytearray"),
        (b"\x80\x02" + 10**5 * b"]" + (10**5 - 1) * b"a" + b".", "TypeError"),
        (b"", "pickle exhausted"),
    ],
)
def test_operations_that_plain_data_do_not_need(path, pickled, message):
    records = [("byteorder", sys.byteorder), ("data.pkl", pickled)]
    with pytest.raises(ValueError, match=message):
        load_model(_zip(path, records))


def test_archives_that_claim_more_than_the_file_holds(path):
    bomb = [("byteorder", sys.byteorder), ("data.pkl", b"0" * 10**7)]
    with pytest.raises(ValueError, match="compressed or have the same name"):
        load_model(_zip(path, bomb, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="compressed or have the same name"):
        load_model(_zip(path, [*bomb, bomb[1]]))
    with pytest.raises(ValueError, match="is missing"):
        load_model(_zip(path, bomb[1:]))
    with pytest.raises(ValueError, match="of another byte order"):
        load_model(_zip(path, [("byteorder", "middle"), *bomb[1:]]))


# --- Versions and devices -----------------------------------------------------------------------


def _by_pickle(model):
    content = pickle.dumps(model)
    return lambda: pickle.loads(content)


def _by_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return lambda: joblib.load(file)


@pytest.fixture(params=["pickle", "joblib", "save_model"])
def dump(request, path):
    """Return a function that dumps a model and returns one that loads it."""

    def by_save_model(model):
        save_model(model, path)
        return lambda: load_model(path)

    return {"pickle": _by_pickle, "joblib": _by_joblib, "save_model": by_save_model}[request.param]


def test_another_version_warns(dump, qos, model, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr(skqos, "__version__", "0.0.1")
        load = dump(model)
    with pytest.warns(InconsistentVersionWarning, match=r"saved by skqos 0.0.1 and is loaded by"):
        loaded = load()
    np.testing.assert_array_equal(loaded.predict(qos.X), model.predict(qos.X))
    assert vars(loaded).keys() == vars(model).keys()


def test_the_same_version_does_not_warn(dump, model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dump(model)()
        clone(copy.deepcopy(model))


def test_a_model_of_before_versions_were_kept_warns(model):
    state = model.__getstate__()
    del state["_skqos_version"]
    with pytest.warns(InconsistentVersionWarning, match="saved by skqos unknown"):
        R2SLRegressor().__setstate__(state)


def test_tensors_of_a_gpu_load_on_the_cpu(qos, model, path, monkeypatch):
    """Without a GPU: the file says that its tensors were on one."""
    with monkeypatch.context() as gpu:
        gpu.setattr("torch.serialization.location_tag", lambda _: "cuda:0")
        save_model(model, path)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)
    np.testing.assert_array_equal(load_model(path).predict(qos.X), model.predict(qos.X))


def test_a_module_on_a_gpu_is_pickled_from_the_cpu(model, monkeypatch):
    """Without a GPU: the module says that its weights are on one."""
    moved = []
    weights = SimpleNamespace(device=SimpleNamespace(type="cuda"))
    monkeypatch.setattr(type(model.module_), "state_dict", lambda self: {"w": weights})
    monkeypatch.setattr(
        type(model.module_), "to", lambda self, device: moved.append((self, device)) or self
    )
    state = model.__getstate__()
    assert moved == [(state["_state"].module_, "cpu")]
    assert state["_state"].module_ is not model.module_, (
        "the model that is in use stays where it is"
    )


@all_estimators
@pytest.mark.gpu
def test_a_file_from_a_gpu_loads_on_the_cpu(contract, qos, path):
    model = contract.make(device="cuda").fit(qos.X, qos.y)
    on_gpu = model.predict(qos.X)
    save_model(model, path)
    loaded = load_model(path).set_params(device="cpu")
    assert all(not tensor.is_cuda for tensor in loaded.module_.state_dict().values())
    np.testing.assert_allclose(loaded.predict(qos.X), on_gpu, rtol=1e-3)


# --- Written whole or not at all ----------------------------------------------------------------


@pytest.fixture
def earlier(path):
    """Save an earlier model; tell whether all is as it was."""
    save_model(TINY[R2SLRegressor](max_epochs=7), path)
    content = path.read_bytes()

    def is_untouched():
        return path.read_bytes() == content and os.listdir(path.parent) == [path.name]

    return is_untouched


def test_saving_replaces_the_earlier_file(earlier, model, qos, path):
    save_model(model, path)
    assert not earlier()
    assert os.listdir(path.parent) == [path.name]
    assert load_model(path).n_iter_ == model.n_iter_


@pytest.mark.parametrize("step", ["fsync", "replace", "link"])
def test_a_full_disk_keeps_the_earlier_file(earlier, model, path, monkeypatch, step):
    def no_space(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, no_space)
    with pytest.raises(OSError, match=r"model.skqos is as it was: .*No space left on device"):
        save_model(model, path)
    assert earlier()


def save_within(limit, pickled, path):
    """Save a model while no file may grow beyond a limit."""
    resource = importlib.import_module("resource")
    model = pickle.loads(pickled)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        save_model(model, path)
    finally:
        # The error is written to a file, too.
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_a_limit_on_the_size_of_files_keeps_the_earlier_file(
    earlier, model, path, tmp_path_factory
):
    pytest.importorskip("resource")
    log = tmp_path_factory.mktemp("other") / "log"
    process = forked.start(save_within, 4096, pickle.dumps(model), path, log=log)
    assert forked.finish(process) == 1
    assert "model.skqos is as it was: [Errno 27] File too large" in log.read_text()
    assert earlier()


def save_and_die(path, step, number, anonymous, in_thread):
    """Load and save a model, and get a signal at a step of saving."""
    if not anonymous:
        del os.O_TMPFILE
    model = load_model(path)
    original = getattr(os, step)

    def kill(*arguments, **options):
        os.kill(os.getpid(), number)
        return original(*arguments, **options)

    setattr(os, step, kill)
    if in_thread:
        saving = threading.Thread(target=save_model, args=(model, path))
        saving.start()
        saving.join()
    else:
        save_model(model, path)


def ends_by(number, path, step, anonymous, in_thread=False):
    """Whether a process that saves a model is ended by a signal that it gets at a step."""
    process = forked.start(save_and_die, path, step, int(number), anonymous, in_thread)
    return forked.finish(process) == -number


def test_a_save_that_is_killed_keeps_the_earlier_file(earlier, model, path):
    assert ends_by(signal.SIGKILL, path, "replace", True)
    assert load_model(path).max_epochs == 7
    save_model(model, path)
    assert load_model(path).n_iter_ == model.n_iter_


def test_a_target_that_is_no_file_is_refused(model, tmp_path):
    for target in (tmp_path, "/dev/full"):
        with pytest.raises(OSError, match="is not a regular file"):
            save_model(model, target)
    assert tmp_path.is_dir()
    assert os.path.exists("/dev/full")
    assert not os.path.isfile("/dev/full")
    with pytest.raises(FileNotFoundError, match=r"model.skqos was not written: the folder .*/none"):
        save_model(model, tmp_path / "none" / "model.skqos")
    assert os.listdir(tmp_path) == []


def test_a_link_is_followed(earlier, model, path):
    link = path.with_name("link")
    link.symlink_to(path.name)
    save_model(model, link)
    assert link.is_symlink()
    assert load_model(path).n_iter_ == model.n_iter_


@pytest.mark.parametrize("has_anonymous_files", [True, False])
def test_the_mode_of_a_file(model, path, monkeypatch, has_anonymous_files):
    if not has_anonymous_files:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    save_model(model, path)
    plain = path.with_name("plain")
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode, "a new file has the usual one"
    for mode in (0o600, 0o640, 0o444, 0o666):
        path.chmod(mode)
        save_model(model, path)
        assert stat.S_IMODE(path.stat().st_mode) == mode, "that of an existing one is kept"


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="kills as Linux does")
@pytest.mark.parametrize(
    ("step", "anonymous", "thread"),
    [
        ("link", True, False),
        ("replace", True, False),
        ("replace", False, False),
        ("fsync", True, True),
    ],
)
def test_a_save_that_is_terminated_leaves_no_part(model, path, step, anonymous, thread):
    save_model(model, path)
    assert ends_by(signal.SIGTERM, path, step, anonymous, thread)
    assert os.listdir(path.parent) == [path.name]
    load_model(path)


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="kills as Linux does")
@pytest.mark.parametrize(("step", "anonymous"), [("replace", True), ("fsync", False)])
def test_a_part_that_a_killed_save_left_goes_with_the_next(model, path, step, anonymous):
    save_model(model, path)
    other = path.with_name(f".{path.name}.b.0123abcd.part")
    other.touch()
    assert ends_by(signal.SIGKILL, path, step, anonymous)
    assert len(os.listdir(path.parent)) == 3, "a part is left"
    save_model(model, path)
    assert sorted(os.listdir(path.parent)) == sorted([path.name, other.name])


def test_sigterm_ends_the_process_as_before_after_a_save(model, path):
    save_model(model, path)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    received = []
    signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    try:
        save_model(model, path)
        signal.raise_signal(signal.SIGTERM)
        assert received, "a handler of the user stays"
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.parametrize("has_anonymous_files", [True, False])
def test_simultaneous_saves_leave_one_complete_file(path, monkeypatch, has_anonymous_files):
    if not has_anonymous_files:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    models = [TINY[R2SLRegressor](max_epochs=epochs) for epochs in range(1, 5)]
    failed = []

    def save(model):
        try:
            for _ in range(20):
                save_model(model, path)
                load_model(path)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=save, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert load_model(path).max_epochs in range(1, 5)
    assert os.listdir(path.parent) == [path.name]


# --- Open files ---------------------------------------------------------------------------------


class Slow(io.BytesIO):
    """A file that takes a part of what it is given, as sockets do."""

    def write(self, content):
        return super().write(content[:1000])


@pytest.mark.parametrize("kind", [io.BytesIO, Slow])
def test_open_files(model, qos, kind):
    file = kind()
    file.write(b"ahead")
    save_model(model, file)
    file.seek(len(b"ahead"))
    np.testing.assert_array_equal(load_model(file).predict(qos.X), model.predict(qos.X))
    assert not file.closed


def test_what_is_no_binary_file(model, path):
    for file in (io.StringIO(), 3, None):
        with pytest.raises(
            TypeError, match="path must be a path or a binary file open for writing"
        ):
            save_model(model, file)
    with pytest.raises(ValueError, match="Open it with mode 'rb'"):
        load_model(io.StringIO("text"))
    for file in (3, None, [path]):
        with pytest.raises(ValueError, match="path must be a path or a binary file"):
            load_model(file)
    with path.open("wb") as file, pytest.raises(OSError, match="read"):
        load_model(file)


# --- A fit that is killed -----------------------------------------------------------------------

SEARCH = """
    import json, os, pathlib, time
    from joblib import parallel_config
    from sklearn.model_selection import GridSearchCV
    from skqos.baselines import PMFRegressor
    from skqos.datasets import make_qos

    class Pausing(PMFRegressor):
        # A network would differ by the imports of each process alone.
        def fit(self, X, y):
            pathlib.Path(f"fit-{os.getpid()}").touch()
            while os.path.exists("pause"):
                time.sleep(0.02)
            return super().fit(X, y)

    if __name__ == "__main__":
        data = make_qos(30, 40, density=0.5, random_state=0)
        model = Pausing(max_iter=5, random_state=0)
        search = GridSearchCV(
            model, {"regularization": [1, 10]}, cv=2, refit=False, error_score="raise"
        )
        with parallel_config("loky", n_jobs=2, max_nbytes=1000):
            search.fit(data.X, data.y)
        print(json.dumps(search.cv_results_["mean_test_score"].tolist()))
"""


def test_a_search_that_is_killed_leaves_nothing_in_the_way_of_the_next(tmp_path):
    """As when a machine fails: no process is left to tidy the files that joblib shared."""
    script, shared = tmp_path / "search.py", tmp_path / "joblib"
    script.write_text(textwrap.dedent(SEARCH))
    shared.mkdir()
    (tmp_path / "pause").touch()
    command = [sys.executable, script.name]
    options = {"cwd": tmp_path, "env": {**os.environ, "JOBLIB_TEMP_FOLDER": str(shared)}}
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        wait_until(lambda: len(list(tmp_path.glob("fit-*"))) == 2 or process.poll() is not None)
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    left = set(shared.rglob("*.pkl"))
    assert left, "the search shares its data as files"
    (tmp_path / "pause").unlink()
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stderr
    assert np.isfinite(json.loads(result.stdout)).all()
    assert set(shared.rglob("*.pkl")) == left, "the second search tidied up after itself"
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith("fit-")}
    assert names <= {"search.py", "joblib", "__pycache__"}


def wait_until(condition, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(0.05)
