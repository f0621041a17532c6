"""TPMCFRegressor beyond the common contract: switches, published settings, time, honesty."""

import inspect
import pickle
import re
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skqos import TPMCFRegressor
from skqos._parameters import warn_of_unused_parameters
from skqos.datasets import make_qos
from skqos.exceptions import EarlyTimeWarning, UnusedParameterWarning
from skqos.preprocessing import ContextJoiner
from skqos.tpmcf.gcmf import GCMF
from skqos.tpmcf.module import FeaturePlacement, TPMCFModule
from skqos.tpmcf.transformer import FeatureConvolution, RecurrentEncoder, TimeConvolution
from skqos.training import Trainer
from tests.common import CONTRACTS

CONTRACT = next(c for c in CONTRACTS if c.estimator_class is TPMCFRegressor)
make = CONTRACT.make
TIMES = np.array([0, 1, 2, 4, 8, 9])
NAN = np.nan
N_USERS, N_SERVICES, N_STEPS = 12, 15, len(TIMES)
# Width of the initial features by family, as `make` sets them, and of the spatial ones.
STATISTICS, FACTORS, SIMILARITY, SPATIAL = 5, 3, 3, 8
INITIAL = STATISTICS + FACTORS + SIMILARITY
GCMF_ONLY = {"modules": "gcmf", "gcmf_epochs": 3}
# Nothing is drawn per row, and one batch holds all rows.
FULL_BATCH = {"newcomer_share": 0.0, "forecast_share": 0.0, "batch_size": 1000}


@pytest.fixture(scope="module")
def data():
    """Return measurements with gaps in time: 432 rows in 6 steps."""
    data = make_qos(N_USERS, N_SERVICES, density=0.4, n_time_steps=N_STEPS, random_state=0)
    data.X[:, 2] = TIMES[data.X[:, 2]]
    return data


@pytest.fixture(scope="module")
def base(data):
    """Return a model for tests that only look at one or compare with one."""
    return make().fit(data.X, data.y)


@pytest.fixture(scope="module")
def joined(data):
    """Return the rows with all context, NaN included."""
    return ContextJoiner(data.users, data.services).fit_transform(data.X)


@pytest.fixture
def trainings(monkeypatch):
    """Record what each stage is trained on, as it is before training."""
    seen = {}
    original = Trainer.fit

    def spy(self, module, criterion, rows, *args, stage, **kwargs):
        # Those of the first member by fold and step, without the average node at the end.
        tables = [
            side[0, :, :-1].unflatten(0, (-1, len(module.times))).clone()
            for name, side in module.named_buffers()
            if name in ("user_folds", "service_folds")
        ]
        seen[stage] = {"rows": rows, "criterion": criterion, "tables": tables, **kwargs}
        return original(self, module, criterion, rows, *args, stage=stage, **kwargs)

    monkeypatch.setattr(Trainer, "fit", spy)
    return seen


def at(times, pairs=((3, 4), (5, 6), (0, 14))):
    """Return rows of X: the pairs at each of the times, time by time."""
    return np.array([[user, service, time] for time in times for user, service in pairs])


# --- Switches -----------------------------------------------------------------------------------


def width(model):
    """Width of a user's features in the sequences."""
    return model.module_.user_features.shape[-1]


def gcmf(model):
    return model.stage_nets_["gcmf"].module_


def is_as_after_its_own_stage(model):
    """Return whether the units that updates use are those of the stage "gcmf"."""
    units = model._step_features.spatial.gcmf.units
    return torch.equal(units[0].weight, gcmf(model).units[0].weight)


def blocks(model):
    return model.module_.encoder.blocks


def stages(model):
    return model.history_.groupby("stage", sort=False).size().to_dict()


# Parameters, and what a model that was fitted with them looks like.
SWITCHES = {
    "members": (
        {"n_members": 3},
        lambda m: len(gcmf(m).units[0].weight) == len(m.module_.layers[0].weight) == 3,
    ),
    "statistics": ({"features": ["statistics"]}, lambda m: width(m) == STATISTICS + SPATIAL),
    "factors": ({"features": ["factors"]}, lambda m: width(m) == FACTORS + SPATIAL),
    "similarity": ({"features": ("similarity",)}, lambda m: width(m) == SIMILARITY + SPATIAL),
    "n_factors": ({"n_factors": 5}, lambda m: width(m) == INITIAL + 2 + SPATIAL),
    "similarity_dim": ({"similarity_dim": 1}, lambda m: width(m) == INITIAL - 2 + SPATIAL),
    "no folds": ({"n_folds": None}, lambda m: gcmf(m).n_folds == 1),
    "folds": ({"n_folds": 4}, lambda m: gcmf(m).n_folds == 4),
    "GCMF alone": (
        {"modules": "gcmf"},
        lambda m: isinstance(m.module_, GCMF) and stages(m) == {"final": 2},
    ),
    "PTE alone": (
        {"modules": "pte"},
        lambda m: width(m) == INITIAL and stages(m) == {"final": 3},
    ),
    "gcmf_dim": ({"gcmf_dim": 6}, lambda m: width(m) == INITIAL + 12),
    "own weights": (
        {"gcmf_weights": "own"},
        lambda m: [unit.weight.shape[1] for unit in gcmf(m).units] == [N_STEPS, N_STEPS],
    ),
    "normalised self-loops": ({"self_loops": "normalised"}, lambda m: not gcmf(m).whole_self),
    "edge dropout": (
        {"gcmf_edge_dropout": 0.3},
        lambda m: gcmf(m).edge_dropout == 0.3 and gcmf(m).user_initial is None,
    ),
    "normalisation by rows": (
        {"gcmf_normalization": "row"},
        lambda m: gcmf(m).normalization == "row",
    ),
    "scales of the sides": (
        {"gcmf_side_scales": True},
        lambda m: (
            all((unit.scales.factors != 1).all() for unit in gcmf(m).units if unit.scales)
            and gcmf(m).units[0].scales is not None
        ),
    ),
    "joint training": ({"gcmf_joint": True}, lambda m: not is_as_after_its_own_stage(m)),
    "joint training alone": (
        {"gcmf_joint": True, "gcmf_epochs": 0},
        lambda m: stages(m) == {"final": 3},
    ),
    "both sides": (
        {"window_side": "both"},
        lambda m: m.module_.n_later == 1 and m.module_.position_embeddings.shape[1] == 3,
    ),
    "no history of pairs": ({"pair_history": False}, lambda m: m.module_.history is None),
    "gcmf_epochs": ({"gcmf_epochs": 4}, lambda m: stages(m) == {"gcmf": 4, "final": 3}),
    "gcmf_learning_rate": (
        {"gcmf_learning_rate": 0.1},
        lambda m: m.stage_nets_["gcmf"].lr == 0.1 != m.net_.lr,
    ),
    "spatial features alone": ({"initial_features": False}, lambda m: width(m) == SPATIAL),
    "no ids": ({"entity_dim": None}, lambda m: m.module_.entities is None),
    "entity_dim": ({"entity_dim": 2}, lambda m: m.module_.entities[0].out_dim == 2),
    "a window of 1": ({"window": 1}, lambda m: m.module_.position_embeddings.shape[1] == 1),
    "a long window": ({"window": 20}, lambda m: m.module_.position_embeddings.shape[1] == 20),
    "features as they are": (
        {"token_dim": None},
        lambda m: (
            isinstance(m.module_.mix_features[0], FeaturePlacement)
            and m.module_.position_embeddings.shape[1:] == (3, 2 * (INITIAL + SPATIAL))
        ),
    ),
    "token_dim": (
        {"token_dim": 4},
        lambda m: m.module_.position_embeddings.shape[1:] == (3, 4),
    ),
    "gru": (
        {"temporal": "gru", "n_blocks": 2},
        lambda m: (
            isinstance(m.module_.encoder, RecurrentEncoder)
            and isinstance(m.module_.encoder.members[0], torch.nn.GRU)
            and m.module_.encoder.members[0].num_layers == 2
        ),
    ),
    "lstm": (
        {"temporal": "lstm"},
        lambda m: (
            isinstance(m.module_.encoder, RecurrentEncoder)
            and isinstance(m.module_.encoder.members[0], torch.nn.LSTM)
        ),
    ),
    "n_blocks": ({"n_blocks": 3}, lambda m: len(blocks(m)) == 3),
    "heads": (
        {"n_heads": 3, "head_dim": 5},
        lambda m: blocks(m)[0].attention.join.weight.shape[1] == 15,
    ),
    "the paper's convolution": (
        {"convolution": "paper"},
        lambda m: (
            isinstance(blocks(m)[0].convolution, FeatureConvolution)
            and blocks(m)[0].convolution.first.linear.weight.shape[1] == 3 * 3
        ),
    ),
    "n_filters": (
        {"n_filters": 5},
        lambda m: (
            isinstance(blocks(m)[0].convolution, TimeConvolution)
            and blocks(m)[0].convolution.second.weight.shape[1] == 5
        ),
    ),
    "dropout": ({"dropout": 0.5}, lambda m: blocks(m)[0].convolution.dropout.p == 0.5),
    "mean": ({"pooling": "mean"}, lambda m: m.module_.pooling == "mean"),
    "last": ({"pooling": "last"}, lambda m: m.module_.pooling == "last"),
    "no step encoding": ({"step_encoding": False}, lambda m: m.module_.position_embeddings is None),
    "summary alone": (
        {"target_features": False},
        lambda m: m.module_.layers[0].weight.shape[1] == 8,
    ),
    "hidden_sizes": (
        {"hidden_sizes": [7, 5]},
        lambda m: [layer.weight.shape[2] for layer in m.module_.layers] == [7, 5, 1],
    ),
    "no hidden layer": ({"hidden_sizes": ()}, lambda m: len(m.module_.layers) == 1),
    "entity_dropout": ({"entity_dropout": 0.5}, lambda m: m.module_.entity_dropout.p == 0.5),
    "newcomer_share": ({"newcomer_share": 0.5}, lambda m: m.module_.newcomer_share == 0.5),
    "forecast_share": ({"forecast_share": 0.3}, lambda m: m.module_.forecast_share == 0.3),
    "max_horizon": ({"max_horizon": 3}, lambda m: m.module_.max_horizon == 3),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_does_what_it_says(data, base, switch):
    params, is_as_asked = SWITCHES[switch]
    assert not is_as_asked(base), "the counterpart, without which this test could not fail"
    model = make(**params).fit(data.X, data.y)
    assert is_as_asked(model)
    prediction = model.predict(data.X)
    assert np.isfinite(prediction).all()
    assert np.mean(prediction != base.predict(data.X)) > 0.9


def test_similarities_by_autoencoder(data, trainings):
    """They differ from factors, and by the epochs."""
    seen = []
    for params in (
        {"similarity": "factors"},
        {"similarity": "autoencoder", "autoencoder_epochs": 1},
        {"similarity": "autoencoder", "autoencoder_epochs": 5},
    ):
        make(modules="pte", features=["similarity"], **params).fit(data.X, data.y)
        seen.append(trainings["final"]["tables"])
    for first, second in ((0, 1), (1, 2)):
        for side, other in zip(seen[first], seen[second], strict=True):
            assert side.shape == other.shape
            assert (side != other).any()


@pytest.mark.parametrize("order", [["factors", "statistics"], ["statistics", "factors"]])
def test_features_stand_in_the_order_given(data, trainings, order):
    make(modules="pte", features=order, n_folds=None).fit(data.X, data.y)
    together = trainings["final"]["tables"][0]
    make(modules="pte", features=order[:1], n_folds=None).fit(data.X, data.y)
    first = trainings["final"]["tables"][0]
    assert_allclose(together[..., : first.shape[-1]], first, rtol=1e-6)


LOSSES = {"cauchy": True, "huber": True, "absolute_error": False, "squared_error": False}


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_their_scales(data, loss):
    """A scale matters where the loss has one, to each stage its own."""
    first, other_scale, other_gcmf_scale = (
        make(loss=loss, **scales).fit(data.X, data.y)
        for scales in ({}, {"loss_scale": 0.1}, {"gcmf_loss_scale": 0.1})
    )
    has_scale = LOSSES[loss]
    losses = first.history_["train_loss"]
    is_gcmf = first.history_["stage"] == "gcmf"
    changed = other_scale.history_["train_loss"] != losses
    assert_array_equal(changed, ~is_gcmf & has_scale)
    changed = other_gcmf_scale.history_["train_loss"] != losses
    assert_array_equal(changed[is_gcmf], has_scale)
    assert (other_gcmf_scale.predict(data.X) != first.predict(data.X)).any() == has_scale


def test_all_losses_differ(data):
    losses = [make(loss=loss).fit(data.X, data.y).history_["train_loss"] for loss in LOSSES]
    assert len(np.unique(np.stack(losses)[:, 0])) == len(LOSSES)


@pytest.mark.parametrize("modules", ["both", "gcmf"])
def test_without_vectors_context_has_no_say(data, joined, modules):
    with_context = make(entity_dim=None, modules=modules).fit(joined, data.y).predict(joined)
    without = make(entity_dim=None, modules=modules).fit(data.X, data.y).predict(data.X)
    assert_array_equal(with_context, without)


@pytest.mark.parametrize("side", ["users", "services"])
def test_context_on_one_side_only(data, side):
    joiner = ContextJoiner(**{side: data[side]})
    X = joiner.fit_transform(data.X)
    model = make().fit(X, data.y)
    vectors = model.module_.entities
    with_context, without = vectors if side == "users" else vectors[::-1]
    assert without.n_features == 1 < with_context.n_features
    assert np.isfinite(model.predict(X)).all()
    names = [name for name in X if name.startswith(f"{side[:-1]}_")]
    newcomers = X.drop_duplicates(names).head(2).assign(time=8)
    newcomers[["user", "service"]] = [[-1, 0], [-2, 0]] if side == "users" else [[0, -1], [0, -2]]
    first, second = model.predict(newcomers)
    assert first != second


# --- Parameters that are wrong ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"features": ["statistics", "context"]}, r"features=.* must contain one or more of \["),
        ({"features": []}, r"features=\[\] must contain one or more"),
        (
            {"features": ["statistics"] * 2},
            r"features=.* must contain one or more of .*, each once",
        ),
        ({"features": "statistics"}, "'features' parameter"),
        ({"hidden_sizes": (8, 0)}, r"hidden_sizes must contain layer sizes, .* got \(8, 0\)"),
        ({"hidden_sizes": [8.0]}, "hidden_sizes must contain layer sizes, each an int"),
        ({"hidden_sizes": ["8"]}, "hidden_sizes must contain layer sizes, each an int"),
        ({"hidden_sizes": 8}, "'hidden_sizes' parameter"),
        ({"target_steps": [3]}, r"target_steps=\[3\]: no training row .* from 0 to 9"),
        ({"target_steps": []}, r"target_steps=\[\]: no training row"),
        ({"target_steps": "first"}, "'target_steps' parameter"),
        ({"n_folds": 1}, "'n_folds' parameter"),
        ({"modules": "none"}, "'modules' parameter"),
        ({"window": 0}, "'window' parameter"),
        ({"temporal": "rnn"}, "'temporal' parameter"),
        ({"convolution": "space"}, "'convolution' parameter"),
        ({"pooling": "min"}, "'pooling' parameter"),
        ({"gcmf_weights": "none"}, "'gcmf_weights' parameter"),
        ({"self_loops": False}, "'self_loops' parameter"),
        ({"similarity": "cosine"}, "'similarity' parameter"),
        ({"loss": "e_huber"}, "'loss' parameter"),
        ({"loss_scale": 0.0}, "'loss_scale' parameter"),
        ({"gcmf_loss_scale": -1.0}, "'gcmf_loss_scale' parameter"),
        ({"gcmf_edge_dropout": 1.0}, "'gcmf_edge_dropout' parameter"),
        ({"gcmf_normalization": "column"}, "'gcmf_normalization' parameter"),
        ({"gcmf_side_scales": "both"}, "'gcmf_side_scales' parameter"),
        ({"gcmf_joint": 2}, "'gcmf_joint' parameter"),
        ({"gcmf_epochs": -1}, "'gcmf_epochs' parameter"),
        ({"gcmf_epochs": 0}, "gcmf_epochs=0 needs modules='both' and gcmf_joint=True"),
        ({"gcmf_epochs": 0, "modules": "gcmf", "gcmf_joint": True}, "gcmf_epochs=0 needs"),
        ({"gcmf_epochs": 0, "modules": "pte"}, "gcmf_epochs=0 needs"),
        ({"entity_dim": 0}, "'entity_dim' parameter"),
        ({"token_dim": 0}, "'token_dim' parameter"),
        ({"forecast_share": 1.0}, "'forecast_share' parameter"),
    ],
    ids=str,
)
def test_bad_parameters_raise_at_fit(data, params, message):
    with pytest.raises(ValueError, match=message):
        make(**params).fit(data.X, data.y)


IN_VAIN = [
    ({"modules": "pte"}, {"gcmf_dim": 6, "gcmf_weights": "own"}),
    (
        {"modules": "pte"},
        {
            "gcmf_edge_dropout": 0.1,
            "gcmf_normalization": "row",
            "gcmf_side_scales": True,
            "gcmf_joint": True,
        },
    ),
    ({"modules": "gcmf"}, {"gcmf_joint": True, "bounded_embeddings": False}),
    (
        {"modules": "both", "gcmf_joint": True, "gcmf_epochs": 0},
        {"gcmf_learning_rate": 0.1, "gcmf_bounded": True},
    ),
    ({"modules": "gcmf"}, {"window": 3, "n_heads": 3, "max_horizon": 3}),
    ({"temporal": "gru"}, {"n_heads": 3, "dropout": 0.1}),
    ({"forecast_share": 0.0}, {"max_horizon": 3}),
    ({"forecast_share": 0.0, "window": 1}, {"max_horizon": 3, "window_side": "both"}),
    ({"entity_dim": None}, {"entity_dropout": 0.1}),
    ({"loss": "squared_error"}, {"loss_scale": 0.1}),
    ({"features": ["statistics"]}, {"n_factors": 3, "similarity": "autoencoder"}),
    ({"features": ("factors",)}, {"similarity_dim": 3, "autoencoder_epochs": 3}),
]


@pytest.mark.parametrize(("switch", "params"), IN_VAIN, ids=str)
def test_parameters_set_in_vain_are_warned_of(switch, params):
    with pytest.warns(UnusedParameterWarning) as warned:
        warn_of_unused_parameters(TPMCFRegressor(**switch, **params))
    named = {str(warning.message).split("=")[0] for warning in warned}
    assert named == set(params)


def test_the_longest_horizon_bounds_distances_to_later_steps_without_forecasts(data):
    """So it is not set in vain: windows around a gap tell how far the next step is."""
    params = {"forecast_share": 0.0, "window_side": "both", "max_horizon": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unused_parameters(TPMCFRegressor(**params))
    module = make(**params).fit(data.X[data.X[:, 2] % 9 < 2], data.y[data.X[:, 2] % 9 < 2]).module_
    assert module.windows(module.times).distances.max() == 3


# --- The published model ------------------------------------------------------------------------


def test_the_published_model_has_the_published_sizes():
    """Table III of the paper; factors of rank 100 need as many users and services."""
    data = make_qos(110, 120, density=0.015, n_time_steps=2, random_state=0)
    epochs = {"max_epochs": 1, "gcmf_epochs": 1, "autoencoder_epochs": 1}
    model = TPMCFRegressor(**{**TPMCFRegressor.PAPER_PARAMS, **epochs}, random_state=0)
    model.fit(data.X, data.y)
    assert np.isfinite(model.predict(data.X[:9])).all()
    first, second = gcmf(model).units
    assert first.weight.shape == (1, 2, 155, 64)
    assert second.weight.shape == (1, 2, 64, 64)
    module = model.module_
    assert module.user_features.shape[-1] == module.service_features.shape[-1] == 128
    assert module.window_steps.shape[1] == 8
    assert len(module.encoder.blocks) == 4
    for block in module.encoder.blocks:
        assert block.attention.n_heads == 4
        assert block.attention.project.weight.shape == (1, 256, 3 * 4 * 256)
        # Three taps of 8 channels to 4 filters, and one tap back.
        assert block.convolution.first.linear.weight.shape == (1, 3 * 8, 4)
        assert block.convolution.second.weight.shape == (1, 4, 8)
    assert len(module.layers) == 2
    # Nothing that is ours takes part.
    assert module.entities is None
    assert module.position_embeddings is module.calendar is None
    assert module.layers[0].weight.shape[1] == 256
    assert model.net_.optimizer is torch.optim.AdamW


def test_the_published_settings_are_parameters():
    params = TPMCFRegressor.PAPER_PARAMS
    model = TPMCFRegressor(**params)
    assert {name: model.get_params()[name] for name in params} == params
    assert (model.loss, model.gcmf_loss_scale, model.loss_scale) == ("cauchy", 0.5, 0.75)


# --- What is trained on -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target_steps", "expected"),
    [
        (None, TIMES),
        ("last", [9]),
        ([9], [9]),
        ([4, 1, 4, 77], [1, 4]),
        (np.array([0, 9]), [0, 9]),
    ],
    ids=str,
)
def test_rows_at_the_target_steps_are_learnt(data, trainings, target_steps, expected):
    make(target_steps=target_steps).fit(data.X, data.y)
    learnt, all_rows = (trainings[stage]["rows"] for stage in ("final", "gcmf"))
    assert_array_equal(np.unique(TIMES[learnt.inputs["steps"]]), expected)
    assert len(learnt) == np.isin(data.X[:, 2], expected).sum()
    assert len(all_rows) == len(data.y), "features are of all rows"


def test_the_last_step_by_name_or_number(data):
    by_name = make(target_steps="last").fit(data.X, data.y).predict(data.X)
    assert_array_equal(make(target_steps=[9]).fit(data.X, data.y).predict(data.X), by_name)


def test_gcmf_takes_all_rows_of_a_fold_at_once(data, trainings):
    make(gcmf_learning_rate=0.02).fit(data.X, data.y)
    assert trainings["gcmf"]["batch_size"] == len(data.y)
    assert trainings["gcmf"]["learning_rate"] == 0.02
    assert trainings["gcmf"]["rows"].one_per_batch == "folds"


@pytest.mark.parametrize("n_folds", [3, None])
def test_features_of_a_training_pair_do_not_know_its_value(data, trainings, n_folds):
    """Their scale is that of all values; but for it, another value changes the other folds only."""
    params = {"modules": "pte", "features": ["statistics"], "n_folds": n_folds}
    row, y = 200, data.y.copy()
    y[row] *= 50.0
    seen = []
    for target in (data.y, y):
        make(**params, target_transform=None).fit(data.X, target)
        inputs = trainings["final"]["rows"].inputs
        fold = int(inputs["folds"][row])
        for side, codes in zip(trainings["final"]["tables"], ("users", "services"), strict=True):
            # Standardised by a scale of its own, each table is the same whatever the common one.
            centred = side - side.mean((1, 2), keepdim=True)
            scaled = centred / centred.std((1, 2), keepdim=True)
            seen.append((scaled, fold, int(inputs["steps"][row]), int(inputs[codes][row])))
    for before, after in (seen[::2], seen[1::2]):
        (tables, fold, step, code), (new_tables, *_) = before, after
        same = torch.isclose(tables, new_tables, atol=1e-3).all(-1)
        assert same[fold].all() == (n_folds is not None)
        others = [k for k in range(len(tables)) if k != fold or n_folds is None]
        assert not same[others, step, code].any()


# --- Attention ----------------------------------------------------------------------------------


def test_attention_is_over_the_steps_of_the_window(data):
    model = make(n_blocks=2, n_heads=3).fit(data.X, data.y)
    X = np.vstack([at([0, 1, 2, 9, 50]), [[777, 888, 9]]])
    weights = model.attention_weights(X)
    assert weights.shape == (16, 2, 3, 3, 3)
    assert weights.dtype == np.float64
    assert_allclose(weights.sum(axis=4), 1.0, rtol=1e-6)
    # Padding comes first: two steps of it at time 0, one at time 1; none was measured at time 7.
    n_padded = np.repeat([2, 1, 0, 1, 1, 1], [3, 3, 3, 3, 3, 1])
    is_padded = np.arange(3) < n_padded[:, None]
    attended = weights.sum(axis=(1, 2, 3))
    assert (attended[is_padded] == 0).all()
    assert (attended[~is_padded] > 0).all()


@pytest.mark.parametrize("params", [{"modules": "gcmf"}, {"temporal": "gru"}], ids=str)
def test_without_a_transformer_there_is_no_attention(data, params):
    model = make(**params).fit(data.X, data.y)
    with pytest.raises(AttributeError, match="has no attention; attention_weights needs"):
        model.attention_weights(data.X)


def test_attention_and_windows_are_those_of_the_fitted_network(data):
    model = make().fit(data.X, data.y)
    weights, times = model.attention_weights(data.X), model.window_times(data.X)
    model.set_params(temporal="gru", modules="gcmf")
    assert_array_equal(model.attention_weights(data.X), weights)
    assert_array_equal(model.window_times(data.X), times)
    without = make(temporal="gru").fit(data.X, data.y).set_params(temporal="transformer")
    with pytest.raises(AttributeError, match="has no attention"):
        without.attention_weights(data.X)


def test_attention_needs_a_fit_and_proper_rows(data, base):
    with pytest.raises(NotFittedError):
        make().attention_weights(data.X)
    with pytest.raises(ValueError, match="expecting 3"):
        base.attention_weights(data.X[:, :2])


def test_a_loaded_model_has_the_same_attention(data, base):
    loaded = pickle.loads(pickle.dumps(base))
    assert_array_equal(loaded.attention_weights(data.X[:9]), base.attention_weights(data.X[:9]))


# --- Time ---------------------------------------------------------------------------------------


def by_time(model, times):
    return model.predict(at(times)).reshape(len(times), -1)


@pytest.mark.parametrize("modules", ["both", "gcmf", "pte"])
def test_steps_that_training_did_not_see(data, modules):
    """The sequence encoder is told how far ahead of the last measured step they are."""
    model = make(modules=modules, gcmf_epochs=4, max_horizon=4).fit(data.X, data.y)
    steps = by_time(model, TIMES)
    assert np.isfinite(steps).all()
    for times, last_step in (([5, 6, 7], 3), ([10, 11, 13], 5)):
        forecasts = [*by_time(model, times), steps[last_step]]
        is_same = np.isclose(forecasts[:-1], forecasts[1:], rtol=1e-5, atol=1e-6)
        assert (is_same == (modules == "gcmf")).all()


@pytest.mark.parametrize("side", ["past", "both"])
def test_later_steps_tell_of_a_gap_with_windows_of_both_sides(data, side):
    """Steps 5 to 7 are in a gap; further rows of other pairs arrive at step 8."""
    model = make(modules="pte", window_side=side, partial_fit_epochs=0).fit(data.X, data.y)
    assert model.window_times([[3, 4, 5]]).tolist()[0][-1] == (8 if side == "both" else 4)
    X = np.array([[3, 4, time] for time in (5, 6, 7, 12)])
    before = model.predict(X)
    others = data.X[(data.X[:, 2] == 8) & ((data.X[:, :2] != [3, 4]).any(axis=1))]
    model.partial_fit(others, np.full(len(others), 15.0))
    has_changed = ~np.isclose(model.predict(X), before, rtol=1e-4)
    # Forecasts change in any case: step 8 is part of their windows.
    assert has_changed.tolist() == [side == "both"] * 3 + [True]


def test_horizons_beyond_the_longest_count_as_the_longest(data):
    model = make(max_horizon=4).fit(data.X, data.y)
    forecasts = by_time(model, [12, 13, 14, 5000, 10**9])
    assert (forecasts[0] != forecasts[1]).all()
    assert_allclose(forecasts[2:], forecasts[[1] * 3], rtol=1e-5)


def test_unknown_ids_at_unknown_steps(data, base):
    prediction = base.predict([[777, 3, 3], [2, 888, 6], [777, 888, 100]])
    assert np.isfinite(prediction).all()


def test_where_steps_begin_does_not_matter(data, base):
    X = data.X + np.array([0, 0, 7 * 10**12])
    assert_array_equal(make().fit(X, data.y).predict(X), base.predict(data.X))


def test_the_distance_of_steps_counts(data, base):
    """Once as given, once numbered in their order, as if there were no gaps."""
    numbered = np.column_stack([data.X[:, :2], np.searchsorted(TIMES, data.X[:, 2])])
    model = make().fit(numbered, data.y)
    assert (model.predict(numbered) != base.predict(data.X)).mean() > 0.9
    assert_array_equal(model.window_times([[3, 4, 4]]), [[2, 3, 4]])
    assert_array_equal(base.window_times([[3, 4, 8], [3, 4, 9]]), [[NAN, NAN, 8], [NAN, 8, 9]])


def test_a_gap_of_a_million_steps_costs_nothing(data, base):
    X = np.where(data.X == [[-1, -1, 9]], 10**6, data.X)
    model = make().fit(X, data.y)
    assert len(pickle.dumps(model)) == pytest.approx(len(pickle.dumps(base)), rel=1e-3)
    assert_array_equal(model.times_, [0, 1, 2, 4, 8, 10**6])


def test_predictions_follow_what_rises_with_time():
    """Every pair rises by a fifth a step; medians over time are far off."""
    rng = np.random.default_rng(0)
    X = np.argwhere(rng.uniform(size=(15, 20, 6)) < 0.4)
    y = (1 + X[:, 1] % 4) * 1.2 ** X[:, 2]
    params = {**CONTRACT.learning, "max_epochs": 15, "batch_size": 64}
    model = make(**params).fit(X, y)
    pairs = np.argwhere(np.ones((15, 20)))
    prediction = model.predict(at(range(6), pairs)).reshape(6, -1).mean(axis=1)
    assert_allclose(prediction, 2.5 * 1.2 ** np.arange(6), rtol=0.05)


def test_one_step_is_enough(data):
    X, y = data.X[data.X[:, 2] == 4], data.y[data.X[:, 2] == 4]
    model = make().fit(X, y)
    assert np.isfinite(model.predict(data.X[data.X[:, 2] >= 4])).all()
    later = model.predict(X + np.array([0, 0, 3]))
    assert (later != model.predict(X)).any()


def test_times_before_the_data_are_named(data, base):
    X = at([0, -1, -100])
    with pytest.warns(
        EarlyTimeWarning, match=r"\(time\): 6 of 9 rows are before 0, the first time"
    ):
        prediction = base.predict(X)
    assert_allclose(prediction[3:], np.tile(prediction[:3], 2), rtol=1e-5)
    with pytest.warns(EarlyTimeWarning):
        base.attention_weights(X)


def test_the_warning_of_early_times_names_the_line_of_the_caller(data):
    model = make(intervals=True).fit(data.X, data.y)
    X = at([-1])
    calls = [
        model.predict,
        partial(model.predict, quantiles=[0.5]),
        partial(model.predict_probability, limit=1.0),
        make_pipeline(FunctionTransformer(), model).predict,
    ]
    for call in calls:
        with pytest.warns(EarlyTimeWarning) as caught:
            call(X)
        assert caught[0].filename == __file__


def test_a_time_stamp_a_row_is_refused_before_it_fills_the_memory(data):
    X = np.column_stack([data.X[:, :2], 60 * np.arange(len(data.X))])
    message = r"holds 432 different steps in 432 rows; .* Number coarser steps, as X\[:, 2\] // 900"
    with pytest.raises(ValueError, match=message):
        make().fit(X, data.y)
    stamps = pd.DataFrame(X).assign(time=pd.Timestamp("2026-05-01") + pd.to_timedelta(X[:, 2], "s"))
    stamps = stamps[[0, 1, "time"]].set_axis(["user", "service", "time"], axis=1)
    with pytest.raises(ValueError, match=r"With time_step='1min' .* such as time_step='15min'"):
        make(time_step="1min").fit(stamps, data.y)
    make(time_step="15min").fit(stamps, data.y)


def test_a_step_of_validation_rows_alone_is_a_step_ahead(data):
    """The only row of the last time is held out sooner or later."""
    X = np.vstack([data.X[data.X[:, 2] < 9], [3, 4, 9]])
    y = data.y[: len(X)]
    seen = set()
    for seed in range(4):
        model = make(early_stopping="monitor", validation_fraction=0.5, random_state=seed)
        model.fit(X, y)
        assert np.isfinite(model.history_["valid_loss"]).all()
        seen.add(model.module_.times[-1].item())
    assert seen == {8, 9}


# --- What must not matter -----------------------------------------------------------------------


@pytest.mark.parametrize("params", [FULL_BATCH, GCMF_ONLY], ids=["both", "gcmf"])
def test_the_order_of_training_rows_does_not_matter(data, params):
    order = np.random.default_rng(0).permutation(len(data.y))
    expected = make(**params).fit(data.X, data.y).predict(data.X)
    permuted = make(**params).fit(data.X[order], data.y[order]).predict(data.X)
    assert_allclose(permuted, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "params",
    [{**FULL_BATCH, "entity_dim": None}, GCMF_ONLY],
    ids=["both", "gcmf"],
)
def test_which_number_an_id_has_does_not_matter(data, params):
    """Without folds, which are dealt out in the order of ids, and without vectors of ids."""
    rng = np.random.default_rng(0)
    users, services = rng.permutation(N_USERS), rng.permutation(N_SERVICES)
    renamed = np.column_stack([users[data.X[:, 0]], services[data.X[:, 1]], data.X[:, 2]])
    params = {**params, "features": ["statistics"], "n_folds": None}
    expected = make(**params).fit(data.X, data.y).predict(data.X)
    prediction = make(**params).fit(renamed, data.y).predict(renamed)
    assert_allclose(prediction, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("params", [{**FULL_BATCH, "modules": "pte"}, GCMF_ONLY], ids=str)
def test_the_same_row_twice_is_the_same_row(data, params):
    """Stage by stage: the number of rows moves the random state, and with it later stages."""
    expected = make(**params).fit(data.X, data.y).predict(data.X)
    twice = make(**params).fit(np.tile(data.X, (2, 1)), np.tile(data.y, 2)).predict(data.X)
    assert_allclose(twice, expected, rtol=1e-3, atol=1e-3)


def test_features_of_repeated_rows_are_of_their_mean(data, trainings):
    tables = []
    for X, y in ((data.X, data.y), (np.tile(data.X, (2, 1)), np.r_[0.5 * data.y, 1.5 * data.y])):
        make(modules="pte", target_transform=None).fit(X, y)
        tables.append(trainings["final"]["tables"])
    for once, twice in zip(*tables, strict=True):
        assert_allclose(once, twice, rtol=1e-4, atol=1e-4)


# --- Fitted attributes, stages, pickles ---------------------------------------------------------


def test_the_attributes_of_the_docstring_exist(data, joined):
    # Python 3.13 removes the indentation of docstrings.
    section = inspect.getdoc(TPMCFRegressor).split("Attributes\n")[1].split("Notes\n")[0]
    lines = re.findall(r"^(\S.*) : ", section, flags=re.MULTILINE)
    names = {name for line in lines for name in line.split(", ")}
    assert {"module_", "stage_nets_", "history_", "users_", "feature_names_in_"} <= names
    model = make().fit(joined, data.y)
    assert all(hasattr(model, name) for name in names)
    fitted = {name for name in vars(model) if name.endswith("_") and not name.startswith("_")}
    assert fitted <= names


@pytest.mark.parametrize("modules", ["both", "gcmf", "pte"])
def test_stages(data, modules):
    model = make(modules=modules).fit(data.X, data.y)
    names = ["gcmf", "final"] if modules == "both" else ["final"]
    assert list(model.stage_nets_) == list(model.history_["stage"].unique()) == names
    assert model.net_ is model.stage_nets_["final"]
    assert model.n_iter_ == (model.gcmf_epochs if modules == "gcmf" else model.max_epochs)
    assert isinstance(model.module_, GCMF if modules == "gcmf" else TPMCFModule)


def test_early_stopping_of_gcmf_restores_its_best_epoch(data):
    params = {"modules": "gcmf", "learning_rate_schedule": "constant", "gcmf_learning_rate": 0.05}
    model = make(**params, gcmf_epochs=60, early_stopping=True, n_iter_no_change=3)
    model.fit(data.X, data.y)
    best = model.history_["valid_loss"].idxmin()
    assert model.n_iter_ == len(model.history_) == best + 4 < 60
    shorter = make(**params, gcmf_epochs=int(best) + 1, early_stopping="monitor")
    assert_array_equal(shorter.fit(data.X, data.y).predict(data.X), model.predict(data.X))


def test_ctrl_c_in_the_second_stage_leaves_the_earlier_model(data):
    from skorch.callbacks import Callback

    class Interrupt(Callback):
        def on_epoch_end(self, net, **_):
            if net.stage == "final":
                raise KeyboardInterrupt

    model = make().fit(data.X, data.y)
    before = dict(vars(model))
    with pytest.raises(KeyboardInterrupt):
        model.set_params(callbacks=[Interrupt()]).fit(data.X, 2 * data.y)
    assert vars(model.set_params(callbacks=None)) == before


@pytest.mark.parametrize(
    ("params", "bytes_per_row"),
    [
        ({"modules": "both"}, 20),
        ({"modules": "pte"}, 20),
        ({"modules": "pte", "pair_history": False}, 0),
        ({"modules": "gcmf"}, 0),
    ],
    ids=str,
)
def test_a_pickle_grows_with_entities_and_steps(params, bytes_per_row):
    """With the history of pairs, also with measured cells."""
    sizes, n_rows = [], []
    for density in (0.1, 0.9):
        data = make_qos(30, 40, density=density, n_time_steps=4, random_state=0)
        model = make(**params, replay_buffer_size=0).fit(data.X, data.y)
        loaded = pickle.loads(pickle.dumps(model))
        assert_array_equal(loaded.predict(data.X), model.predict(data.X))
        sizes.append(len(pickle.dumps(model)))
        n_rows.append(len(data.y))
    assert sizes[1] < 1.05 * sizes[0] + bytes_per_row * (n_rows[1] - n_rows[0])


def test_frames_with_other_names_and_context(data, joined):
    """The third column is the time, whatever it is called."""
    names = {"user": "client", "service": "url", "time": "slot"}
    renamed = joined.rename(columns=names)
    expected = make().fit(joined, data.y).predict(joined)
    assert_array_equal(make().fit(renamed, data.y).predict(renamed), expected)
    days = joined.assign(time=pd.Series(joined["time"], dtype="Int64"))
    assert_array_equal(make().fit(days, data.y).predict(days), expected)
