"""Saved models: the same after loading, no code in the file, written whole or not at all."""

import copy
import errno
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from skorch.callbacks import EarlyStopping

import skqos
from skqos import R2SLRegressor, SAMoERegressor, SharpQoSRegressor
from skqos.exceptions import InconsistentVersionWarning
from skqos.persistence import load_model, save_model
from skqos.preprocessing import ContextJoiner
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


@pytest.mark.parametrize(
    "params",
    [
        {"learn_curvature": True, "n_layers": 2, "n_context_layers": 2},
        {"convolution": "hygcn", "context_graphs": "merged"},
        {"convolution": "gcn", "routing": False},
        {"convolution": "none", "cross_routing": False, "fine_tune_features": False},
    ],
)
def test_variants_of_the_network(qos, path, params):
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
    torch.save(content, path)


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
    ],
)
def test_a_class_that_is_not_ours_is_refused(model, path, name):
    save_model(model, path)
    _rewrite(path, lambda node: {**node, "class": name} if "class" in node else node)
    with pytest.raises(ValueError, match="no model that this skqos saved"):
        load_model(path)


class Malicious:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.remove, (str(self.victim),)


@pytest.mark.parametrize("dump", [torch.save, joblib.dump])
def test_a_pickle_is_not_executed(tmp_path, path, dump):
    victim = tmp_path / "victim"
    victim.touch()
    dump({"format": "skqos model", "format_version": 1, "model": Malicious(victim)}, path)
    with pytest.raises(ValueError, match="no model that this skqos saved"):
        load_model(path)
    assert victim.exists()


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
    torch.save({**torch.load(path), "model": [1, 2]}, path)
    with pytest.raises(ValueError, match=r"it holds \[1, 2\]"):
        load_model(path)


def test_other_packages_cannot_be_saved(path):
    with pytest.raises(
        TypeError, match=r"Pipeline.steps\[0\]\[1\] is of type sklearn.linear_model"
    ):
        save_model(make_pipeline(Ridge()), path)


# --- Wrong files --------------------------------------------------------------------------------


def test_a_damaged_file_raises(model, path):
    save_model(model, path)
    content = path.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"model\.skqos is no model that this skqos"):
            load_model(path)


@pytest.mark.parametrize(
    "content", [{"format": "x"}, [1, 2], {"format": "skqos model", "format_version": 1}]
)
def test_another_file_of_torch_raises(path, content):
    torch.save(content, path)
    with pytest.raises(ValueError, match="no model that this skqos saved"):
        load_model(path)


def test_a_file_of_a_newer_format_raises(model, path):
    save_model(model, path)
    torch.save({**torch.load(path), "format_version": 99, "skqos_version": "9.9"}, path)
    with pytest.raises(ValueError, match=r"a newer skqos, 9\.9, wrote it"):
        load_model(path)


def test_a_mixed_up_file_raises(model, path):
    save_model(model, path)
    _rewrite(path, lambda node: {k: v for k, v in node.items() if k != "values"})
    with pytest.raises(ValueError, match="this is not what was stored"):
        load_model(path)


def test_a_missing_file_raises(path):
    with pytest.raises(FileNotFoundError):
        load_model(path)


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
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
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


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_keeps_the_earlier_file(earlier, model, path, monkeypatch, step):
    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, no_space)
    with pytest.raises(OSError, match=r"model.skqos is as it was: .*No space left on device"):
        save_model(model, path)
    assert earlier()


def run_script(script, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        **options,
    )


def test_a_limit_on_the_size_of_files_keeps_the_earlier_file(
    earlier, model, path, tmp_path_factory
):
    pytest.importorskip("resource")
    pickled = tmp_path_factory.mktemp("other") / "model.pickle"
    pickled.write_bytes(pickle.dumps(model))
    result = run_script(
        """
        import pickle, resource, sys
        from skqos.persistence import save_model
        model = pickle.load(open(sys.argv[1], "rb"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        save_model(model, sys.argv[2])
        """,
        pickled,
        path,
    )
    assert result.returncode == 1
    assert "model.skqos is as it was: [Errno 27] File too large" in result.stderr
    assert earlier()


def test_a_save_that_is_killed_keeps_the_earlier_file(earlier, model, path):
    result = run_script(
        """
        import os, signal, sys
        from skqos.persistence import load_model, save_model
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        save_model(load_model(sys.argv[1]), sys.argv[1])
        """,
        path,
    )
    assert result.returncode == -signal.SIGKILL
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
    with pytest.raises(OSError, match=r"model.skqos was not written: .*No such file or directory"):
        save_model(model, tmp_path / "none" / "model.skqos")
    assert os.listdir(tmp_path) == []


def test_a_link_is_followed(earlier, model, path):
    link = path.with_name("link")
    link.symlink_to(path.name)
    save_model(model, link)
    assert link.is_symlink()
    assert load_model(path).n_iter_ == model.n_iter_


def test_a_saved_file_has_the_usual_mode(model, path):
    save_model(model, path)
    plain = path.with_name("plain")
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


# --- A fit that is killed -----------------------------------------------------------------------

SEARCH = """
    import json, os, pathlib, time
    from joblib import parallel_config
    from sklearn.model_selection import GridSearchCV
    from skorch.callbacks import Callback
    from skqos import R2SLRegressor
    from skqos.datasets import make_qos

    class Pause(Callback):
        def on_epoch_end(self, net, **_):
            pathlib.Path(f"epoch-{os.getpid()}").touch()
            while os.path.exists("pause"):
                time.sleep(0.02)

    if __name__ == "__main__":
        data = make_qos(30, 40, density=0.5, random_state=0)
        model = R2SLRegressor(max_epochs=1, callbacks=[Pause()], random_state=0)
        search = GridSearchCV(
            model, {"learning_rate": [1e-3, 1e-2]}, cv=2, refit=False, error_score="raise"
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
        wait_until(lambda: len(list(tmp_path.glob("epoch-*"))) == 2 or process.poll() is not None)
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
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith("epoch-")}
    assert names <= {"search.py", "joblib", "__pycache__"}


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
