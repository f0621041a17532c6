"""The stacked autoencoder of similarity rows."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skqos.tpmcf import autoencoder
from skqos.tpmcf.autoencoder import SimilarityAutoencoder, StackedAutoencoder
from skqos.tpmcf.features import normalised_rows
from skqos.training import seeded
from tests.tpmcf.test_features import cells_of, sides_of, slow_similarities, some_values

SINGLE = {"rtol": 1e-4, "atol": 1e-6}


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


def numpy(tensor):
    return tensor.detach().numpy()


def dense(layers, rows):
    """Linear layers with tanh between them."""
    linear = [layer for layer in layers if isinstance(layer, torch.nn.Linear)]
    for k, layer in enumerate(linear):
        rows = (np.tanh(rows) if k else rows) @ numpy(layer.weight).T + numpy(layer.bias)
    return rows


def reconstruction_error(family, by_entity, side):
    rows = torch.tensor(slow_similarities(by_entity), dtype=torch.float32)
    with torch.no_grad():
        return (family.models_[side](rows) - rows).square().mean().item()


@pytest.mark.parametrize("rows_per_batch", [2, 256])
def test_rows_are_cosines_of_all_steps_a_batch_at_a_time(rows_per_batch, monkeypatch):
    monkeypatch.setattr(autoencoder, "ROWS_PER_BATCH", rows_per_batch)
    values = some_values()
    for rows, by_entity in zip(normalised_rows(cells_of(values)), sides_of(values), strict=True):
        n_steps, n, _ = by_entity.shape
        batches = list(autoencoder._similarities(rows, n))
        assert max(len(batch) for batch in batches) == min(rows_per_batch, n)
        found = numpy(torch.cat(batches)).reshape(n_steps, n, n)
        assert_allclose(found, slow_similarities(by_entity), **SINGLE)


def test_layers_narrow_to_the_code_and_widen_back():
    model = StackedAutoencoder(64, 8)
    sizes = [
        [(layer.in_features, layer.out_features) for layer in part if hasattr(layer, "weight")]
        for part in (model.encoder, model.decoder)
    ]
    assert sizes == [[(64, 32), (32, 16), (16, 8)], [(8, 16), (16, 32), (32, 64)]]


def test_rows_are_reconstructed_by_dense_layers():
    model = StackedAutoencoder(7, 3)
    rows = np.random.default_rng(0).normal(size=(4, 7)).astype("f")
    code = dense(model.encoder, rows)
    assert code.shape == (4, 3)
    found = numpy(model(torch.tensor(rows)))
    assert_allclose(found, dense(model.decoder, np.tanh(code)), **SINGLE)


def test_training_lowers_the_error_of_reconstruction():
    values = some_values()
    errors = []
    for n_epochs in (1, 40):
        torch.manual_seed(1)
        family = SimilarityAutoencoder(2, n_epochs).fit(cells_of(values))
        sides = enumerate(sides_of(values))
        errors.append([reconstruction_error(family, by_entity, k) for k, by_entity in sides])
    assert (np.array(errors[1]) < 0.8 * np.array(errors[0])).all()


@pytest.mark.parametrize("dim", [2, 9])
def test_codes_are_those_of_the_rows_of_cosines(dim):
    values = some_values()
    cells = cells_of(values)
    family = SimilarityAutoencoder(dim, 2).fit(cells)
    kept = cells.take(np.arange(0, len(cells), 2))
    dropped = cells.take(np.arange(1, len(cells), 2))
    values[dropped.steps, dropped.users, dropped.services] = np.nan
    for found, by_entity, model in zip(
        family.transform(kept), sides_of(values), family.models_, strict=True
    ):
        assert found.shape == (*by_entity.shape[:2], dim)
        assert found.dtype == np.float64
        assert_allclose(found, dense(model.encoder, slow_similarities(by_entity)), **SINGLE)


def test_the_seed_of_torch_decides_the_codes():
    cells = cells_of(some_values())
    codes = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        codes.append(SimilarityAutoencoder(2, 2).fit(cells).transform(cells)[0])
    assert (codes[0] == codes[1]).all()
    assert (codes[0] != codes[2]).any()
