"""Exported models: predictions of the estimators, from a file, without torch or scikit-learn."""

import datetime
import json
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skqos.baselines import EmbeddingMLPRegressor, MedianRegressor
from skqos.exceptions import EarlyTimeWarning
from skqos.export import OnnxPredictor, _graph, _predictor, to_onnx
from skqos.export._contents import KEY
from skqos.preprocessing import ContextJoiner
from skqos.targets import TRANSFORMS, TargetTransform
from tests.common import CONTRACTS

onnx = pytest.importorskip("onnx", reason="exports need onnx")
pytest.importorskip("onnxscript", reason="exports need onnxscript")
pytest.importorskip("onnxruntime", reason="predictions of exports need onnxruntime")

N_USERS, N_SERVICES = 8, 12
# Pairs at all times, some of them before those of training.
pytestmark = [
    pytest.mark.filterwarnings("ignore::skqos.exceptions.EarlyTimeWarning"),
    pytest.mark.usefixtures("_quick_exports"),
]

BY_NAME = {contract.estimator_class.__name__: contract for contract in CONTRACTS}
MLP = BY_NAME["EmbeddingMLPRegressor"]


def make_data(contract, **params):
    return contract.make_data(N_USERS, N_SERVICES, density=0.6, **params)


def all_pairs(users, services, contract):
    """Return rows of X for all users with all services, as objects."""
    pairs = [(user, service) for user in users for service in services]
    rows = np.empty((len(pairs), 2 + contract.temporal), dtype=object)
    rows[:, :2] = pairs
    rows[:, 2:] = np.arange(len(pairs))[:, None] % 9 - 1
    return rows


def as_strings(table):
    return table.set_axis(table.index.map("id {}".format), axis=0)


def fit_on_strings(contract):
    """Fit a pipeline that has more users and services in its tables than in its rows."""
    data = make_data(contract)
    rows = data.X[(data.X[:, 0] < N_USERS - 1) & (data.X[:, 1] < N_SERVICES - 2)]
    y = data.y[(data.X[:, 0] < N_USERS - 1) & (data.X[:, 1] < N_SERVICES - 2)]
    X = rows.astype(object)
    X[:, :2] = [[f"id {user}", f"id {service}"] for user, service in rows[:, :2]]
    joiner = ContextJoiner(as_strings(data.users), as_strings(data.services))
    return make_pipeline(joiner, contract.make()).fit(X, y)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def mlp(folder):
    """A plain estimator on integer ids, with gaps, and the file of it."""
    data = make_data(MLP)
    model = MLP.make(target_transform="log").fit(10 * data.X, data.y)
    to_onnx(model, folder / "mlp.onnx")
    return model, folder / "mlp.onnx"


def check_equal(model, path, X):
    predicted = OnnxPredictor(path).predict(X)
    expected = model.predict(X)
    assert predicted.shape == expected.shape
    assert predicted.dtype == np.float64
    # A prediction near 0 is a difference of larger numbers.
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("contract", CONTRACTS, ids=BY_NAME)
def test_pipelines_of_every_estimator_predict_as_before(contract, folder):
    """Known ids, ids that only the tables know, ids that nobody knows."""
    model = fit_on_strings(contract)
    path = folder / f"{contract.estimator_class.__name__}.onnx"
    to_onnx(model, path)
    users = [*(f"id {k}" for k in range(N_USERS)), "nobody"]
    services = [*(f"id {k}" for k in range(N_SERVICES)), "nothing"]
    X = all_pairs(users, services, contract)
    check_equal(model, path, X)
    check_equal(model, path, X[:1])
    # Context tells newcomers of the tables apart, where it takes part at all.
    assert len(np.unique(OnnxPredictor(path).predict(X))) > len(X) / 2


def test_times_before_the_data_are_named_as_by_the_estimator(tmp_path):
    contract = BY_NAME["TPMCFRegressor"]
    data = make_data(contract)
    model = contract.make(modules="gcmf").fit(data.X + np.array([0, 0, 5]), data.y)
    to_onnx(model, tmp_path / "model.onnx")
    X = [[1, 2, 4], [1, 2, 6], [1, 2, -3]]
    message = r"\(time\): 2 of 3 rows are before 5, the first time step"
    for predictor in (model, OnnxPredictor(tmp_path / "model.onnx")):
        with pytest.warns(EarlyTimeWarning, match=message) as record:
            predictor.predict(X)
        assert record[0].filename == __file__


def test_integer_ids_without_context_predict_as_before(mlp):
    check_equal(*mlp, 10 * make_data(MLP).X)
    check_equal(*mlp, [[10, 20]])
    check_equal(*mlp, [[10, 12_345], [-1, 20], [-1, 12_345]])
    check_equal(*mlp, [[10.0, 20.0], [10.5, 20.0]])


def test_the_graph_convolution_alone_predicts_as_before(tmp_path):
    contract = BY_NAME["TPMCFRegressor"]
    data = make_data(contract)
    model = contract.make(modules="gcmf").fit(data.X, data.y)
    to_onnx(model, tmp_path / "model.onnx")
    X = all_pairs(range(N_USERS), range(N_SERVICES), contract).astype(int)
    check_equal(model, tmp_path / "model.onnx", X)


def test_a_graph_convolution_that_was_trained_with_the_encoder_predicts_as_before(tmp_path):
    contract = BY_NAME["TPMCFRegressor"]
    data = make_data(contract)
    model = contract.make(gcmf_joint=True, gcmf_side_scales=True).fit(data.X, data.y)
    to_onnx(model, tmp_path / "model.onnx")
    X = all_pairs(range(N_USERS), range(N_SERVICES), contract).astype(int)
    check_equal(model, tmp_path / "model.onnx", X)


@pytest.mark.parametrize("temporal", ["gru", "lstm"])
def test_recurrent_encoders_predict_as_before(temporal, tmp_path):
    """Windows with a gap, too, whose steps the layers pass over."""
    contract = BY_NAME["TPMCFRegressor"]
    data = make_data(contract)
    X = data.X + np.array([0, 0, 2]) * (data.X[:, 2:] > 2)
    model = contract.make(modules="pte", temporal=temporal, window=3, features=("statistics",))
    model.set_params(gcmf_epochs=10, gcmf_dim=8, n_factors=16, similarity_dim=16, n_members=1)
    to_onnx(model.fit(X, data.y), tmp_path / "model.onnx")
    pairs = all_pairs(range(N_USERS), range(N_SERVICES), contract).astype(int)
    check_equal(model, tmp_path / "model.onnx", pairs)
    check_equal(model, tmp_path / "model.onnx", pairs[:1])


def test_several_targets_predict_as_before(tmp_path):
    contract = BY_NAME["SharpQoSRegressor"]
    data = make_data(contract)
    y = np.column_stack([data.y, 100 - data.y])
    y[::3, 0] = np.nan
    model = contract.make().fit(data.X, y)
    to_onnx(model, tmp_path / "model.onnx")
    check_equal(model, tmp_path / "model.onnx", data.X)


def test_messages_of_the_context_and_factors_of_folds_predict_as_before(tmp_path):
    contract = BY_NAME["SharpQoSRegressor"]
    data = make_data(contract)
    params = {"messages": "factors_and_context", "edge_values": "quantile", "factor_folds": 3}
    joiner = ContextJoiner(data.users, data.services)
    model = make_pipeline(joiner, contract.make(**params)).fit(data.X, data.y)
    assert model[-1].module_.sends_context
    to_onnx(model, tmp_path / "model.onnx")
    check_equal(model, tmp_path / "model.onnx", [*data.X[:50].tolist(), [-1, -1]])


def test_a_frame_with_the_context_of_fit_is_taken_too(tmp_path):
    """Known ids keep the context of `fit`; that of unknown ones is not read."""
    data = make_data(MLP)
    frame = ContextJoiner(data.users, data.services).fit_transform(data.X)
    model = MLP.make().fit(frame, data.y)
    to_onnx(model, tmp_path / "model.onnx")
    check_equal(model, tmp_path / "model.onnx", frame)
    predictor = OnnxPredictor(tmp_path / "model.onnx")
    np.testing.assert_array_equal(predictor.predict(data.X), predictor.predict(frame))
    unknown = frame.assign(user=999)
    no_context = unknown.assign(**dict.fromkeys(unknown.filter(like="user_"), np.nan))
    np.testing.assert_allclose(predictor.predict(unknown), model.predict(no_context), rtol=1e-5)


def test_many_rows_go_through_in_batches(mlp, monkeypatch):
    _, path = mlp
    predictor, sizes = OnnxPredictor(path, n_threads=2), []

    class Spy:
        def run(self, outputs, batch, session=predictor._session):
            sizes.append({len(column) for column in batch.values()})
            return session.run(outputs, batch)

    X = np.resize(10 * make_data(MLP).X, (1000, 2))
    expected = predictor.predict(X)
    monkeypatch.setattr(predictor, "_session", Spy())
    monkeypatch.setattr(_predictor, "PAIRS_PER_RUN", 300)
    np.testing.assert_allclose(predictor.predict(X), expected, rtol=1e-6)
    assert sizes == [{300}, {300}, {300}, {100}]


def test_neither_torch_nor_scikit_learn_is_needed(mlp):
    model, path = mlp
    code = """
    import sys
    others = ("torch", "sklearn", "scipy", "skorch", "onnx", "onnxscript")
    sys.modules.update(dict.fromkeys(others))  # None: importing it raises.
    from skqos.export import OnnxPredictor
    print(OnnxPredictor(sys.argv[1]).predict([[10, 20]])[0])
    assert not any(sys.modules[name] for name in others)
    if sys.platform == "linux":
        (peak,) = (row for row in open("/proc/self/status") if row.startswith("VmHWM"))
        # In kB; a process that has imported torch takes twice as much.
        assert int(peak.split()[1]) < 200_000, peak
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(found.stdout) == pytest.approx(model.predict([[10, 20]])[0], rel=1e-5)
    assert found.stderr == ""


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_targets_return_to_their_unit(kind):
    y = np.abs(np.random.default_rng(0).normal(size=(50, 2)) * [1, 1000])
    transform = TargetTransform(kind).fit(y)
    z = np.concatenate([transform.transform(y), [[-3, 2], [1e5, -1e5], [1e38, -1e38]]])
    inverse = _graph.InverseTransform(transform)(torch.tensor(z)).numpy()
    np.testing.assert_allclose(inverse, transform.inverse_transform(z), rtol=1e-12)


def test_large_ids_survive_the_file_and_an_export_says_nothing(folder, capfd, recwarn):
    big = 2**70
    data = make_data(MLP)
    path = folder / "ids.onnx"
    model = MLP.make().fit(data.X.astype(object) + big, data.y)
    to_onnx(model, path)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    check_equal(model, path, [[big, big + 1], [big + 2, big + 3], [big - 1, big]])


def test_a_model_that_is_not_fitted_is_refused(tmp_path):
    data = make_data(MLP)
    fitted = MLP.make().fit(data.X, data.y)
    unfitted = (
        MLP.make(),
        make_pipeline(ContextJoiner(), MLP.make()),
        make_pipeline(ContextJoiner(data.users), fitted),
    )
    for model in unfitted:
        with pytest.raises(NotFittedError):
            to_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "model",
    [
        "model",
        None,
        MedianRegressor(),
        EmbeddingMLPRegressor,
        ContextJoiner(),
        GridSearchCV(EmbeddingMLPRegressor(), {}),
        make_pipeline(FunctionTransformer(), EmbeddingMLPRegressor()),
        make_pipeline(ContextJoiner(), ContextJoiner(), EmbeddingMLPRegressor()),
    ],
    ids=lambda model: repr(model)[:30],
)
def test_what_is_no_estimator_with_a_network_is_refused(model, tmp_path):
    with pytest.raises(TypeError, match="model must be an estimator of skqos"):
        to_onnx(model, tmp_path / "model.onnx")


def test_ids_that_json_does_not_hold_are_refused(tmp_path):
    data = make_data(MLP)
    days = [[datetime.date(2020, 1, 1 + user), service] for user, service in data.X]
    model = MLP.make().fit(pd.DataFrame(days), data.y)
    with pytest.raises(TypeError, match=r"user ids .* kind date .*numbers or strings"):
        to_onnx(model, tmp_path / "model.onnx")


def test_a_joiner_with_other_ids_than_the_model_is_refused(tmp_path):
    data = make_data(MLP)
    model = MLP.make().fit(data.X, data.y)
    joiner = ContextJoiner(as_strings(data.users)).fit([["id 1", "id 2"]])
    with pytest.raises(TypeError, match=r"table of users .* kind string, the model of kind number"):
        to_onnx(make_pipeline(joiner, model), tmp_path / "model.onnx")


def test_what_a_file_cannot_hold_is_refused(mlp, monkeypatch, tmp_path):
    monkeypatch.setattr(_graph, "MAX_CONSTANT_BYTES", 100)
    with pytest.raises(ValueError, match="an ONNX file is limited to 2 GiB"):
        to_onnx(mlp[0], tmp_path / "model.onnx")


def test_bad_paths_are_refused(mlp, tmp_path):
    model, _ = mlp
    with pytest.raises(TypeError, match="path must be a path; got 5"):
        to_onnx(model, 5)
    with pytest.raises(OSError, match="was not written"):
        to_onnx(model, tmp_path / "nowhere" / "model.onnx")
    with pytest.raises(TypeError, match="path must be a path; got None"):
        OnnxPredictor(None)
    with pytest.raises(FileNotFoundError, match=r"model\.onnx is not a file"):
        OnnxPredictor(tmp_path / "model.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_packages_that_are_missing_are_named(package, mlp, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    model, path = mlp
    with pytest.raises(ImportError, match=rf"requires onnx.*{package}"):
        to_onnx(model, tmp_path / "model.onnx") if package != "onnxruntime" else OnnxPredictor(path)


def test_a_file_that_is_no_export_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    for content in (b"", b"no model", b"\x08\x07" * 100):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.onnx .*to_onnx"):
            OnnxPredictor(path)


def test_a_file_of_another_program_or_format_is_refused(mlp, tmp_path):
    _, path = mlp
    changed = tmp_path / "model.onnx"
    proto = onnx.load(path)
    contents = json.loads(proto.metadata_props[-1].value)
    for value, message in (
        (json.dumps({**contents, "format_version": 2}), "another version of skqos"),
        (json.dumps({**contents, "users": [1, "one"]}), "cannot be read"),
        ("[]", "cannot be read"),
        ("ids", "cannot be read"),
        (None, "not written by to_onnx"),
    ):
        del proto.metadata_props[:]
        if value is not None:
            proto.metadata_props.add(key=KEY, value=value)
        onnx.save(proto, changed)
        with pytest.raises(ValueError, match=message):
            OnnxPredictor(changed)


@pytest.mark.parametrize("n_threads", [0, 1.5, "2", None])
def test_a_bad_number_of_threads_is_refused(n_threads, mlp):
    with pytest.raises(ValueError, match="n_threads must be an int of at least 1"):
        OnnxPredictor(mlp[1], n_threads=n_threads)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([[1]], "X has 1 columns; it must have 2"),
        ([[1, 2, 3]], "X has 3 columns; it must have 2"),
        ([1, 2], "2 dimensions"),
        (np.empty((0, 2)), "0 rows"),
        ([["1", 2]], "user ids are of kind string .* kind number"),
        ([[1, "2"]], "service ids are of kind string .* kind number"),
        ([[1, np.nan]], "column 1 .*row 0 is nan"),
        (pd.DataFrame({"service": [1], "user": [2]}), "column 0 is named 'service'"),
    ],
)
def test_a_bad_X_is_refused(X, message, mlp):
    with pytest.raises(ValueError, match=f"(?i){message}"):
        OnnxPredictor(mlp[1]).predict(X)


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_time_stamps_count_as_in_fit(zone, folder):
    contract = BY_NAME["TPMCFRegressor"]
    data = contract.make_data(N_USERS, N_SERVICES, density=0.5)
    start = pd.Timestamp("2026-03-28T22:00", tz=zone)
    stamps = start + pd.to_timedelta(15 * data.X[:, 2], unit="min")
    X = pd.DataFrame({"user": data.X[:, 0], "service": data.X[:, 1], "time": stamps})
    # The graph convolution alone: its export is the fastest.
    model = contract.make(modules="gcmf", time_step="15min").fit(X, data.y)
    to_onnx(model, folder / "stamps.onnx")
    check_equal(model, folder / "stamps.onnx", X)
    predictor = OnnxPredictor(folder / "stamps.onnx")
    for times in (data.X[:1, 2], [pd.Timestamp("2026-03-28T22:00", tz=None if zone else "UTC")]):
        with pytest.raises(ValueError, match=r"column 2 \(time\)"):
            predictor.predict(X[:1].assign(time=times))
