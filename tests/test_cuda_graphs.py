"""Recorded steps: on a GPU as it is, and on the CPU with a recorder of operations in its place."""

import contextlib
import logging

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from skqos import _cuda_graphs, training
from skqos._cuda_graphs import N_FIRST_STEPS, RecordedSteps
from skqos.sharp_qos import module as sharp_qos_module
from tests.common import CONTRACTS, all_estimators


class OperationGraph(TorchDispatchMode):
    """What a CUDA graph does, on the CPU: repeat operations on the memory of the recording."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.before = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, torch.Tensor) and value.layout is torch.strided:
                self.before.setdefault(value.data_ptr(), (value.detach(), value.clone()))
        # Later operations may change the shape of a tensor, but not that of its alias.
        call = tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs))
        result = function(*args, **kwargs)
        if any(isinstance(leaf, int | float | bool) for leaf in tree_leaves(result)):
            raise RuntimeError(f"{function} gives a number to Python")
        if not _only_changes_shape(function):
            results = tree_map_only(torch.Tensor, torch.Tensor.detach, result)
            self.calls.append((function, *call, results))
        return result

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, results in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor):
                    _overwrite(old, new)


def _overwrite(old, new):
    assert old.shape == new.shape
    if old.layout is not torch.strided:
        old, new = old.values(), new.values()
    if old.data_ptr() != new.data_ptr():
        old.copy_(new)


def _only_changes_shape(function):
    """Whether the result is a view of an argument, or an argument with another shape."""
    returns = function._schema.returns
    is_view = bool(returns) and all(
        value.alias_info is not None and not value.alias_info.is_write for value in returns
    )
    name = function.__name__.partition(".")[0]
    return is_view or name in {"as_strided_", "squeeze_", "t_", "transpose_", "unsqueeze_"}


@torch.no_grad()
def capture_operations(run, batch):
    graph = OperationGraph()
    random_state = torch.get_rng_state()
    with graph, torch.enable_grad():
        step = run(batch)
    # Nothing is computed while a GPU records.
    torch.set_rng_state(random_state)
    for value, before in graph.before.values():
        value.copy_(before)
    return graph, {name: value.detach() for name, value in step.items()}


@pytest.fixture
def recordings(monkeypatch):
    """Record on the CPU, as on a GPU; return what was recorded."""
    monkeypatch.setattr(
        sharp_qos_module, "_distinct", lambda codes: (codes, torch.arange(len(codes)))
    )
    found = []
    record = RecordedSteps._record

    def watched(steps, kind, batch):
        record(steps, kind, batch)
        found.append(steps.recordings.get(kind))

    monkeypatch.setattr(RecordedSteps, "_record", watched)
    monkeypatch.setattr(_cuda_graphs, "capture", capture_operations)
    monkeypatch.setattr(training, "can_record", lambda device: True)
    monkeypatch.setattr(training, "recording_stream", contextlib.nullcontext)
    return found


def fit_recorded_and_not(monkeypatch, make, data):
    """Fit with recorded steps, and without."""
    weights = 1.0 + data.X[:, 0] % 2
    for can_record in (True, False):
        monkeypatch.setattr(training, "can_record", lambda device, can=can_record: can)
        yield make().fit(data.X, data.y, sample_weight=weights)


@all_estimators
def test_repeated_steps_train_the_same_network(contract, recordings, monkeypatch):
    data = contract.make_data(20, 31, density=0.5)
    models = fit_recorded_and_not(
        monkeypatch, lambda: contract.make(max_epochs=3, batch_size=64), data
    )
    np.testing.assert_array_equal(*(model.predict(data.X) for model in models))
    assert recordings
    assert None not in recordings


VARIANTS = {
    "valued edges": ("SharpQoSRegressor", {"edge_values": "quantile", "edge_dropout": 0.2}),
    "valued edges, hypergraph": (
        "SharpQoSRegressor",
        {"edge_values": "sender_quantile", "convolution": "hhgcn", "normalization": "row"},
    ),
    "scales": ("SharpQoSRegressor", {"convolution": "hygcn", "side_scales": True}),
    "folds": ("SharpQoSRegressor", {"factor_folds": 3, "edge_values": "quantile"}),
    "uncertainty": ("SharpQoSRegressor", {"task_weighting": "uncertainty"}),
    "graph": ("TPMCFRegressor", {"modules": "both"}),
    "joint": (
        "TPMCFRegressor",
        {"gcmf_joint": True, "gcmf_edge_dropout": 0.2, "gcmf_side_scales": True},
    ),
    "recurrent": ("TPMCFRegressor", {"temporal": "gru"}),
    "batch norm": ("SAMoERegressor", {"batch_norm": True}),
}


@pytest.mark.parametrize(("estimator", "params"), VARIANTS.values(), ids=VARIANTS)
def test_steps_of_variants_can_be_repeated(estimator, params, recordings, monkeypatch):
    contract = next(c for c in CONTRACTS if c.estimator_class.__name__ == estimator)
    data = contract.make_data(20, 31, density=0.5)
    models = fit_recorded_and_not(
        monkeypatch, lambda: contract.make(max_epochs=3, batch_size=64, **params), data
    )
    np.testing.assert_array_equal(*(model.predict(data.X) for model in models))
    assert None not in recordings


def count_runs(batches):
    """Run recorded steps of a small network on batches; count those that were not repeated."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 1)
    n_runs = 0

    def run(batch):
        nonlocal n_runs
        n_runs += 1
        inputs, target = batch
        prediction = layer(inputs["x"]).squeeze(1)
        loss = (prediction - target).square().mean()
        loss.backward()
        return {"loss": loss, "y_pred": prediction}

    steps, found = RecordedSteps(run, [*layer.parameters(), nn.Parameter(torch.ones(1))]), []
    for batch in batches:
        layer.zero_grad()
        step = steps(batch)
        found.append((step["loss"].item(), layer.weight.grad.clone()))
    return n_runs, found


def make_batches(*sizes):
    generator = torch.Generator().manual_seed(1)
    return [
        ({"x": torch.randn(n, 3, generator=generator)}, torch.randn(n, generator=generator))
        for n in sizes
    ]


def test_each_shape_is_recorded_once(recordings):
    batches = make_batches(*[4, 7] * (N_FIRST_STEPS + 4))
    n_runs, found = count_runs(batches)
    assert n_runs == 2 * (N_FIRST_STEPS + 1)
    assert len(recordings) == 2
    for batch, step in zip(batches, found, strict=True):
        _, [alone] = count_runs([batch])
        assert step[0] == alone[0]
        torch.testing.assert_close(step[1], alone[1], rtol=0, atol=0)


def test_frozen_parameters_are_not_trained(recordings, monkeypatch):
    class Freeze(Callback):
        def on_epoch_begin(self, net, **_):
            net.module_.user_tower.features.vectors.requires_grad_(len(net.history) < 3)

    data = CONTRACTS[0].make_data(20, 31, density=0.5)
    params = {"max_epochs": 4, "batch_size": 64, "callbacks": [Freeze], "weight_decay": 0.0}
    models = fit_recorded_and_not(monkeypatch, lambda: CONTRACTS[0].make(**params), data)
    np.testing.assert_array_equal(*(model.predict(data.X) for model in models))
    assert len({len(found.gradients) - found.gradients.count(None) for found in recordings}) == 2


def test_the_number_of_recordings_is_limited(recordings, monkeypatch):
    monkeypatch.setattr(_cuda_graphs, "MAX_RECORDINGS", 1)
    n_runs, _ = count_runs(make_batches(*[4, 7] * (N_FIRST_STEPS + 4)))
    assert len(recordings) == 1
    assert n_runs == N_FIRST_STEPS + 1 + N_FIRST_STEPS + 4


class Reads(nn.Module):
    """A network that reads a value of its batch, so that its steps cannot be recorded."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.bias * float(x[0])


def test_steps_that_cannot_be_recorded_run_as_usual(recordings, caplog):
    network = Reads()

    def run(batch):
        loss = (network(batch[0]["x"]) - batch[1]).square().sum()
        loss.backward()
        return {"loss": loss}

    steps = RecordedSteps(run, list(network.parameters()))
    batches = [({"x": torch.tensor([float(k)])}, torch.ones(1)) for k in range(N_FIRST_STEPS + 3)]
    with caplog.at_level(logging.INFO, "skqos"):
        for k, batch in enumerate(batches):
            network.zero_grad()
            steps(batch)
            assert network.bias.grad.item() == -2 * k
    assert recordings == [None]
    assert len(caplog.messages) == 1
    assert "gives a number" in caplog.text


@pytest.mark.gpu
def test_a_gpu_goes_on_after_a_failed_recording(caplog):
    device = torch.device("cuda:0")
    network = Reads().to(device)
    dropout = nn.Dropout(0.5)

    def run(batch):
        x = dropout(batch[0]["x"])
        loss = (network(x) - batch[1]).square().sum()
        loss.backward()
        return {"loss": loss}

    steps = RecordedSteps(run, list(network.parameters()))
    batch = {"x": torch.ones(1, device=device)}, torch.ones(1, device=device)
    with caplog.at_level(logging.INFO, "skqos"), _cuda_graphs.recording_stream(device):
        found = set()
        for _ in range(N_FIRST_STEPS + 20):
            network.zero_grad()
            steps(batch)
            found.add(network.bias.grad.item())
    assert "Training without CUDA graphs" in caplog.text
    assert found == {0.0, -4.0}


@pytest.mark.gpu
@all_estimators
def test_recorded_steps_train_as_well_on_a_gpu(contract, monkeypatch, caplog):
    data = contract.make_data(20, 31, density=0.5)
    losses = []
    for can_record in (True, False):
        monkeypatch.setattr(training, "can_record", lambda device, can=can_record: can)
        model = contract.make(max_epochs=3, batch_size=64, device="cuda")
        with caplog.at_level(logging.INFO, "skqos"):
            model.fit(data.X, data.y)
        losses.append(model.history_["train_loss"].to_numpy())
    assert "without CUDA graphs" not in caplog.text
    # Sums on a GPU differ by rounding.
    np.testing.assert_allclose(*losses, rtol=0.02)
