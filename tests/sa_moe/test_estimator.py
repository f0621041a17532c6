"""SAMoERegressor beyond the common contract: its stages, what feeds them, expert shares."""

import pickle
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback
from torch import nn

from skqos import SAMoERegressor
from skqos._parameters import warn_of_unused_parameters
from skqos.entities import Interactions
from skqos.exceptions import UnusedParameterWarning
from skqos.factorization import truncated_svd
from skqos.prediction import predict_interactions
from skqos.preprocessing import ContextJoiner
from skqos.sa_moe.module import EMBEDDING_STD
from skqos.targets import TargetTransform
from skqos.training import Trainer
from tests.common import weight_of

TINY = {
    "max_epochs": 2,
    "first_stage_epochs": 1,
    "n_factors": 3,
    "embedding_dim": 4,
    "tower_dim": 8,
    "attention_dim": 8,
    "mlp_hidden_sizes": (8, 8),
    "device": "cpu",
    "random_state": 0,
}
MF_MOE = {"refill_ratio": 0, "pseudo_label_ratio": 0}
# As in the paper, the second network starts afresh and gets the factors of a refilled matrix.
SA_MOE = {"refill_ratio": 1.0, "pseudo_label_ratio": 1.0, "second_stage_start": "fresh"}
SA_MOE_MINUS = {**SA_MOE, "pseudo_label_ratio": 0}
START_FROM_FIRST = {"refill_ratio": 0, "second_stage_start": "first"}
NO_REFILL = {**SA_MOE, "refill_ratio": 0}


def make(**params):
    return SAMoERegressor(**{**TINY, **params})


@dataclass
class Stage:
    """What one call of `Trainer.fit` was given."""

    name: str
    module: nn.Module
    users: np.ndarray
    services: np.ndarray
    target: np.ndarray
    max_epochs: int
    validation: object
    sample_weight: np.ndarray | None = None
    start: dict | None = None
    net: object = None

    @property
    def cells(self):
        return list(zip(self.users.tolist(), self.services.tolist(), strict=True))


def copy_state(module):
    return {name: values.clone() for name, values in module.state_dict().items()}


def equal_states(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(values, second[name]) for name, values in first.items())


@pytest.fixture
def stages(monkeypatch):
    """Record each stage: its rows as they reach the network."""
    seen = []
    original = Trainer.fit

    def spy(self, module, criterion, rows, validation, *, stage, max_epochs, **options):
        codes = {name: values.numpy().copy() for name, values in rows.inputs.items()}
        target = rows.target.numpy().copy()
        seen.append(
            Stage(
                stage, module, **codes, target=target, max_epochs=max_epochs, validation=validation
            )
        )
        seen[-1].start = copy_state(module)
        seen[-1].net = original(
            self, module, criterion, rows, validation, stage=stage, max_epochs=max_epochs, **options
        )
        return seen[-1].net

    monkeypatch.setattr(Trainer, "fit", spy)
    return seen


@pytest.fixture
def matrices(monkeypatch):
    """Record the matrix that each stage factors."""
    seen = []

    def spy(matrix, *args):
        seen.append(matrix.copy())
        return truncated_svd(matrix, *args)

    monkeypatch.setattr("skqos.sa_moe.estimator.truncated_svd", spy)
    return seen


def predict_members(module, users, services):
    """Predict pairs of known entities by each member."""
    with torch.no_grad():
        return module.eval()(torch.as_tensor(users), torch.as_tensor(services)).numpy()


def predict_codes(module, users, services):
    return predict_members(module, users, services).mean(axis=0)


def observed_rows(qos):
    """Return codes and transformed targets, by hand: all ids of `qos` occur, from 0."""
    users = np.unique(qos.X[:, 0], return_inverse=True)[1]
    services = np.unique(qos.X[:, 1], return_inverse=True)[1]
    return users, services, TargetTransform("auto").fit(qos.y).transform(qos.y)


# --- Stages -------------------------------------------------------------------------------------


def test_mf_moe_is_one_stage_on_the_observed_rows(qos, stages, matrices):
    model = make(**MF_MOE).fit(qos.X, qos.y)
    users, services, target = observed_rows(qos)
    assert [stage.name for stage in stages] == ["final"]
    assert_array_equal(stages[0].users, users)
    assert_array_equal(stages[0].services, services)
    assert_allclose(stages[0].target, target, rtol=1e-6)
    assert len(matrices) == 1
    assert model.history_["stage"].tolist() == ["final"] * 2
    assert model.n_iter_ == 2


@pytest.mark.parametrize(
    "params",
    [SA_MOE_MINUS, NO_REFILL, SA_MOE, {}],
    ids=["SA-MoE-", "no refill", "SA-MoE", "default"],
)
def test_two_stages_have_their_own_epochs(qos, stages, params):
    model = make(first_stage_epochs=3, max_epochs=2, **params).fit(qos.X, qos.y)
    assert [(stage.name, stage.max_epochs) for stage in stages] == [("first", 3), ("final", 2)]
    assert model.history_["stage"].tolist() == ["first"] * 3 + ["final"] * 2
    assert model.history_["epoch"].tolist() == [1, 2, 3, 1, 2]
    assert list(model.stage_nets_) == ["first", "final"]
    assert model.stage_nets_["first"] is stages[0].net
    assert model.module_ is stages[1].module


@pytest.mark.parametrize("start", ["fresh", "first"])
def test_without_factors_there_is_nothing_to_refill(qos, stages, start):
    model = make(n_factors=0, refill_ratio=0.4, pseudo_label_ratio=0, second_stage_start=start)
    with pytest.warns(UnusedParameterWarning, match="refill_ratio=0.4 has no effect"):
        model.fit(qos.X, qos.y)
    assert [stage.name for stage in stages] == ["final"]


@pytest.mark.parametrize("start", ["fresh", "first"])
def test_the_network_that_the_final_stage_starts_from(qos, stages, start):
    model = make(refill_ratio=0, second_stage_start=start).fit(qos.X, qos.y)
    first, final = stages
    shared = {id(p) for p in first.module.parameters()} & {id(p) for p in final.module.parameters()}
    assert first.module is not final.module
    assert not shared
    after_first = first.net.module_.state_dict()
    assert equal_states(final.start, after_first) == (start == "first")
    assert not equal_states(final.start, model.module_.state_dict())
    assert model.stage_nets_["first"].module_ is first.module


@pytest.mark.parametrize("start", ["fresh", "first"])
def test_the_final_stage_leaves_the_network_of_the_first_alone(qos, monkeypatch, start):
    seen = []
    original = Trainer.fit

    def spy(*args, **options):
        seen.append(original(*args, **options))
        seen.append(copy_state(seen[-1].module_))
        return seen[-2]

    monkeypatch.setattr(Trainer, "fit", spy)
    make(refill_ratio=0, second_stage_start=start).fit(qos.X, qos.y)
    first, after_first, final, after_final = seen
    assert equal_states(first.module_.state_dict(), after_first)
    assert equal_states(final.module_.state_dict(), after_final)
    assert not equal_states(after_first, after_final)


def test_sa_moe_minus_trains_on_observed_rows_only(qos, stages):
    make(**SA_MOE_MINUS).fit(qos.X, qos.y)
    users, services, target = observed_rows(qos)
    for stage in stages:
        assert_array_equal(stage.users, users)
        assert_array_equal(stage.services, services)
        assert_allclose(stage.target, target, rtol=1e-6)


@pytest.mark.parametrize("early_stopping", [True, "monitor"])
def test_both_stages_have_the_same_validation_rows(qos, stages, early_stopping):
    make(early_stopping=early_stopping, **SA_MOE).fit(qos.X, qos.y)
    first, final = (stage.validation for stage in stages)
    assert len(first) == 60
    assert_array_equal(first.interactions.users, final.interactions.users)
    assert_array_equal(first.target, final.target)


# --- Pseudo-labels (eq. 8 to 10) ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "n_pseudo"),
    [
        ({}, 600),
        ({"pseudo_label_ratio": 0.5}, 300),
        ({"pseudo_label_ratio": 7.0}, 600),
        ({"pseudo_label_ratio": 0.25, "ratio_unit": "missing"}, 150),
        ({"pseudo_label_ratio": 0.5, "refill_ratio": 0}, 300),
        ({"pseudo_label_ratio": 0.5, "fill_value": "zero", "target_transform": "max"}, 300),
        ({"pseudo_label_ratio": 0.5, **START_FROM_FIRST}, 300),
        ({"pseudo_label_ratio": 0.5, "n_members": 1}, 300),
        ({"pseudo_label_ratio": 0.5, "n_members": 4}, 300),
    ],
)
def test_final_rows_are_observed_rows_then_predictions_of_unobserved_cells(
    qos, stages, params, n_pseudo
):
    """Predictions are the averages of the members of the first network."""
    make(**{**SA_MOE, **params}).fit(qos.X, qos.y)
    first, final = stages
    n = len(qos.y)
    assert n == 600
    assert len(set(first.cells)) == n
    assert final.cells[:n] == first.cells
    assert_array_equal(final.target[:n], first.target)
    pseudo = final.cells[n:]
    assert len(pseudo) == len(set(pseudo)) == n_pseudo
    assert not set(pseudo) & set(first.cells)
    of_members = predict_members(first.net.module_, final.users[n:], final.services[n:])
    assert len(of_members) == params.get("n_members", 2)
    prediction = of_members.mean(axis=0)
    assert_allclose(final.target[n:], prediction, rtol=1e-5, atol=1e-6)
    assert np.ptp(prediction) > 0
    if len(of_members) > 1:
        assert np.ptp(of_members, axis=0).mean() > 1e-3


def test_repeated_rows_stay_in_training_but_count_as_one_cell(qos, stages):
    X, y = np.tile(qos.X[:200], (2, 1)), np.r_[qos.y[:200], 2 * qos.y[:200]]
    make(**{**SA_MOE, "pseudo_label_ratio": 0.5}).fit(X, y)
    assert [len(stage.target) for stage in stages] == [400, 500]
    assert not set(stages[1].cells[400:]) & set(stages[0].cells)


def test_held_out_cells_get_predictions_never_their_truth(qos, stages):
    """All missing cells are pseudo-labelled here, those of the validation rows with them."""
    model = make(
        early_stopping="monitor", pseudo_label_ratio=1.0, ratio_unit="missing", refill_ratio=0
    ).fit(qos.X, qos.y)
    first, final = stages
    held_out = first.validation.interactions
    truth = dict(
        zip(
            zip(held_out.users.tolist(), held_out.services.tolist(), strict=True),
            first.validation.target.tolist(),
            strict=True,
        )
    )
    n = len(first.target)
    labels = dict(zip(final.cells[n:], final.target[n:].tolist(), strict=True))
    assert set(truth) <= set(labels)
    assert len(labels) == model.users_.n_entities * model.services_.n_entities - n
    users, services = np.array(list(truth)).T
    assert_allclose(
        [labels[cell] for cell in truth],
        predict_codes(first.module, users, services),
        rtol=1e-5,
        atol=1e-6,
    )
    assert all(labels[cell] != value for cell, value in truth.items())


@pytest.mark.parametrize("params", [SA_MOE, START_FROM_FIRST], ids=["fresh", "first"])
def test_a_matrix_without_gaps_has_no_pseudo_labels(stages, params):
    X = np.indices((6, 5)).reshape(2, -1).T
    make(**params).fit(X, np.random.default_rng(0).random(30))
    assert [len(stage.target) for stage in stages] == [30, 30]
    assert stages[1].sample_weight is None


# --- Weights of pseudo-labels -------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.25, 1.0, 3])
def test_pseudo_labels_have_their_weight_in_the_final_stage_alone(qos, stages, weight):
    make(pseudo_label_ratio=1.0, pseudo_label_weight=weight).fit(qos.X, qos.y)
    first, final = stages
    assert first.sample_weight is None
    assert len(final.target) == 1200
    if weight == 1:
        assert final.sample_weight is None
    else:
        relative = final.sample_weight / final.sample_weight[0]
        np.testing.assert_allclose(relative, [1.0] * 600 + [weight] * 600)


def test_pseudo_labels_keep_their_weight_beside_weighted_rows(qos, stages):
    weights = np.random.default_rng(0).uniform(0.5, 2.0, 600)
    make(pseudo_label_ratio=1.0, pseudo_label_weight=0.25).fit(qos.X, qos.y, weights)
    first, final = (stage.sample_weight / stage.sample_weight[0] for stage in stages)
    np.testing.assert_allclose(first, weights / weights[0], rtol=1e-6)
    np.testing.assert_allclose(final, np.r_[weights, np.full(600, 0.25)] / weights[0], rtol=1e-6)


def test_the_weight_of_pseudo_labels_reaches_the_loss(qos, stages):
    """With steps that move nothing the loss is that of the network the stage starts from."""
    params = {**START_FROM_FIRST, "batch_size": 64, "learning_rate": 1e-12, "input_dropout": 0.0}
    losses = {}
    for weight in (1e-6, 0.5, 2.0):
        model = make(**params, pseudo_label_weight=weight).fit(qos.X, qos.y)
        final = stages[-1]
        prediction = predict_members(model.module_, final.users, final.services)
        errors = np.abs(prediction - final.target).mean(axis=0)
        expected = (errors * final.sample_weight).sum() / final.sample_weight.sum()
        losses[weight] = model.history_["train_loss"].iloc[-1]
        assert losses[weight] == pytest.approx(expected, rel=1e-4)
    # Members differ less from their average than from what was measured.
    assert losses[1e-6] > 1.1 * losses[0.5] > 1.1**2 * losses[2.0]


def test_the_weight_of_pseudo_labels_decides_what_is_learnt(qos):
    predictions = [
        make(pseudo_label_weight=weight, learning_rate=0.02).fit(qos.X, qos.y).predict(qos.X)
        for weight in (0.1, 0.1, 5.0)
    ]
    assert_array_equal(predictions[0], predictions[1])
    assert (predictions[0] != predictions[2]).mean() > 0.9


# --- Refill (eq. 5) -----------------------------------------------------------------------------


def stored(matrix):
    coo = matrix.tocoo()
    return dict(
        zip(zip(*(axis.tolist() for axis in coo.coords), strict=True), coo.data, strict=True)
    )


@pytest.mark.parametrize("fill_value", ["mean", "zero"])
@pytest.mark.parametrize("pseudo_label_ratio", [0, 0.5])
def test_refill_goes_into_the_matrix_of_the_final_stage(
    qos, stages, matrices, fill_value, pseudo_label_ratio
):
    """Observed cells keep their values there, drawn ones hold predictions of the first stage."""
    ratios = {"refill_ratio": 0.75, "pseudo_label_ratio": pseudo_label_ratio}
    make(**{**SA_MOE, **ratios}, fill_value=fill_value).fit(qos.X, qos.y)
    users, services, target = observed_rows(qos)
    center = target.mean() if fill_value == "mean" else 0.0
    observed = dict(zip(zip(users, services, strict=True), target - center, strict=True))
    before, after = map(stored, matrices)
    assert before == pytest.approx(observed)
    assert len(after) == 600 + 450
    assert {cell: after[cell] for cell in observed} == pytest.approx(observed)
    filled = [cell for cell in after if cell not in observed]
    prediction = predict_codes(stages[0].module, *np.array(filled).T)
    assert_allclose([after[cell] + center for cell in filled], prediction, rtol=1e-5, atol=1e-6)
    assert len(stages[1].target) == 600 + 600 * pseudo_label_ratio
    refilled_only = set(filled) - set(stages[1].cells)
    assert refilled_only


def test_without_refill_both_stages_factor_the_same_matrix(qos, stages, matrices):
    make(**NO_REFILL).fit(qos.X, qos.y)
    assert stored(matrices[0]) == stored(matrices[1])
    assert torch.equal(*(stage.module.user_tower.factors for stage in stages))


def test_a_network_that_starts_from_the_first_keeps_its_factors(qos, stages, matrices):
    make(**START_FROM_FIRST).fit(qos.X, qos.y)
    assert len(stages) == 2
    assert len(matrices) == 1
    assert torch.equal(*(stage.module.user_tower.factors for stage in stages))


def test_each_stages_network_has_the_factors_of_its_matrix(qos, stages, matrices, monkeypatch):
    seen = []

    def spy(matrix, *args):
        seen.append(truncated_svd(matrix, *args))
        return seen[-1]

    monkeypatch.setattr("skqos.sa_moe.estimator.truncated_svd", spy)
    make(**SA_MOE).fit(qos.X, qos.y)
    for stage, factors in zip(stages, seen, strict=True):
        towers = stage.module.user_tower, stage.module.service_tower
        for tower, expected in zip(towers, factors, strict=True):
            assert tower.factors.shape[1] == 3
            scaled = EMBEDDING_STD * expected / expected.std()
            assert_allclose(tower.factors, scaled, rtol=1e-5, atol=1e-7)
    assert not torch.equal(*(stage.module.user_tower.factors for stage in stages))


def test_repeated_rows_enter_the_matrix_as_their_mean(qos, matrices):
    X, y = np.tile(qos.X[:50], (2, 1)), np.r_[qos.y[:50], 3 * qos.y[:50]]
    make(target_transform=None, fill_value="zero", **MF_MOE).fit(X, y)
    assert matrices[0].nnz == 50
    assert np.sort(matrices[0].data) == pytest.approx(np.sort(2 * qos.y[:50]))


@pytest.mark.parametrize(("n_factors", "rank"), [(0, 0), (1, 1), (1000, 30)])
def test_any_number_of_factors(qos, n_factors, rank):
    model = make(n_factors=n_factors).fit(qos.X, qos.y)
    assert model.module_.user_tower.factors.shape == (30, rank)
    assert model.module_.service_tower.factors.shape == (40, rank)
    assert np.isfinite(model.predict([*qos.X[:5], [999, 0], [0, 999]])).all()


# --- Batch sizes --------------------------------------------------------------------------------


def batch_sizes(stages):
    return [stage.net.batch_size for stage in stages]


def test_the_second_stage_may_have_its_own_batch_size(qos, stages):
    make(batch_size=64, second_stage_batch_size=500).fit(qos.X, qos.y)
    assert batch_sizes(stages) == [64, 500]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        # Twice the rows in as many steps.
        ({"second_stage_batch_size": None, "pseudo_label_ratio": 1}, [64, 128]),
        ({"second_stage_batch_size": None, "pseudo_label_ratio": 0.5}, [64, 96]),
        ({"second_stage_batch_size": 500, **SA_MOE_MINUS}, [64, 64]),
        ({"second_stage_batch_size": 500, **MF_MOE}, [64]),
    ],
)
def test_other_stages_have_the_common_batch_size(qos, stages, params, expected):
    make(batch_size=64, **params).fit(qos.X, qos.y)
    assert batch_sizes(stages) == expected


@pytest.mark.parametrize(
    ("n_rows", "expected"), [(2, 32), (6_143, 32), (19_200, 100), (49_174, 256), (10**7, 256)]
)
def test_automatic_batches_make_about_as_many_steps_an_epoch(n_rows, expected):
    assert SAMoERegressor()._rows_per_step(n_rows) == expected
    assert SAMoERegressor(batch_size=7)._rows_per_step(n_rows) == 7


# --- The network that the parameters ask for ----------------------------------------------------


def test_paper_params_are_parameters_of_their_own_values():
    params = SAMoERegressor(**SAMoERegressor.PAPER_PARAMS).get_params()
    assert SAMoERegressor.PAPER_PARAMS.items() <= params.items()


def test_paper_params_are_those_of_appendix_a2():
    paper = SAMoERegressor.PAPER_PARAMS
    assert (paper["learning_rate"], paper["weight_decay"]) == (1e-3, 2e-4)
    assert (paper["optimizer"], paper["learning_rate_schedule"]) == ("adam", "constant")
    assert (paper["batch_size"], paper["second_stage_batch_size"]) == (128, 2000)
    assert (paper["first_stage_epochs"], paper["max_epochs"]) == (40, 60)
    assert paper["n_factors"] == paper["embedding_dim"] == paper["tower_dim"] == 32
    assert tuple(paper["mlp_hidden_sizes"]) == (64, 64, 32)
    assert (paper["n_heads"], paper["attention_dropout"]) == (2, 0.5)
    assert (paper["n_members"], paper["batch_norm"], paper["attention_dim"]) == (1, True, 32)
    assert paper["tower_activation"] == paper["mixture_activation"] == "identity"
    assert (paper["second_stage_start"], paper["pseudo_label_weight"]) == ("fresh", 1.0)


def test_the_published_model_fits(qos, stages):
    params = {**SAMoERegressor.PAPER_PARAMS, "first_stage_epochs": 1, "max_epochs": 1}
    model = SAMoERegressor(**params, random_state=0).fit(qos.X, qos.y)
    module = model.module_
    assert list(module.experts) == ["attention", "lhuc", "mlp"]
    attention = module.experts["attention"]
    assert attention.n_heads == 2
    assert attention.dropout.p == 0.5
    # One network; both tokens are projected by the same W_Q, W_K and W_V.
    assert attention.user_projection is attention.service_projection
    assert attention.user_projection.weight.shape == (1, 32, 3 * 32)
    assert weight_of(attention.output).shape == (1, 2 * 32, 32)
    lhuc = module.experts["lhuc"]
    assert lhuc.norm_1.norm.num_features == lhuc.norm_2.norm.num_features == 32
    mlp = module.experts["mlp"]
    shapes = [tuple(weight_of(layer).shape) for layer in (mlp.first, *mlp.rest)]
    assert shapes == [(1, 64, 64), (1, 64, 64), (1, 64, 32)]
    assert weight_of(module.gate).shape == (1, 64, 3)
    assert module.head.weight.shape == (1, 32, 1)
    assert isinstance(module.activation, nn.Identity)
    for tower in (module.user_tower, module.service_tower):
        assert tower.dropout.p == 0.0
        # A linear map of id embedding and factors: no activation follows.
        assert tower.factors.shape[1] == 30
        mixer, activation = tower.mixer
        assert mixer.weight.shape == (1, 32 + 30, 32)
        assert isinstance(activation, nn.Identity)
    assert not equal_states(stages[1].start, stages[0].net.module_.state_dict())
    assert stages[1].sample_weight is None
    assert np.isfinite(model.predict(qos.X)).all()


@pytest.mark.parametrize(("activation", "layer"), [("relu", nn.ReLU), ("identity", nn.Identity)])
def test_tower_activation(qos, activation, layer):
    module = make(**MF_MOE, tower_activation=activation).fit(qos.X, qos.y).module_
    for tower in (module.user_tower, module.service_tower):
        assert isinstance(tower.mixer[1], layer)


def test_without_a_tower_width_experts_take_the_inputs_themselves(qos):
    X = ContextJoiner(qos.users, qos.services).fit_transform(qos.X)
    model = make(tower_dim=None).fit(X, qos.y)
    module = model.module_
    widths = [
        4 * tower.features.n_features + 3 for tower in (module.user_tower, module.service_tower)
    ]
    assert widths[0] != widths[1]
    assert [module.user_tower.out_dim, module.service_tower.out_dim] == widths
    attention = module.experts["attention"]
    for layer, width in zip(
        (attention.user_projection, attention.service_projection), widths, strict=True
    ):
        assert layer.weight.shape == (2, width, 3 * 8)
    assert weight_of(module.experts["mlp"].first).shape == (2, sum(widths), 8)
    newcomers = X.iloc[:2].assign(user=10_000, service=20_000)
    assert np.isfinite(model.predict(pd.concat([X, newcomers]))).all()


@pytest.mark.parametrize("attention_dim", [2, 24])
def test_attention_dim(qos, attention_dim):
    module = make(**MF_MOE, attention_dim=attention_dim).fit(qos.X, qos.y).module_
    expert = module.experts["attention"]
    assert expert.user_projection.weight.shape == (2, 8, 3 * attention_dim)
    assert weight_of(expert.output).shape == (2, 2 * attention_dim, 8)


def test_a_normalised_network_is_updated_with_one_row_and_no_earlier_ones(qos):
    model = make(**MF_MOE, batch_norm=True, replay_buffer_size=0).fit(qos.X, qos.y)
    predicted = model.predict(qos.X)
    model.partial_fit(qos.X[:1], qos.y[:1])
    assert (model.predict(qos.X) != predicted).any()


@pytest.mark.parametrize("batch_norm", [True, False])
def test_batch_norm(qos, batch_norm):
    model = make(**MF_MOE, batch_norm=batch_norm).fit(qos.X, qos.y)
    norms = [part for part in model.module_.modules() if isinstance(part, nn.BatchNorm1d)]
    assert len(norms) == 2 * batch_norm
    assert all(norm.num_features == 2 * 8 for norm in norms)


# --- Members ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_members", [1, 3, np.int64(2), np.int32(3)])
def test_the_network_has_that_many_members(qos, n_members):
    model = make(n_members=n_members).fit(qos.X, qos.y)
    users, services, _ = observed_rows(qos)
    assert predict_members(model.module_, users, services).shape == (n_members, 600)
    assert np.isfinite(model.predict(qos.X)).all()
    assert len(model.module_.user_tower.features.vectors) == 30
    assert model.module_.user_tower.features.vectors.shape[1] == 4 * n_members


@pytest.mark.parametrize("target_transform", ["sqrt", "log", None])
def test_predictions_are_averages_of_members_in_the_transformed_target(qos, target_transform):
    model = make(n_members=3, target_transform=target_transform).fit(qos.X, qos.y)
    users, services, _ = observed_rows(qos)
    of_members = predict_members(model.module_, users, services)
    transform = TargetTransform(target_transform).fit(qos.y)
    expected = transform.inverse_transform(of_members.mean(axis=0))
    found = model.predict(qos.X)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    averages = np.mean([transform.inverse_transform(member) for member in of_members], axis=0)
    if target_transform is not None:
        assert np.abs(found - averages).max() > 100 * np.abs(found - expected).max()


def test_members_differ_from_the_start(qos, stages):
    make(n_members=3, **MF_MOE).fit(qos.X, qos.y)
    shared = {"factors", "numerics", "rows", "bound"}
    for name, values in stages[0].start.items():
        if name.split(".")[-1] in shared:
            continue
        axis = 0 if values.ndim == 3 else 1
        first, second, third = values.chunk(3, axis)
        assert not torch.equal(first, second), name
        assert not torch.equal(second, third), name


def test_updates_train_every_member(qos):
    model = make(n_members=3).fit(qos.X, qos.y)
    before = model.module_.head.weight.detach().clone()
    model.partial_fit([[3, 4], [10_000, 5]], [1.0, 2.0])
    assert model.module_.head.weight.shape == before.shape
    assert (model.module_.head.weight != before).any(dim=1).all()
    assert model.module_.user_tower.features.vectors.shape == (31, 3 * 4)
    assert np.isfinite(model.predict([[10_000, 5], [20_000, 6]])).all()


def test_the_bound_lies_just_beyond_the_largest_target(qos):
    model = make(**MF_MOE, target_transform=None).fit(qos.X, -qos.y)
    assert model.module_.bound.item() == pytest.approx(1.05 * qos.y.max(), rel=1e-6)


def test_targets_of_0_have_a_bound_too(qos):
    model = make(**MF_MOE).fit(qos.X, np.zeros(600))
    assert model.module_.bound.item() == 1.0


@pytest.mark.parametrize("as_type", [list, tuple, np.array])
def test_sequences_of_any_kind(qos, as_type):
    params = {"experts": as_type(["mlp", "lhuc"]), "mlp_hidden_sizes": as_type([8, 6])}
    model = make(**MF_MOE, **params).fit(qos.X, qos.y)
    assert list(model.module_.experts) == ["mlp", "lhuc"]
    assert model.expert_shares(qos.X, qos.y).index.tolist() == ["mlp", "lhuc"]


@pytest.mark.parametrize(("activation", "layer"), [("relu", nn.ReLU), ("identity", nn.Identity)])
def test_mixture_activation(qos, activation, layer):
    model = make(**MF_MOE, mixture_activation=activation).fit(qos.X, qos.y)
    assert isinstance(model.module_.activation, layer)


@pytest.mark.parametrize("loss", ["absolute_error", "squared_error", "huber"])
def test_the_loss_is_that_of_the_criterion(qos, loss):
    assert make(**MF_MOE, loss=loss).fit(qos.X, qos.y).net_.criterion_.loss == loss


# --- Parameters that must fit together ----------------------------------------------------------


BAD_PARAMS = [
    ({"experts": ()}, r"experts must name one or more of .* got \(\)"),
    ({"experts": ("mlp", "oracle")}, "experts must name one or more of .* 'oracle'"),
    ({"experts": ("mlp", "lhuc", "mlp")}, "each once; got"),
    ({"experts": "mlp"}, "'experts' parameter of SAMoERegressor must be an array-like"),
    ({"n_heads": 3}, "n_heads=3 must divide attention_dim=8"),
    ({"attention_dim": 9}, "n_heads=2 must divide attention_dim=9"),
    ({"attention_dim": 0}, "'attention_dim' parameter"),
    ({"n_members": 0}, "'n_members' parameter"),
    ({"n_members": 2.0}, "'n_members' parameter"),
    ({"n_members": None}, "'n_members' parameter"),
    ({"tower_dim": 0}, "'tower_dim' parameter"),
    ({"tower_dim": 8.0}, "'tower_dim' parameter"),
    ({"tower_activation": "tanh"}, "'tower_activation' parameter"),
    ({"batch_norm": "yes"}, "'batch_norm' parameter"),
    ({"pseudo_label_weight": 0}, "'pseudo_label_weight' parameter"),
    ({"pseudo_label_weight": np.inf}, "'pseudo_label_weight' parameter"),
    ({"pseudo_label_weight": np.nan}, "'pseudo_label_weight' parameter"),
    ({"second_stage_start": "last"}, "'second_stage_start' parameter"),
    ({"refill_ratio": 0.5}, r"refill_ratio=0\.5 changes the factors .* second_stage_start='fresh'"),
    ({"mlp_hidden_sizes": ()}, "must contain at least one layer size"),
    ({"mlp_hidden_sizes": (8, 0)}, "each an int of 1 or more; got"),
    ({"mlp_hidden_sizes": (8, 4.0)}, "each an int of 1 or more; got"),
    ({"mlp_hidden_sizes": (8, "4")}, "each an int of 1 or more; got"),
    ({"mlp_hidden_sizes": 8}, "'mlp_hidden_sizes' parameter"),
    ({"n_factors": -1}, "'n_factors' parameter"),
    ({"fill_value": "median"}, "'fill_value' parameter"),
    ({"input_dropout": 1.0}, "'input_dropout' parameter"),
    ({"attention_dropout": -0.1}, "'attention_dropout' parameter"),
    ({"refill_ratio": -1}, "'refill_ratio' parameter"),
    ({"pseudo_label_ratio": np.inf}, "'pseudo_label_ratio' parameter"),
    ({"ratio_unit": "cells"}, "'ratio_unit' parameter"),
    ({"first_stage_epochs": 0}, "'first_stage_epochs' parameter"),
    ({"second_stage_batch_size": 1}, "'second_stage_batch_size' parameter"),
    ({"loss": "cauchy"}, "'loss' parameter"),
]


@pytest.mark.parametrize(("params", "message"), BAD_PARAMS, ids=str)
def test_bad_parameters_raise(qos, params, message):
    with pytest.raises(ValueError, match=message):
        make(**params).fit(qos.X, qos.y)


def test_heads_matter_to_the_attention_expert_only(qos):
    make(n_heads=3, experts=("lhuc", "mlp"), **MF_MOE).fit(qos.X, qos.y)


# --- expert_shares ------------------------------------------------------------------------------


@pytest.fixture
def fitted(qos):
    X = ContextJoiner(qos.users, qos.services).fit_transform(qos.X)
    model = make(max_epochs=5, learning_rate=0.02, batch_size=64, **MF_MOE).fit(X, qos.y)
    newcomers = X.iloc[:40].assign(user=10_000, service=np.where(np.arange(40) % 2, 3, 20_000))
    for name in [name for name in X if name.startswith("service_")]:
        newcomers[name] = newcomers[name].iloc[0]
    return model, pd.concat([X, newcomers]), np.r_[qos.y, qos.y[:40]]


def brute_force_shares(model, X, y):
    """Let the gates choose one expert at a time and predict: that expert's own prediction."""
    loaded = pickle.loads(pickle.dumps(model))
    gate = loaded.module_.gate
    interactions = loaded._interactions(X)
    module = loaded.module_
    with torch.no_grad():
        u, s = (
            torch.cat([known, tower.encode_new(average, new)], dim=1)[:, rows]
            for tower, new, rows in (
                (module.user_tower, interactions.new_users, interactions.users),
                (module.service_tower, interactions.new_services, interactions.services),
            )
            for known, average in [tower.encode_known()]
        )
        weights = gate(u, s).softmax(dim=2).mean(dim=0).numpy()
        gate.user_weight.zero_()
        gate.service_weight.zero_()
        errors = []
        for k in range(gate.bias.shape[2]):
            gate.bias.fill_(-1e4)
            gate.bias[:, :, k] = 1e4
            errors.append(np.abs(loaded.predict(X) - y))
    wins = [0] * len(errors)
    for row in range(len(y)):
        of_row = [error[row] for error in errors]
        wins[of_row.index(min(of_row))] += 1
    return np.array(wins) / len(y), weights.mean(axis=0)


def test_expert_shares_by_brute_force(fitted):
    model, X, y = fitted
    shares = model.expert_shares(X, y)
    best, gates = brute_force_shares(model, X, y)
    assert shares.index.tolist() == ["attention", "lhuc", "mlp"]
    assert shares.index.name == "expert"
    assert list(shares) == ["best_share", "mean_gate_weight"]
    assert_allclose(shares["best_share"], best, atol=1e-12)
    assert_allclose(shares["mean_gate_weight"], gates, rtol=1e-5)
    assert_allclose(shares.sum(), 1.0, rtol=1e-6)
    assert (shares["best_share"] > 0).sum() > 1


def test_expert_shares_are_told_in_the_unit_of_y(fitted):
    """Targets are roots here: which expert is closest may differ there."""
    model, X, y = fitted
    assert model._state.target_transform.kinds_ == ["sqrt"]
    low, high = model.expert_shares(X, 0 * y), model.expert_shares(X, 1e6 + y)
    assert_allclose(low["mean_gate_weight"], high["mean_gate_weight"])
    assert (low["best_share"] != high["best_share"]).any()


def test_the_mixture_may_compete_with_its_experts(fitted):
    model, X, y = fitted
    shares = model.expert_shares(X, y, include_mixture=True)
    assert shares.index.tolist() == ["attention", "lhuc", "mlp", "mixture"]
    assert shares["best_share"].sum() == pytest.approx(1)
    assert np.isnan(shares.loc["mixture", "mean_gate_weight"])
    alone = model.expert_shares(X, y)
    assert (shares["best_share"].iloc[:3] <= alone["best_share"]).all()
    # Of what it predicts, the mixture is best everywhere.
    own = model.expert_shares(X, model.predict(X), include_mixture=True)
    assert own.loc["mixture", "best_share"] > 0.99


def test_experts_may_be_trained_independently_in_the_first_stage(qos):
    options = {"independent_experts": True, "second_stage_start": "fresh"}
    model = make(**options, n_members=1).fit(qos.X, qos.y)
    stages = ["first_attention", "first_lhuc", "first_mlp"]
    assert list(model.stage_nets_) == [*stages, "final"]
    for stage, name in zip(stages, model.experts, strict=True):
        assert list(model.stage_nets_[stage].module_.experts) == [name]
    assert list(model.module_.experts) == list(model.experts)
    epochs = model.history_.groupby("stage", sort=False)["epoch"].max()
    assert epochs[stages].eq(model.first_stage_epochs).all()
    with pytest.raises(ValueError, match="Set second_stage_start='fresh'"):
        make(independent_experts=True).fit(qos.X, qos.y)


def test_pseudo_labels_are_the_mean_of_independent_experts(qos):
    seen = []

    class Spy(type(make())):
        def _predict_cells(self, *args):
            seen.append(super()._predict_cells(*args))
            return seen[-1]

    options = {"independent_experts": True, "second_stage_start": "fresh"}
    model = make()
    spy = Spy(**{**model.get_params(), **options, "pseudo_label_ratio": 0.2}).fit(qos.X, qos.y)
    labels = seen[-1]
    assert len(labels.values) > 0
    pairs = Interactions.of_known(
        labels.users, labels.services, spy.users_.table_, spy.services_.table_
    )
    expected = [
        predict_interactions(spy.stage_nets_[f"first_{name}"].module_, pairs, torch.device("cpu"))
        for name in spy.experts
    ]
    assert_allclose(labels.values, np.mean(expected, axis=0), rtol=1e-5)


def test_expert_shares_after_unpickling(fitted):
    model, X, y = fitted
    loaded = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(loaded.expert_shares(X, y), model.expert_shares(X, y))


def test_shares_of_ties_go_to_the_first(qos):
    """With a head of zeros all experts predict the same."""
    model = make(**MF_MOE).fit(qos.X, qos.y)
    with torch.no_grad():
        model.module_.head.weight.zero_()
    assert model.expert_shares(qos.X, qos.y)["best_share"].tolist() == [1.0, 0.0, 0.0]


def test_a_single_expert_has_it_all(qos):
    model = make(**MF_MOE, experts=["lhuc"]).fit(qos.X, qos.y)
    assert model.expert_shares(qos.X, qos.y).loc["lhuc"].tolist() == [1.0, 1.0]


def test_expert_shares_check_what_they_get(fitted):
    model, X, y = fitted
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.expert_shares(X, y[:-1])
    with pytest.raises(ValueError, match="contains NaN"):
        model.expert_shares(X, np.full_like(y, np.nan))
    with pytest.raises(NotFittedError):
        make().expert_shares(X, y)


def test_expert_shares_are_of_the_fitted_experts_whatever_the_parameter_now(qos):
    model = make(**MF_MOE).fit(qos.X, qos.y)
    expected = model.expert_shares(qos.X, qos.y)
    model.set_params(experts=("mlp",))
    pd.testing.assert_frame_equal(model.expert_shares(qos.X, qos.y), expected)


# --- Divergence of the first stage ---------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:overflow")
def test_divergence_in_the_last_step_of_the_first_stage_names_the_stage(qos):
    class Spoil(Callback):
        def on_train_end(self, net, **_):
            if net.stage == "first":
                with torch.no_grad():
                    net.module_.head.weight.fill_(torch.nan)

    with pytest.raises(FloatingPointError, match="stage 'first'"):
        make(callbacks=[Spoil()]).fit(qos.X, qos.y)


def test_a_cell_whose_prediction_is_not_finite_names_the_stage(qos, monkeypatch):
    monkeypatch.setattr("skqos.training.check_trained", lambda *_: None)

    class Spoil(Callback):
        def on_train_end(self, net, **_):
            with torch.no_grad():
                net.module_.head.weight.fill_(torch.nan)

    with pytest.raises(FloatingPointError, match=r"stage 'first'.*unobserved cell"):
        make(callbacks=[Spoil()]).fit(qos.X, qos.y)


IN_VAIN = [
    ({"n_factors": 0}, {"fill_value": "zero", "refill_ratio": 1.0}),
    ({"tower_dim": None}, {"tower_activation": "identity"}),
    ({"experts": ["lhuc", "mlp"]}, {"attention_dim": 8, "n_heads": 4, "attention_dropout": 0.1}),
    ({"experts": ("attention",)}, {"batch_norm": True}),
    ({"pseudo_label_ratio": 0.0}, {"pseudo_label_weight": 1.0, "second_stage_batch_size": 500}),
    ({"pseudo_label_ratio": 0}, {"first_stage_epochs": 3, "second_stage_start": "fresh"}),
    ({"pseudo_label_ratio": 0}, {"ratio_unit": "missing", "independent_experts": True}),
]
ACTIVE = [
    {"n_factors": 4, "refill_ratio": 1.0, "second_stage_start": "fresh", "pseudo_label_ratio": 0},
    {"experts": np.array(["attention"]), "n_heads": 4},
]


@pytest.mark.parametrize(("switch", "params"), IN_VAIN, ids=str)
def test_parameters_set_in_vain_are_warned_of(switch, params):
    with pytest.warns(UnusedParameterWarning) as warned:
        warn_of_unused_parameters(SAMoERegressor(**switch, **params))
    assert {str(one.message).split("=")[0] for one in warned} == set(params)


@pytest.mark.parametrize("params", [{}, SAMoERegressor.PAPER_PARAMS, *ACTIVE], ids=str)
def test_parameters_with_an_effect_are_not_warned_of(params):
    warn_of_unused_parameters(SAMoERegressor(**params))
