"""Shared fixtures: where the real data lies, one torch thread."""

import functools
import importlib
import os
from pathlib import Path

import pytest

# Read by a type checker, and never run.
collect_ignore = ["typing_usage.py"]

# Before scipy is imported: scikit-learn's suite skips a check without it.
os.environ["SCIPY_ARRAY_API"] = "1"

# Short trainings that `fit` and `partial_fit` add, except in the tests of what these learn: steps
# for the vectors of new ids, and epochs for the quantiles of errors. Iterations of the states of
# regions likewise, each of which is as good as the next to all tests but those of R2SL.
N_STEPS, N_EPOCHS, N_ITERATIONS = 20, 3, 10

DATA = Path(os.environ.get("SKQOS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def pytest_runtest_setup(item):
    """Skip tests marked `gpu` where torch finds no GPU."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
    if item.get_closest_marker("xfail"):
        # Nobody reads where an expected failure failed, for which pytest would parse the sources of
        # torch and scikit-learn again for each test, in about a second.
        item.repr_failure = lambda excinfo: excinfo.exconly()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Run the tests of a file in one process, so that what they share is made once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    """Two torch processes with two threads each slow each other tenfold."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _short_additional_trainings(request, monkeypatch):
    """Shorten updates with new ids and intervals, but not in the tests of what they learn."""
    from skqos import newcomers
    from skqos.distribution import network
    from skqos.r2sl import latent_states

    # Without the parameters of the test, which may contain these words.
    file = request.node.nodeid.partition("::")[0]
    if "test_newcomers" not in file:
        monkeypatch.setattr(newcomers, "N_STEPS", N_STEPS)
    if not any(name in file for name in ("distribution", "intervals", "selection")):
        monkeypatch.setattr(network, "N_EPOCHS", N_EPOCHS)
    # Processes of the tests' clusters iterate in full.
    if not any(name in file for name in ("r2sl", "inspection", "scale_out", "docstrings")):
        defaults = latent_states.RegionalLatentStates.__init__.__kwdefaults__
        monkeypatch.setitem(defaults, "max_iter", N_ITERATIONS)


@pytest.fixture(scope="session")
def wsdream1_path():
    path = DATA / "wsdream1"
    if not path.is_dir():
        pytest.skip("needs WS-DREAM data set 1; set SKQOS_DATA to the folder that holds wsdream1/")
    return path


@pytest.fixture(scope="session")
def wsdream2_path():
    path = DATA / "wsdream2"
    if not path.is_dir():
        pytest.skip("needs WS-DREAM data set 2; set SKQOS_DATA to the folder that holds wsdream2/")
    return path


@pytest.fixture
def qos(request):
    """Return measurements with context: 30 users, 40 services, 600 rows.

    In a test of an estimator's contract they have times if the estimator needs them.
    """
    from tests.common import CONTRACTS

    contract = CONTRACTS[0]
    if "contract" in request.fixturenames:
        contract = request.getfixturevalue("contract")
    return contract.make_data(30, 40, density=0.5)


@functools.cache
def _operators_of_onnx():
    """Return torch's class of tables of ONNX operators, and a method that makes its table once."""
    try:
        registration = importlib.import_module("torch.onnx._internal.exporter._registration")
        registry = registration.ONNXRegistry
        return registry, staticmethod(functools.cache(registry.from_torchlib))
    except (ImportError, AttributeError):
        return None


@pytest.fixture
def _quick_exports(monkeypatch):
    """Let torch make its table of ONNX operators once, not in every export, for seconds."""
    if found := _operators_of_onnx():
        registry, make_once = found
        monkeypatch.setattr(registry, "from_torchlib", make_once)


@pytest.fixture(scope="session")
def postgresql_url():
    """Return the URL of a database on a server of our own."""
    from tests import postgres

    if reason := postgres.reason_to_skip():
        pytest.skip(reason)
    with postgres.server() as url:
        yield url


@pytest.fixture
def wsdream_folder(tmp_path):
    """Return a folder with made-up measurements in the files and splits of WS-DREAM data set 1."""
    from tests.wsdream_files import make_wsdream1

    make_wsdream1(tmp_path)
    return tmp_path


@pytest.fixture
def temporal_folder(tmp_path):
    """Return a folder with made-up measurements in the file of WS-DREAM data set 2, in no order."""
    from tests.wsdream_files import make_wsdream2

    make_wsdream2(tmp_path)
    return tmp_path
