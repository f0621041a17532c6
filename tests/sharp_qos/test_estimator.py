"""SharpQoSRegressor beyond the common contract: several targets, ablations, gates, context."""

import copy
import pickle
from types import SimpleNamespace

import geoopt
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback

from skqos import SharpQoSRegressor
from skqos._parameters import warn_of_unused_parameters
from skqos.base import BaseQoSRegressor
from skqos.datasets import make_qos
from skqos.exceptions import UnusedParameterWarning
from skqos.metrics import nan_mean_absolute_error, neg_nan_mae_scorer
from skqos.preprocessing import ContextJoiner
from skqos.sharp_qos.hyperbolic import PoincareBall, RiemannianAdamW
from tests.common import CONTRACTS

CONTRACT = next(c for c in CONTRACTS if c.estimator_class is SharpQoSRegressor)
make = CONTRACT.make
ONE_EPOCH = {"max_epochs": 1}
NAN = np.nan


@pytest.fixture(scope="module")
def joint():
    """Return measurements of two targets with gaps: 20 users, 30 services, 300 rows."""
    return make_qos(20, 30, density=0.5, n_qos=2, random_state=0)


@pytest.fixture(scope="module")
def joined(joint):
    """Return its rows with all context, NaN included."""
    return ContextJoiner(joint.users, joint.services).fit_transform(joint.X)


@pytest.fixture(scope="module")
def model(joint, joined):
    """Return a model for tests that only look at one."""
    return make().fit(joined, joint.y)


def targets_of(joint, n_targets):
    return np.column_stack([joint.y, 3 * joint.y[:, 0]])[:, :n_targets]


# --- Shapes of y --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_targets", [1, 2, 3])
@pytest.mark.parametrize("as_type", [np.asarray, pd.DataFrame], ids=["array", "DataFrame"])
def test_predictions_have_the_shape_of_y(joint, n_targets, as_type):
    y = targets_of(joint, n_targets)
    assert np.isnan(y).any(axis=0).all()
    prediction = make(**ONE_EPOCH).fit(joint.X, as_type(y)).predict(joint.X[:7])
    assert prediction.shape == (7, n_targets)
    assert prediction.dtype == np.float64
    assert np.isfinite(prediction).all()


def test_a_single_target_may_be_1d(joint):
    y = np.nan_to_num(joint.y[:, 0], nan=1.0)
    flat = make(**ONE_EPOCH).fit(joint.X, y).predict(joint.X)
    column = make(**ONE_EPOCH).fit(joint.X, y[:, None]).predict(joint.X)
    assert flat.shape == (300,)
    assert_array_equal(column, flat[:, None])


def test_a_single_target_has_no_cross_snr(joint, joined):
    model = make(**ONE_EPOCH).fit(joined, targets_of(joint, 1))
    assert list(model.gate_probabilities_) == ["snr"]
    assert model.active_shares_.columns.tolist() == ["snr"]


def test_an_earlier_fit_leaves_no_target_behind(joint, model):
    again = pickle.loads(pickle.dumps(model)).fit(joint.X, targets_of(joint, 3))
    assert again.predict(joint.X[:4]).shape == (4, 3)
    assert again.history_.columns[-1] == "task_weight_2"


def test_rows_without_any_observation_teach_no_value(joint):
    """Their ids are known, and predicted like newcomers."""
    X = np.vstack([joint.X, [[700, 800], [701, 801]]])
    y = np.vstack([joint.y, np.full((2, 2), NAN)])
    model = make(**ONE_EPOCH).fit(X, y)
    assert 700 in model.users_.ids_
    assert_allclose(*model.predict([[700, 801], [9999, 9999]]), rtol=1e-5)


# --- Errors -------------------------------------------------------------------------------------


def with_value(y, row, column, value):
    y = y.copy()
    y[row, column] = value
    return y


BAD_TARGETS = {
    "infinity": (
        lambda y: with_value(y, 7, 1, np.inf),
        r"y, column 1 \(1\): row 7 is inf; .*finite value, .* or NaN",
    ),
    "negative infinity": (
        lambda y: with_value(y, 3, 0, -np.inf),
        r"y, column 0 \(0\): row 3 is -inf",
    ),
    "infinity by name": (
        lambda y: pd.DataFrame(with_value(y, 9, 1, np.inf), columns=["rt", "tp"]),
        r"y, column 1 \(tp\): row 9 is inf",
    ),
    "nothing observed": (
        lambda y: with_value(y, slice(None), 1, NAN),
        r"y, column 1 \(1\) is NaN in every row.*Remove the column",
    ),
    "nothing observed by name": (
        lambda y: pd.DataFrame(with_value(y, slice(None), 0, NAN), columns=["rt", "tp"]),
        r"y, column 0 \(rt\) is NaN in every row",
    ),
    "NaN in 1-D": (lambda y: with_value(y, 0, 0, NAN)[:, 0], "Input y contains NaN"),
    "three dimensions": (lambda y: y[:, :, None], "dim 3"),
    "too few rows": (lambda y: y[:-1], "inconsistent numbers of samples"),
    "None": (lambda y: None, "requires y to be passed"),
}


@pytest.mark.parametrize("case", BAD_TARGETS.values(), ids=BAD_TARGETS.keys())
def test_bad_targets_raise_and_leave_the_earlier_model(joint, case):
    make_bad, message = case
    model = make(**ONE_EPOCH).fit(joint.X, joint.y)
    before = dict(vars(model))
    with pytest.raises(ValueError, match=message):
        model.fit(joint.X, make_bad(joint.y))
    assert vars(model) == before


BAD_PARAMS = [
    {"curvature": 0.0},
    {"curvature": 50.1},
    {"convolution": "sage"},
    {"context_graphs": "none"},
    {"n_members": 0},
    {"n_members": 1.5},
    {"task_weighting": "gradnorm"},
    {"loss": "cauchy"},
    {"batch_size": "all"},
    {"batch_size": 1},
    {"n_factors": 0},
    {"factor_folds": 1},
    {"messages": "context"},
    {"n_layers": 0},
    {"n_blocks": 0},
    {"gate_temperature": 0.0},
    {"gate_log_odds": 5.0},
    {"l0_penalty": -0.1},
    {"ema_decay": 1.0},
    {"feature_dropout": 1.0},
    {"newcomer_share": 1.0},
    {"disjoint_supervision": "yes"},
]


@pytest.mark.parametrize("params", BAD_PARAMS, ids=str)
def test_bad_parameters_raise(joint, params):
    (name,) = params
    with pytest.raises(ValueError, match=f"'{name}' parameter of SharpQoSRegressor must be"):
        make(**params).fit(joint.X, joint.y)


# --- Validation rows ----------------------------------------------------------------------------


@pytest.fixture
def splits(monkeypatch):
    """Record training rows and held-out rows of each fit."""
    seen = []
    original = BaseQoSRegressor._split_rows

    def spy(self, *args):
        seen.append(original(self, *args))
        return seen[-1]

    monkeypatch.setattr(BaseQoSRegressor, "_split_rows", spy)
    return seen


@pytest.mark.parametrize("early_stopping", [True, "monitor"])
def test_a_target_observed_once_stays_in_training(joint, splits, early_stopping):
    y = joint.y.copy()
    y[:150, 1] = y[151:, 1] = NAN
    y[150, 1] = 2.5
    model = make(**ONE_EPOCH, early_stopping=early_stopping, validation_fraction=0.9)
    assert np.isfinite(model.fit(joint.X, y).predict(joint.X)).all()
    train, held_out = splits[0]
    assert 150 in train
    assert len(held_out) > 250


def test_every_target_keeps_an_observation_in_training_for_any_seed(joint):
    """Ten rows, eight of them to hold out: a plain split would lose one target or the other."""
    y = np.full((10, 3), NAN)
    y[2, 0], y[7, 1], y[:, 2] = 1.0, 2.0, 3.0
    model = make(early_stopping=True, validation_fraction=0.8)
    splits = [model._split_rows(y, seed) for seed in range(100)]
    for train, held_out in splits:
        assert {2, 7} <= set(train)
        assert_array_equal(np.sort(np.r_[train, held_out]), np.arange(10))
    assert len({tuple(held_out) for _, held_out in splits}) > 20


def test_values_of_validation_rows_change_the_validation_loss_and_nothing_else(
    joint, joined, splits
):
    first = make(early_stopping="monitor").fit(joined, joint.y)
    y = joint.y.copy()
    y[splits[0][1]] *= 1000.0
    second = make(early_stopping="monitor").fit(joined, y)
    assert_array_equal(first.predict(joined), second.predict(joined))
    changed = ["valid_loss", "duration"]
    pd.testing.assert_frame_equal(
        first.history_.drop(columns=changed), second.history_.drop(columns=changed)
    )
    assert (first.history_["valid_loss"] < second.history_["valid_loss"]).all()


def test_one_value_of_a_training_row_changes_predictions_of_both_targets(joint, joined, splits):
    """The counterpart, without which the test above could not fail."""
    first = make(early_stopping="monitor").fit(joined, joint.y)
    y = joint.y.copy()
    row = next(row for row in splits[0][0] if not np.isnan(y[row, 0]))
    y[row, 0] *= 1000.0
    second = make(early_stopping="monitor").fit(joined, y)
    assert (first.predict(joined) != second.predict(joined)).any(axis=0).all()


# --- Scores -------------------------------------------------------------------------------------


def test_score_is_r2_over_observed_entries_averaged_over_targets(joint, joined, model):
    prediction = model.predict(joined)
    observed = ~np.isnan(joint.y)
    expected = np.mean(
        [r2_score(joint.y[seen, k], prediction[seen, k]) for k, seen in enumerate(observed.T)]
    )
    assert model.score(joined, joint.y) == pytest.approx(expected)


def test_score_leaves_out_a_target_without_observations(joint, joined, model):
    seen = ~np.isnan(joint.y[:, 0])
    expected = r2_score(joint.y[seen, 0], model.predict(joined)[seen, 0])
    score = model.score(joined, with_value(joint.y, slice(None), 1, NAN))
    assert score == pytest.approx(expected)


def test_score_raises_if_no_target_is_left(joint, joined, model):
    with pytest.raises(ValueError, match="no target has 2 or more observed values"):
        model.score(joined, np.full_like(joint.y, NAN))


def test_score_needs_as_many_targets_as_fit_saw(joint, joined, model):
    with pytest.raises(ValueError, match="same number of targets; got 3 and 2"):
        model.score(joined, targets_of(joint, 3))


def test_cross_validation_with_gaps(joint):
    """One of the folds that test lacks the second target."""
    y = with_value(joint.y, slice(150, None), 1, NAN)
    rows = np.arange(300)
    folds = [(rows[:200], rows[200:]), (rows[100:], rows[:100])]
    result = cross_validate(
        make(**ONE_EPOCH),
        joint.X,
        y,
        cv=folds,
        scoring=neg_nan_mae_scorer,
        error_score="raise",
        return_estimator=True,
    )
    expected = [
        -nan_mean_absolute_error(y[test], model.predict(joint.X[test]))
        for (_, test), model in zip(folds, result["estimator"], strict=True)
    ]
    assert result["test_score"] == pytest.approx(expected)


# --- Ablations ----------------------------------------------------------------------------------


def is_point(parameter):
    return hasattr(parameter, "is_on_ball")


def n_points(module):
    return sum(map(is_point, module.parameters()))


# Parameters, and what the module that they ask for must look like.
ABLATIONS = {
    "hygcn": ({"convolution": "hygcn"}, lambda m: n_points(m.graphs) == 4),
    "gcn": ({"convolution": "gcn"}, lambda m: n_points(m) == 0 and len(m.graphs[0].layers) == 2),
    "none": ({"convolution": "none"}, lambda m: m.graphs[0].out_dim == 3),
    "valued edges": (
        {
            "edge_values": "quantile",
            "edge_dropout": 0.5,
            "normalization": "row",
            "side_scales": True,
        },
        # Four types and own features, and four types of either hyperedge.
        lambda m: len(m.graphs[0].layers[0].linear.weight) == 5 + 2 * 4,
    ),
    "messages of the context": (
        {"messages": "factors_and_context"},
        # Outputs of four context graphs, and numbers.
        lambda m: m.graphs[0].layers[0].linear.weight.shape[2] == 3 + 5 * 4,
    ),
    "factors without folds": ({"factor_folds": 3}, lambda m: m.n_folds == 3),
    "folds, no graph": (
        {"factor_folds": 3, "convolution": "none"},
        lambda m: m.graphs[0].fold_features.shape == (3, 50, 3),
    ),
    "context in the ball": (
        {"convolution": "none", "context_convolution": "hygcn"},
        lambda m: n_points(m.context) == 1 and n_points(m.graphs) == 0,
    ),
    "merged": ({"context_graphs": "merged"}, lambda m: len(m.context.graphs) == 1),
    "no SNR": (
        {"routing": False, "n_blocks": 4},
        lambda m: list(m.gate_probabilities()) == ["cross_snr"],
    ),
    "no Cross-SNR": (
        {"cross_routing": False, "n_cross_blocks": 4},
        lambda m: list(m.gate_probabilities()) == ["snr"],
    ),
    "neither": (
        {"routing": False, "cross_routing": False, "n_blocks": 4, "n_cross_blocks": 4},
        lambda m: not m.active_shares(),
    ),
    "dwa": ({"task_weighting": "dwa"}, None),
    "uncertainty": ({"task_weighting": "uncertainty"}, None),
    "equal": ({"task_weighting": "equal"}, None),
    "all edges carry messages": ({"disjoint_supervision": False}, None),
    "fixed features": (
        {"fine_tune_features": False},
        lambda m: not m.graphs[0].features.requires_grad,
    ),
    "learnt curvature": ({"learn_curvature": True}, None),
    "other curvature": ({"curvature": 5.0}, None),
    "no newcomers": ({"newcomer_share": 0}, lambda m: m.newcomer_share == 0),
    "no dropout": ({"feature_dropout": 0, "context_dropout": 0}, None),
    "1 layer": ({"n_layers": 1}, lambda m: m.graphs[0].out_dim == 3 + 4),
    "3 layers": ({"n_layers": 3}, lambda m: m.graphs[0].out_dim == 3 + 3 * 4),
    "2 context layers": (
        {"n_context_layers": 2},
        lambda m: len(m.context.layers) == 2,
    ),
    "Huber": ({"loss": "huber"}, None),
    "temperature": ({"gate_temperature": 0.3}, None),
    "even odds": (
        {"gate_log_odds": 0.0},
        lambda m: max(p.max() for p in m.gate_probabilities().values()) < 0.9,
    ),
    "3 members": ({"n_members": 3}, lambda m: m.bias.shape == (3, 2)),
}


def test_the_default_has_every_component(model):
    module = model.module_
    # The biases of HHGCN's three branches, twice for each of two targets.
    assert n_points(module.graphs) == 4
    assert all(len(layer.linear.bias) == 3 for graph in module.graphs for layer in graph.layers)
    # Country, autonomous system and region of both sides, provider of services.
    assert len(module.context.graphs) == 4
    assert module.graphs[0].out_dim == 3 + 2 * 4
    assert module.newcomer_share == 0.05
    assert list(module.gate_probabilities()) == ["snr", "cross_snr"]


@pytest.mark.parametrize("case", ABLATIONS.values(), ids=ABLATIONS.keys())
def test_every_switch_trains_another_model(joint, joined, model, case):
    params, holds = case
    ablated = make(**params).fit(joined, joint.y)
    prediction = ablated.predict(joined)
    assert np.isfinite(prediction).all()
    assert (prediction != model.predict(joined)).any(axis=0).all()
    assert holds is None or holds(ablated.module_)


class Watch(Callback):
    """Keep what training starts from, and its optimiser."""

    seen = SimpleNamespace()

    def on_train_begin(self, net, **_):
        self.seen.optimizer = net.optimizer_
        state = net.module_.state_dict()
        self.seen.start = {name: values.clone() for name, values in state.items()}


def moved(model):
    """Name the tensors that training has changed."""
    state = model.module_.state_dict()
    return {name for name, value in Watch.seen.start.items() if not value.equal(state[name])}


@pytest.mark.parametrize("fine_tune", [True, False])
def test_features_of_nodes_and_categories_are_trained_on_or_not(joint, joined, fine_tune):
    model = make(**ONE_EPOCH, fine_tune_features=fine_tune, callbacks=[Watch()])
    found = moved(model.fit(joined, joint.y))
    assert {name for name in found if ".features" in name} == (
        {f"graphs.{k}.features" for k in range(2)} | {"context.features"} if fine_tune else set()
    )
    assert "bias" in found


@pytest.mark.parametrize("learn", [True, False])
def test_the_curvature_is_learnt_or_not(joint, joined, learn):
    model = make(learn_curvature=learn, curvature=2.0, callbacks=[Watch()]).fit(joined, joint.y)
    balls = [part for part in model.module_.modules() if isinstance(part, PoincareBall)]
    assert len(balls) == 1, "all layers share one"
    change = abs(balls[0].c.item() - 2.0)
    assert 1e-4 < change < 1 if learn else change < 1e-6


def test_uncertainty_learns_its_weights(joint):
    weights = make(task_weighting="uncertainty").fit(joint.X, joint.y).history_["task_weight_0"]
    assert weights.nunique() == 3


def test_disjoint_supervision_gives_the_network_the_edges_of_each_row(joint, monkeypatch):
    """The edges left out of a step are those of its own rows, and -1 where there is none."""
    from skqos.sharp_qos.module import SharpQoSModule

    seen = []
    original = SharpQoSModule.forward

    def spy(self, users, services, edges=None):
        seen.append((self, users, services, edges))
        return original(self, users, services, edges)

    monkeypatch.setattr(SharpQoSModule, "forward", spy)
    make(**ONE_EPOCH).fit(joint.X, joint.y)
    rows = 0
    for module, users, services, edges in seen:
        rows += len(users)
        for graph, held_out in zip(module.graphs, edges.T, strict=True):
            has_edge = held_out >= 0
            of_graph = graph.graph
            assert_array_equal(of_graph.users[held_out[has_edge]], users[has_edge])
            assert_array_equal(of_graph.services[held_out[has_edge]], services[has_edge])
            assert 0 < (~has_edge).sum() < has_edge.sum()
    assert rows == 300


def start_of_training(X, y, **params):
    """Return what the network of one target starts from."""
    model = make(**ONE_EPOCH, target_transform=None, callbacks=[Watch()], **params)
    model.fit(X, y)
    return Watch.seen.start


@pytest.mark.parametrize("convolution", ["none", "hygcn"])
def test_with_folds_a_value_is_no_part_of_the_factors_it_is_trained_with(joint, convolution):
    X, y = joint.X, np.nan_to_num(joint.y[:, 0], nan=1.0)
    other = y.copy()
    other[7] += 2.0
    params = {"factor_folds": 3, "convolution": convolution}
    before, after = (start_of_training(X, values, **params) for values in (y, other))
    name = "graphs.0.fold_features"
    own = [np.unique(ids).searchsorted(of_row) for ids, of_row in zip(X.T, X[7], strict=True)]
    is_changed = (before[name] != after[name]).flatten(1).any(1)
    assert is_changed.tolist() == [fold != sum(own) % 3 for fold in range(3)]
    # In the paper, the value is part of them.
    before, after = (start_of_training(X, values, convolution=convolution) for values in (y, other))
    assert (before["graphs.0.features"] != after["graphs.0.features"]).any()


def test_all_rows_of_a_step_are_of_one_fold(joint, monkeypatch):
    from skqos.sharp_qos.module import SharpQoSModule

    seen = []
    original = SharpQoSModule.forward

    def spy(self, users, services, edges, folds):
        seen.append((users, services, folds))
        return original(self, users, services, edges, folds)

    monkeypatch.setattr(SharpQoSModule, "forward", spy)
    model = make(**ONE_EPOCH, factor_folds=3).fit(joint.X, joint.y)
    # The number of folds is that of `fit`; new ids have a fold, too.
    model.set_params(factor_folds=None)
    model.partial_fit([[999, 0], [0, 999], [999, 999]], joint.y[:3])
    assert len(seen) > 3
    for users, services, folds in seen:
        assert len(folds.unique()) == 1
        assert_array_equal(folds, (users + services) % 3)


@pytest.mark.parametrize(
    "params", [{"disjoint_supervision": False}, {"convolution": "none"}], ids=str
)
def test_without_disjoint_supervision_no_edges_are_left_out(joint, monkeypatch, params):
    from skqos.sharp_qos.module import SharpQoSModule

    seen = []
    original = SharpQoSModule.forward

    def spy(self, *args, **inputs):
        seen.append(inputs)
        return original(self, *args, **inputs)

    monkeypatch.setattr(SharpQoSModule, "forward", spy)
    make(**ONE_EPOCH, **params).fit(joint.X, joint.y)
    assert seen
    assert all(inputs.keys() == {"users", "services"} for inputs in seen)


@pytest.mark.parametrize("convolution", ["hhgcn", "hygcn", "gcn", "none"])
def test_the_convolution_of_context_does_not_depend_on_that_of_qos(joint, joined, convolution):
    model = make(**ONE_EPOCH, convolution=convolution).fit(joined, joint.y)
    assert n_points(model.module_.context) == 0
    assert (model.module_.graphs[0].graph is None) == (convolution == "none")


def test_edges_with_values_need_disjoint_supervision(joint):
    model = make(edge_values="quantile", disjoint_supervision=False)
    with pytest.raises(ValueError, match="edge_values='quantile' needs disjoint_supervision=True"):
        model.fit(joint.X, joint.y)
    make(**ONE_EPOCH, convolution="none", edge_values="binary", disjoint_supervision=True).fit(
        joint.X, joint.y
    )


def test_the_value_of_an_edge_is_the_weighted_mean_of_its_rows():
    X = [[1, 1], [1, 1], [1, 2], [2, 1], [2, 2]]
    y = [1.0, 4.0, 2.0, 3.0, 5.0]
    model = make(**ONE_EPOCH, edge_values="quantile", target_transform=None)
    model.fit(X, y, sample_weight=[2, 1, 1, 1, 1])
    assert_allclose(model.module_.graphs[0].graph.values, [2.0, 2.0, 3.0, 5.0])
    # What is measured again replaces what was known.
    model.partial_fit([[1, 1], [3, 2]], [7.0, 6.0])
    assert_allclose(model.module_.graphs[0].graph.values, [7.0, 2.0, 3.0, 5.0, 6.0])


def test_replayed_rows_do_not_change_the_values_of_their_edges():
    """An update draws a part of the four rows of each pair."""
    pairs = np.argwhere(np.ones((12, 15)))
    X = np.repeat(pairs, 4, axis=0)
    y = np.random.default_rng(0).uniform(1, 9, len(X))
    model = make(**ONE_EPOCH, edge_values="quantile", target_transform=None).fit(X, y)
    before = model.module_.graphs[0].graph.values
    model.partial_fit([[0, 0]], [5.0])
    after = model.module_.graphs[0].graph.values
    assert after[0] == 5
    assert_array_equal(after[1:], before[1:])


def test_parameters_of_graphs_warn_where_there_is_none():
    params = {"n_layers": 3, "edge_dropout": 0.5, "messages": "factors_and_context"}
    model = SharpQoSRegressor(**params, curvature=2.0)
    with pytest.warns(UnusedParameterWarning) as caught:
        warn_of_unused_parameters(model)
    assert [str(one.message).split("=")[0] for one in caught] == [
        "messages",
        "edge_dropout",
        "n_layers",
        "curvature",
    ]


def test_paper_params_are_parameters_of_their_own_values():
    params = SharpQoSRegressor(**SharpQoSRegressor.PAPER_PARAMS).get_params()
    assert SharpQoSRegressor.PAPER_PARAMS.items() <= params.items()


def test_the_published_model_fits(joint, joined):
    params = {**SharpQoSRegressor.PAPER_PARAMS, "max_epochs": 1, "batch_size": 256}
    model = SharpQoSRegressor(**params, random_state=0).fit(joined, joint.y)
    module = model.module_
    # Factors cannot outnumber users or services.
    assert module.graphs[0].layers[-1].linear.weight.shape == (3, 1, 64, 64)
    assert module.graphs[0].dropout.p == module.context_dropout.p == module.newcomer_share == 0
    assert model._state.target_transform.kinds_ == ["max", "max"]
    assert np.isfinite(model.predict(joined)).all()


# --- History ------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", ["ema", "dwa", "uncertainty", "equal"])
def test_history_has_loss_and_weight_of_each_target(joint, weighting):
    model = make(task_weighting=weighting).fit(joint.X, joint.y)
    assert model.history_.columns.tolist() == [
        *["stage", "epoch", "train_loss", "valid_loss", "duration"],
        *["train_loss_0", "train_loss_1", "task_weight_0", "task_weight_1"],
    ]
    assert len(model.history_) == 3
    assert (model.history_.filter(like="_loss_") > 0).all(axis=None)
    assert (model.history_.filter(like="task_weight") > 0).all(axis=None)


@pytest.mark.parametrize("weighting", ["ema", "dwa"])
def test_weights_sum_to_the_number_of_targets(joint, weighting):
    y = targets_of(joint, 3)
    weights = (
        make(task_weighting=weighting, max_epochs=4)
        .fit(joint.X, y)
        .history_.filter(like="task_weight")
    )
    assert_allclose(weights.sum(axis=1), 3.0, rtol=1e-5)
    assert np.ptp(weights.to_numpy()[-1]) > 1e-4


def test_ema_weighs_the_target_of_the_larger_loss_less(joint):
    y = joint.y.copy()
    y[:, 0] *= 1e3
    last = make(target_transform=None).fit(joint.X, y).history_.iloc[-1]
    assert last["train_loss_0"] > last["train_loss_1"]
    assert last["task_weight_0"] < last["task_weight_1"]


def test_equal_weights_are_1(joint):
    weights = make(task_weighting="equal").fit(joint.X, joint.y).history_.filter(like="task_weight")
    assert (weights == 1.0).all(axis=None)


# --- Gates --------------------------------------------------------------------------------------


def test_gate_probabilities(joint, joined):
    model = make(**ONE_EPOCH, n_blocks=3, n_cross_blocks=2).fit(joined, targets_of(joint, 3))
    snr, cross = model.gate_probabilities_["snr"], model.gate_probabilities_["cross_snr"]
    assert snr.shape == (3, 3)
    assert cross.shape == (3, 3, 2)
    own = np.eye(3, dtype=bool)
    assert (cross[own] == 0).all()
    for open_to_chance in (snr, cross[~own]):
        assert ((open_to_chance > 0) & (open_to_chance < 1)).all()


def test_active_shares_are_those_of_settled_gates(joint, joined):
    model = make(**ONE_EPOCH).fit(joined, targets_of(joint, 3))
    gates = [model.module_.router.gates.log_odds, model.module_.cross_router.gates.log_odds]
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for log_odds in gates:
            log_odds.normal_(std=5.0)
    snr, cross = (1.2 / (1 + np.exp(-log_odds.detach().numpy()[0])) - 0.1 > 0 for log_odds in gates)
    shares = model.active_shares_
    assert shares.index.tolist() == [0, 1, 2]
    assert_allclose(shares["snr"], snr.mean(axis=1))
    others = [np.delete(cross[task], task, axis=0).mean() for task in range(3)]
    assert_allclose(shares["cross_snr"], others)
    assert 0 < shares.to_numpy().mean() < 1


# 60 steps that could close or open any gate.
LONG_STEPS = {
    "max_epochs": 15,
    "batch_size": 96,
    "learning_rate": 0.1,
    "learning_rate_schedule": "constant",
    "target_transform": "standard",
}


def test_a_large_penalty_closes_gates(joint, joined):
    model = make(**LONG_STEPS, l0_penalty=10.0).fit(joined, joint.y)
    assert (model.active_shares_ == 0).all(axis=None)
    for probabilities in model.gate_probabilities_.values():
        assert (probabilities < 0.5).all()


def test_without_a_penalty_gates_stay_open(joint, joined):
    model = make(**LONG_STEPS, l0_penalty=0).fit(joined, joint.y)
    assert model.active_shares_.mean(axis=None) > 0.5


# --- Context ------------------------------------------------------------------------------------

CATEGORIES, NUMBERS = ["country", "as", "region"], ["latitude", "longitude"]
# Columns of users, columns of services, graphs, whether there are numbers.
CONTEXTS = {
    "none": ([], [], 0, False),
    "users' categories": (["as"], [], 1, False),
    "services' categories": ([], ["provider"], 1, False),
    "categories of other names": (["as"], ["provider"], 2, False),
    "all categories": (CATEGORIES, [*CATEGORIES, "provider"], 4, False),
    "users' numbers": (["latitude"], [], 0, True),
    "services' numbers": ([], NUMBERS, 0, True),
    "both": (["region", "latitude"], ["region", "longitude"], 1, True),
    "categories here, numbers there": (["region"], ["latitude"], 1, True),
}


@pytest.mark.parametrize("graphs", ["separate", "merged"])
@pytest.mark.parametrize("case", CONTEXTS.values(), ids=CONTEXTS.keys())
def test_any_context(joint, case, graphs):
    users, services, n_graphs, has_numbers = case
    joiner = ContextJoiner(
        joint.users[users] if users else None, joint.services[services] if services else None
    )
    pairs = np.vstack([joint.X[:5], [[999, 0], [0, 999], [999, 999]]])
    model = make_pipeline(joiner, make(**ONE_EPOCH, context_graphs=graphs)).fit(joint.X, joint.y)
    module = model[-1].module_
    found = 0 if module.context is None else len(module.context.graphs)
    assert found == (n_graphs if graphs == "separate" else min(n_graphs, 1))
    assert (module.numbers is not None) == has_numbers
    assert ("snr" in model[-1].gate_probabilities_) == bool(users or services)
    assert np.isfinite(model.predict(pairs)).all()


@pytest.fixture(scope="module")
def complete():
    """Return measurements whose context has no gaps, joined, and a model of them.

    With gaps, "unknown" is a category like others.
    """
    data = make_qos(20, 30, density=0.5, n_qos=2, unknown_rate=0, random_state=0)
    X = ContextJoiner(data.users, data.services).fit_transform(data.X)
    return X, make().fit(X, data.y)


def newcomers(X, **context):
    """Return the first row for new users, with other context."""
    rows = X.iloc[[0]].assign(user=-1)
    return rows.assign(**{f"user_{name}": value for name, value in context.items()})


NOTHING = dict.fromkeys([*CATEGORIES, *NUMBERS], NAN)


def test_unknown_categories_count_as_no_context(complete):
    X, model = complete
    unheard_of = dict.fromkeys(CATEGORIES, "Atlantis")
    expected = model.predict(newcomers(X, **NOTHING))
    assert_array_equal(model.predict(newcomers(X, **{**NOTHING, **unheard_of})), expected)


@pytest.mark.parametrize("name", ["country", "as", "region", "latitude"])
def test_any_known_context_tells_newcomers_apart(complete, name):
    X, model = complete
    values = X[f"user_{name}"].drop_duplicates().head(2)
    found = [model.predict(newcomers(X, **{**NOTHING, name: value}))[0] for value in values]
    nothing = model.predict(newcomers(X, **NOTHING))[0]
    for first, second in [(0, 1), (0, None), (1, None)]:
        other = nothing if second is None else found[second]
        assert (found[first] != other).all()


def test_newcomers_without_context_are_alike(complete):
    X, model = complete
    rows = pd.concat([newcomers(X, **NOTHING), newcomers(X, **NOTHING).assign(user=-2)])
    assert_array_equal(*model.predict(rows))
    assert (model.predict(rows)[0] != model.predict(X.iloc[[0]])[0]).all()


# --- Graphs -------------------------------------------------------------------------------------


def test_repeated_rows_make_one_edge(joint):
    X, y = np.tile(joint.X, (2, 1)), np.vstack([joint.y, 2 * joint.y])
    module = make(**ONE_EPOCH).fit(X, y).module_
    assert [graph.graph.n_edges for graph in module.graphs] == (~np.isnan(joint.y)).sum(0).tolist()


@pytest.fixture(scope="module")
def one_sided():
    """Return measurements of which every third service lacks the second target, and a model."""
    data = make_qos(40, 60, density=0.3, n_qos=2, random_state=0)
    y = data.y.copy()
    lacking = data.X[:, 1] % 3 == 0
    y[lacking, 1] = NAN
    kept = ~np.isnan(y).all(axis=1)
    params = {**CONTRACT.learning, "cross_routing": False}
    return data, y, lacking, make(**params).fit(data.X[kept], y[kept])


def test_services_of_one_target_are_newcomers_to_the_other(one_sided):
    """Nothing in that target's graph tells of them, and no context does here."""
    data, _, lacking, model = one_sided
    pairs = data.X[lacking]
    unknown = np.column_stack([pairs[:, 0], np.full(len(pairs), 9999)])
    found, expected = model.predict(pairs), model.predict(unknown)
    assert_allclose(found[:, 1], expected[:, 1], rtol=1e-4)
    assert (np.abs(found[:, 0] / expected[:, 0] - 1) > 1e-2).mean() > 0.9


def test_services_of_one_target_are_predicted_sanely_for_the_other(one_sided):
    data, y, lacking, model = one_sided
    prediction, truth = model.predict(data.X[lacking])[:, 1], data.y[lacking, 1]
    assert prediction.min() > 0
    assert prediction.max() < 3 * np.nanquantile(y[:, 1], 0.99)
    median_error = nan_mean_absolute_error(truth, np.full(len(truth), np.nanmedian(y[:, 1])))
    assert nan_mean_absolute_error(truth, prediction) < 1.1 * median_error


# --- Ten targets --------------------------------------------------------------------------------


def test_ten_targets_beat_the_service_median():
    data = make_qos(50, 100, density=0.2, n_qos=10, noise=0.1, timeout_rate=0, random_state=0)
    test = np.random.default_rng(0).random(len(data.X)) < 0.3
    params = {
        **CONTRACT.learning,
        "max_epochs": 30,
        "learning_rate": 0.04,
        "n_layers": 1,
        "n_cross_blocks": 1,
        "feature_dropout": 0.1,
        "context_dropout": 0.1,
        "newcomer_share": 0,
    }
    model = make_pipeline(ContextJoiner(data.users, data.services), make(**params))
    prediction = model.fit(data.X[~test], data.y[~test]).predict(data.X[test])
    train = pd.DataFrame(data.y[~test])
    medians = train.groupby(data.X[~test, 1]).median().reindex(data.X[test, 1])
    errors, baselines = (
        nan_mean_absolute_error(data.y[test], found, multioutput="raw_values")
        for found in (prediction, medians.fillna(train.median()))
    )
    assert (errors < baselines).all()
    assert (errors / baselines).mean() < 0.95


# --- Pickles, seeds, optimiser, batches ---------------------------------------------------------


def test_a_pickle_predicts_and_shows_the_same(joined, model):
    loaded = pickle.loads(pickle.dumps(model))
    assert_array_equal(loaded.predict(joined), model.predict(joined))
    pd.testing.assert_frame_equal(loaded.active_shares_, model.active_shares_)
    for name, probabilities in model.gate_probabilities_.items():
        assert_array_equal(loaded.gate_probabilities_[name], probabilities)


def test_a_pickle_without_replay_buffer_holds_no_target_values(joint, joined):
    model = make(**ONE_EPOCH, target_transform="log", replay_buffer_size=0).fit(joined, joint.y)
    values = joint.y[~np.isnan(joint.y)]
    transformed = model._state.target_transform.transform(joint.y)[:20].astype(np.float32)
    words = [value.tobytes() for value in values]
    words += [value.tobytes() for value in transformed[~np.isnan(transformed)]]
    dump = pickle.dumps(model)
    assert not [word for word in words if word in dump]
    assert all(word in pickle.dumps((model, joint.y)) for word in words[:3])


def test_the_same_seed_gives_the_same_model_again(joint, joined, model):
    prediction = model.predict(joined)
    again = make().fit(joined, joint.y)
    assert_array_equal(again.fit(joined, joint.y).predict(joined), prediction)
    other = make(random_state=1).fit(joined, joint.y)
    assert (other.predict(joined) != prediction).any(axis=0).all()


@pytest.mark.parametrize("euclidean", ["adamw", "adam"])
def test_biases_of_the_ball_are_trained_by_riemannian_adam_and_stay_inside(joint, euclidean):
    curvature = 5.0
    params = {**LONG_STEPS, "max_epochs": 5, "learning_rate": 0.3, "optimizer": euclidean}
    model = make(**params, curvature=curvature, callbacks=[Watch()]).fit(joint.X, joint.y)
    optimizer = Watch.seen.optimizer
    assert type(optimizer) is RiemannianAdamW
    first, second = optimizer.parts
    assert type(first) is {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[euclidean]
    assert type(second) is geoopt.optim.RiemannianAdam
    points = {name: p for name, p in model.module_.named_parameters() if is_point(p)}
    assert points.keys() <= moved(model)
    norms = [p.norm(dim=-1).max().item() for p in points.values()]
    assert max(norms) < 1 / curvature**0.5
    assert max(norms) > 0.5 / curvature**0.5


@pytest.mark.parametrize(
    ("n_rows", "expected"),
    [(2, 96), (4_800, 96), (4_801, 97), (1_000_000, 20_000), (1_000_001, 20_001)],
)
def test_the_automatic_batch_size(n_rows, expected):
    """At least 96 rows, at most 50 steps."""
    assert make(batch_size="auto")._rows_per_step(n_rows) == expected
    assert -(-n_rows // expected) <= 50


@pytest.mark.parametrize(("batch_size", "expected"), [("auto", 96), (64, 64)])
def test_batches_have_the_size_asked_for(joint, batch_size, expected):
    model = make(**ONE_EPOCH, batch_size=batch_size).fit(joint.X, joint.y)
    assert model.net_.batch_size == expected


# --- Few observations ---------------------------------------------------------------------------


def _few_observations():
    data = make_qos(20, 30, density=0.5, n_qos=2, random_state=0)
    y = np.full_like(data.y, np.nan)
    y[:5] = np.nan_to_num(data.y[:5], nan=1.0)
    return data.X, y


def test_few_observations_fit_without_a_warning():
    X, y = _few_observations()
    model = SharpQoSRegressor(max_epochs=1, n_factors=3, random_state=0).fit(X, y)
    assert np.isfinite(model.predict(X)).all()


@pytest.mark.parametrize("seed", range(5))
def test_validation_rows_have_an_observation(seed):
    X, y = _few_observations()
    model = SharpQoSRegressor(max_epochs=2, early_stopping="monitor", random_state=seed)
    assert model.fit(X, y).history_["valid_loss"].notna().all()


def test_too_few_observations_to_validate_raise():
    X, y = _few_observations()
    y[1:] = np.nan
    with pytest.raises(ValueError, match="too few observations to hold out"):
        SharpQoSRegressor(max_epochs=1, early_stopping=True, random_state=0).fit(X, y)


@pytest.mark.parametrize("use", ["partial_fit", "score", "y_val"])
def test_targets_in_another_order_raise(joint, joined, use):
    y = pd.DataFrame(joint.y, columns=["rt", "tp"])
    swapped = y[["tp", "rt"]]
    calls = {
        "partial_fit": lambda: make().fit(joined, y).partial_fit(joined, swapped),
        "score": lambda: make().fit(joined, y).score(joined, swapped),
        "y_val": lambda: make(early_stopping=True).fit(joined, y, X_val=joined, y_val=swapped),
    }
    with pytest.raises(ValueError, match=r"y has the columns \['tp', 'rt'\], but in fit it had"):
        calls[use]()


def test_an_update_extends_the_graph_that_was_fitted(qos):
    """Parameters that were set after `fit` change neither its edges nor their scaling."""
    rows = np.arange(len(qos.y)) < 500
    one, other = (
        make(convolution="gcn", edge_values="binary").fit(qos.X[rows], qos.y[rows])
        for _ in range(2)
    )
    other.set_params(edge_values="quantile", normalization="row", convolution="none")
    for model in (one, other):
        model.partial_fit(qos.X[~rows], qos.y[~rows])
    assert_array_equal(one.predict(qos.X), other.predict(qos.X))


@pytest.mark.parametrize(("before", "after"), [("separate", "merged"), ("merged", "separate")])
def test_an_update_keeps_the_context_graphs_of_fit(joint, joined, before, after):
    model = make(context_graphs=before, partial_fit_epochs=0).fit(joined[:-30], joint.y[:-30])
    other = copy.deepcopy(model).set_params(context_graphs=after)
    model.partial_fit(joined[-30:], joint.y[-30:])
    other.partial_fit(joined[-30:], joint.y[-30:])
    np.testing.assert_array_equal(other.predict(joined), model.predict(joined))


VALUED_MESSAGES = {
    "messages": "factors_and_context",
    "edge_values": "sender_quantile",
    "normalization": "row",
    "n_members": 2,
}


@pytest.mark.parametrize("convolution", ["hygcn", "gcn"])
def test_messages_of_the_context_reach_new_ids_of_an_update(joint, joined, convolution):
    """What a new user receives depends on the context of the services that it has measured."""
    params = {**VALUED_MESSAGES, "convolution": convolution, "partial_fit_epochs": 0}
    known = joined["user"] != joined["user"].iloc[0]
    model = make(**params).fit(joined[known], joint.y[known])
    rows = joined[~known]
    before = model.predict(rows)
    model.partial_fit(rows, joint.y[~known])
    after = model.predict(rows)
    assert np.isfinite(before).all()
    assert np.isfinite(after).all()
    assert (before != after).all()


def test_without_context_messages_are_the_factors(joint):
    found, expected = (
        make(**ONE_EPOCH, messages=messages).fit(joint.X, joint.y).predict(joint.X)
        for messages in ("factors_and_context", "factors")
    )
    assert_array_equal(found, expected)
