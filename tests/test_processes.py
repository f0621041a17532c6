"""Several processes that share one fit: one model in all, as good as that of one process alone."""

import json
import multiprocessing
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from skqos import SAMoERegressor
from skqos._processes import VARIABLES, Processes
from skqos.datasets import make_qos
from tests import forked
from tests.common import CONTRACTS
from tests.fit_together import SMALL, as_launched, be_silent, fits, lose, summarise

ROOT = Path(__file__).resolve().parents[1]
NAMES = [contract.estimator_class.__name__ for contract in CONTRACTS]
EXACT = ["plain", "updated"]


@pytest.fixture(scope="module")
def alone():
    """Return what one process finds, by name of the fit."""
    return {name: summarise(model, data) for name, model, data in fits()}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Return what each of two processes found that torchrun launched, and what they printed."""
    folder = tmp_path_factory.mktemp("together")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "-m", "tests.fit_together", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = [json.loads(Path(folder, rank).read_text()) for rank in "01"]
    return found, done.stderr


@pytest.mark.parametrize("name", [*NAMES, "batch_norm", *EXACT])
def test_all_processes_end_with_the_same_model(together, name):
    (first, second), _ = together
    assert first[name] == second[name]


@pytest.mark.parametrize("name", EXACT)
def test_without_dropout_processes_find_what_one_finds(together, alone, name):
    """Weighted rows, an odd number of them in a batch, two stages, an update."""
    (found, _), _ = together
    for key in ("predictions", "losses"):
        np.testing.assert_allclose(found[name][key], alone[name][key], rtol=1e-4)


@pytest.mark.parametrize("name", [*NAMES, "batch_norm"])
def test_with_draws_of_their_own_processes_are_about_as_good(together, alone, name):
    (found, _), _ = together
    assert len(found[name]["losses"]) == len(alone[name]["losses"])
    np.testing.assert_allclose(found[name]["losses"], alone[name]["losses"], rtol=0.05)


def test_one_process_shows_the_progress(together):
    _, printed = together
    assert printed.count("final: epoch 2/2") == 1


def test_processes_must_agree(together):
    (first, second), _ = together
    assert first["another seed"] == second["another seed"]
    assert "an int as random_state; seed differs between them" in first["another seed"]


@pytest.mark.parametrize("function", [lose, be_silent], ids=["killed", "silent"])
def test_a_lost_process_ends_the_others_with_an_error(function, tmp_path):
    """They are not started by torchrun, which would end them itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    logs = [tmp_path / rank for rank in "01"]
    first, second = (
        forked.start(as_launched, function, log=log, env={**place, "RANK": log.name})
        for log in logs
    )
    try:
        assert forked.finish(first) == 1
    finally:
        second.kill()
        second.join()
    error = "Another process of this fit has ended, or has not answered in time"
    assert error in logs[0].read_text()


# --- Seen from one process ----------------------------------------------------------------------


def test_a_process_alone_exchanges_nothing(monkeypatch):
    monkeypatch.setattr(torch.distributed, "all_reduce", None)
    monkeypatch.setattr(torch.distributed, "broadcast", None)
    data = make_qos(20, 30, density=0.5, random_state=0)
    SAMoERegressor(random_state=0, **SMALL).fit(data.X, data.y)


@pytest.mark.parametrize("case", ["no variables", "one process", "a worker"])
def test_processes_that_are_none_of_several_are_alone(monkeypatch, case):
    for name in VARIABLES if case != "no variables" else ():
        monkeypatch.setenv(name, "1")
    if case == "a worker":
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setattr(multiprocessing, "parent_process", lambda: "a parent")
    assert Processes.launched() == Processes(0, 1)


@pytest.mark.parametrize("n_rows", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("size", [2, 3])
def test_rows_are_shared_out_and_gathered_in_order(monkeypatch, n_rows, size):
    """Sums over processes are done here by hand: each adds its part to what is 0 elsewhere."""
    rows = {"users": torch.arange(n_rows), "services": 10 * torch.arange(n_rows)}
    parts = [Processes(rank, size).take(rows) for rank in range(size)]
    assert len({len(part["users"]) for part in parts}) == 1
    assert all(torch.equal(part["services"], 10 * part["users"]) for part in parts)
    monkeypatch.setattr(Processes, "add", lambda processes, values: None)
    own = [part["users"].float().requires_grad_() for part in parts]
    found = [Processes(rank, size).gather(own[rank], n_rows, 0) for rank in range(size)]
    assert torch.equal(sum(found), torch.arange(n_rows).float())
    weights = 1 + torch.arange(n_rows).float()
    for values in found:
        (weights * values).sum().backward()
    # Averaged over processes, gradients are those of the whole batch.
    joined = torch.cat([values.grad for values in own]) / size
    assert torch.equal(joined[:n_rows], weights)
    assert not joined[n_rows:].any()


def test_values_that_are_missing_are_not_gathered_as_numbers(monkeypatch):
    monkeypatch.setattr(Processes, "add", lambda processes, values: None)
    own = torch.tensor([[1.0, torch.nan]])
    found = Processes(1, 2).gather(own, 4, 1)
    assert found.isnan().tolist() == [[False, False, False, True]]
