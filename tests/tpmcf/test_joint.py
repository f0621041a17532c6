"""Joint training: features of each step against NumPy, gradients, leaks, and whole fits."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skqos.datasets import make_qos
from skqos.embeddings import FeatureEmbedding
from skqos.prediction import encode
from skqos.tpmcf.features import NodeFeatures, Statistics, StepCells, draw_folds, without_folds
from skqos.tpmcf.gcmf import embedding_scales
from skqos.tpmcf.joint import JointFeatures, join_features
from skqos.tpmcf.module import TPMCFModule
from skqos.tpmcf.transformer import EncoderBlock, TimeConvolution, TransformerEncoder
from skqos.training import seeded
from tests.tpmcf.members import check_members_alone
from tests.tpmcf.test_estimator import make, stages
from tests.tpmcf.test_features import N_SERVICES, N_STEPS, N_USERS, cells_of, some_values
from tests.tpmcf.test_gcmf import (
    IN_DIM,
    N_FOLDS,
    N_MEMBERS,
    SINGLE,
    TIMES,
    loose_tensors,
    make_gcmf,
    nobody,
    numpy,
    random_features,
    some_rows,
)

JOINT = {"gcmf_joint": True}
TOKEN_DIM = 6
every_join = pytest.mark.parametrize("with_initial", [False, True])
every_bound = pytest.mark.parametrize("bounded", [False, True])


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


@pytest.fixture(scope="module")
def data():
    return make_qos(12, 15, density=0.4, n_time_steps=6, random_state=0)


def make_joint(gcmf, initial=None, bounded=True):
    scales = list(map(embedding_scales, gcmf.embed_all())) if bounded else None
    return JointFeatures(gcmf, initial, scales)


def make_module(features, n_members=N_MEMBERS, entities=True):
    """Return a network in evaluation mode; the same weights for the same shapes."""
    torch.manual_seed(1)
    if entities:
        sides = nobody(N_USERS), nobody(N_SERVICES)
        entities = tuple(FeatureEmbedding(side, [], 2, n_members) for side in sides)
    block = EncoderBlock(n_members, TOKEN_DIM, 2, 3, TimeConvolution(n_members, TOKEN_DIM, 4, 0.0))
    module = TPMCFModule(
        TIMES,
        features,
        entities or None,
        TransformerEncoder([block]),
        n_members=n_members,
        token_dim=TOKEN_DIM,
        window=8,
        n_later=0,
        max_horizon=3,
        hidden_sizes=(7,),
        pooling="max",
        step_encoding=True,
        calendar=None,
        history=None,
        target_features=True,
        entity_dropout=0.0,
        newcomer_share=0.0,
        forecast_share=0.0,
        initial_prediction=0.3,
    )
    return module.eval()


def make_both(cells=None, folds=None, initial=None, n_folds=N_FOLDS, scales=None, **options):
    """Return a network with the features of a graph convolution, and these for joint training."""
    initial = random_features(n_folds or 1) if initial is None else initial
    gcmf = make_gcmf(cells, folds, initial, n_folds, **options)
    embedded = gcmf.embed_all()
    scales = list(map(embedding_scales, embedded)) if scales is None else scales
    features = join_features(list(map(torch.tensor, initial)), embedded, scales)
    module = make_module(features, n_members=len(embedded[0]))
    return module, JointFeatures(gcmf, initial, scales)


# --- Features -----------------------------------------------------------------------------------


def slow_features(gcmf, fold, initial, scales):
    """Standardise the embeddings without a fold, member by member, after the initial features."""
    sides = []
    for k, embedded in enumerate(map(numpy, gcmf.embed(torch.tensor([fold])))):
        members = []
        for member, of_member in enumerate(embedded):
            if scales is not None:
                mean, deviation = (numpy(part)[member, 0, 0, 0] for part in scales[k])
                of_member = np.tanh((of_member - mean) / deviation)
            if initial is not None:
                of_member = np.concatenate([initial[k][fold], of_member], axis=2)
            members.append(of_member)
        sides.append(np.stack(members))
    return sides


@every_join
@every_bound
def test_features_are_those_of_the_fold_and_their_average(with_initial, bounded):
    gcmf = make_gcmf(features=random_features(N_FOLDS))
    initial = random_features(N_FOLDS, seed=2) if with_initial else None
    scales = list(map(embedding_scales, gcmf.embed_all())) if bounded else None
    joint = JointFeatures(gcmf, initial, scales)
    expected = [slow_features(gcmf, fold, initial, scales) for fold in range(N_FOLDS)]
    for fold in range(N_FOLDS):
        for side, of_side in zip(joint(torch.tensor([fold])), expected[fold], strict=True):
            assert side.shape == (N_MEMBERS, N_STEPS, side.shape[2], 6 + IN_DIM * with_initial)
            assert_allclose(numpy(side), of_side, **SINGLE)
    for k, side in enumerate(joint.averages()):
        mean = np.mean([sides[k] for sides in expected], axis=0)
        assert_allclose(numpy(side), mean, **SINGLE)
        assert not side.requires_grad


def test_every_tensor_is_a_parameter_or_a_buffer():
    joint = make_joint(make_gcmf(edge_dropout=0.4), random_features(N_FOLDS))
    joint(torch.tensor([0]))
    for part in joint.modules():
        assert not loose_tensors(part)


# --- A step of training -------------------------------------------------------------------------


@pytest.mark.parametrize("fold", range(N_FOLDS))
def test_before_a_step_predictions_are_those_from_tables(fold):
    """With the features of the fold, and with their average."""
    module, joint = make_both()
    rows, folds = some_rows(), torch.full((20,), fold)
    times = torch.tensor(TIMES)[rows[2]]
    newcomers = nobody(2), nobody(1)

    def predict():
        encoded = encode(module, *newcomers)
        return module(*rows, folds), module.score(encoded, *rows[:2], times)

    expected = predict()
    module.train_jointly(joint)
    assert module.user_folds is module.service_folds is module.fold_rows is None
    for found, before in zip(predict(), expected, strict=True):
        assert np.ptp(numpy(before)) > 0.1
        assert_allclose(numpy(found), numpy(before), **SINGLE)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_newcomers_are_the_average_node_of_the_fold(share):
    module, joint = make_both()
    rows, folds = some_rows(), torch.full((20,), 1)
    module.newcomer_share = share
    torch.manual_seed(3)
    expected = module(*rows, folds)
    module.train_jointly(joint)
    torch.manual_seed(3)
    assert_allclose(numpy(module(*rows, folds)), numpy(expected), **SINGLE)


@pytest.mark.parametrize("valued_edges", [False, True])
@pytest.mark.parametrize("side_scales", [False, True])
def test_gradients_of_the_loss_reach_both_units(valued_edges, side_scales):
    """The slope of the loss along each weight's gradient, against a difference quotient."""
    module, joint = make_both(valued_edges=valued_edges, side_scales=side_scales)
    module.train_jointly(joint)
    rows, folds = some_rows(200), torch.ones(200, dtype=torch.int64)
    module.double()

    def loss():
        return (module(*rows, folds) - 1.0).square().mean()

    loss().backward()
    units = dict(joint.gcmf.units.named_parameters())
    assert len(units) == 4 + 2 * side_scales
    assert joint.gcmf.constant.grad is None, "the product takes no part"
    for name, parameter in units.items():
        # Each member, and each type of edges.
        assert parameter.grad.flatten(1).abs().sum(1).min() > 0, name
        direction = parameter.grad / parameter.grad.norm()
        with torch.no_grad():
            values = []
            for move in (1e-6, -2e-6):
                parameter.add_(move * direction)
                values.append(loss().item())
            parameter.add_(1e-6 * direction)
        slope = (values[0] - values[1]) / 2e-6
        assert slope == pytest.approx(parameter.grad.norm().item(), rel=1e-3), name


def test_a_step_of_the_optimizer_changes_features_and_predictions():
    module, joint = make_both()
    module.train_jointly(joint)
    rows, folds = some_rows(200), torch.ones(200, dtype=torch.int64)
    before = joint.averages()
    units = {name: value.clone() for name, value in joint.gcmf.units.named_parameters()}
    optimizer = torch.optim.Adam(module.parameters(), 0.1)
    (module(*rows, folds) - 1.0).square().mean().backward()
    optimizer.step()
    assert all((value != units[name]).any() for name, value in joint.gcmf.units.named_parameters())
    for old, new, kept in zip(before, joint.averages(), encode_features(module), strict=True):
        assert (old[..., IN_DIM:] != new[..., IN_DIM:]).any()
        assert torch.equal(old[..., :IN_DIM], new[..., :IN_DIM])
        assert torch.equal(new, kept), "validation has the present features"
    averages = joint.averages()
    module.forget_training()
    assert module.joint is None
    for kept, expected in zip(encode_features(module), averages, strict=True):
        assert torch.equal(kept, expected)
    assert not any(name.startswith("joint") for name in module.state_dict())


def encode_features(module):
    """Return the features of users and services with which the module predicts."""
    encoded = module.encode_known()
    return [side[1] for side in (encoded.users, encoded.services)]


@pytest.mark.parametrize("n_folds", [N_FOLDS, None])
@pytest.mark.parametrize("valued_edges", [False, True])
def test_another_value_of_a_cell_does_not_change_its_own_training(n_folds, valued_edges):
    """But that of other folds and, without folds, its own, which shows that the test can fail."""
    cells = cells_of(some_values())
    folds = draw_folds(len(cells), n_folds, np.random.RandomState(0))
    features, cell = NodeFeatures([Statistics()]).fit(cells), 7
    others = cells.values.copy()
    others[cell] += 10.0
    changed = StepCells(cells.steps, cells.users, cells.services, others, cells.shape)
    scales, predicted = None, []
    for edges in (cells, changed):
        initial = without_folds(features.transform, edges, folds, n_folds)
        options = {"valued_edges": valued_edges, "scales": scales}
        module, joint = make_both(edges, folds, initial, n_folds, **options)
        # As those of the initial features, they are of all values.
        scales = joint._scales()
        module.train_jointly(joint)
        of_cell = [torch.tensor(codes) for codes in (cells.users, cells.services, cells.steps)]
        predicted.append(
            [
                numpy(module(*of_cell, torch.full((len(cells),), fold)))
                for fold in range(n_folds or 1)
            ]
        )
    before, after = predicted
    for fold in range(n_folds or 1):
        is_equal = np.allclose(before[fold][:, cell], after[fold][:, cell], rtol=1e-4, atol=1e-5)
        assert is_equal == (n_folds is not None and fold == folds[cell])


@pytest.mark.parametrize("fold", [0, 2])
def test_rows_are_predicted_as_if_the_edges_of_their_fold_did_not_exist(fold):
    module, joint = make_both()
    module.train_jointly(joint)
    rows, folds = some_rows(), torch.full((20,), fold)
    before = numpy(module(*rows, folds))
    is_kept = numpy(joint.gcmf.folds != fold)
    kept = cells_of(some_values()).take(is_kept)
    without = make_gcmf(kept, numpy(joint.gcmf.folds)[is_kept], random_features(N_FOLDS))
    assert without.graph.n_edges < joint.gcmf.graph.n_edges
    joint.gcmf = without
    assert_allclose(numpy(module(*rows, folds)), before, **SINGLE)


def test_members_are_networks_of_their_own():
    rows = some_rows(200)

    def make_network(n_members):
        module, joint = make_both(n_members=n_members, side_scales=True)
        module.train_jointly(joint)
        return module

    check_members_alone(
        make_network(3),
        lambda: make_network(1),
        lambda module: module(*rows, torch.ones(200, dtype=torch.int64)),
    )


# --- Whole fits ---------------------------------------------------------------------------------


def units_of(model):
    """Return the weights of the first unit that updates use, and those of the stage of GCMF."""
    own = model.stage_nets_["gcmf"].module_.units[0].weight
    return numpy(model._step_features.spatial.gcmf.units[0].weight), numpy(own)


def test_the_final_stage_trains_the_units_further(data):
    apart, joint = make().fit(data.X, data.y), make(**JOINT).fit(data.X, data.y)
    assert stages(joint) == stages(apart) == {"gcmf": 2, "final": 3}
    # The stage before is the same.
    is_gcmf = apart.history_["stage"] == "gcmf"
    losses = [model.history_["train_loss"][is_gcmf] for model in (apart, joint)]
    assert_array_equal(*losses)
    assert_array_equal(*units_of(apart))
    trained, before = units_of(joint)
    assert (trained != before).mean() > 0.9
    assert_array_equal(before, units_of(apart)[1])


def test_each_batch_of_the_final_stage_has_a_single_fold(data):
    seen = []

    from skorch.callbacks import Callback

    class Spy(Callback):
        def on_batch_begin(self, net, batch=None, training=None, **_):
            if training and net.stage == "final":
                seen.append(batch[0]["folds"].unique())

    make(**JOINT, n_folds=4, max_epochs=2, batch_size=64, callbacks=[Spy()]).fit(data.X, data.y)
    assert all(len(folds) == 1 for folds in seen)
    assert {int(folds) for folds in seen} == set(range(4))
    seen.clear()
    make(n_folds=4, max_epochs=1, batch_size=64, callbacks=[Spy()]).fit(data.X, data.y)
    assert any(len(folds) > 1 for folds in seen)


def test_without_epochs_of_its_own_the_graph_convolution_is_trained_with_the_encoder_alone(data):
    model = make(**JOINT, gcmf_epochs=0).fit(data.X, data.y)
    assert stages(model) == {"final": 3}
    assert list(model.stage_nets_) == ["final"]
    other = make(**JOINT, gcmf_epochs=0, max_epochs=4).fit(data.X, data.y)
    first, second = (
        numpy(fitted._step_features.spatial.gcmf.units[1].weight) for fitted in (model, other)
    )
    assert (first != second).any()


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"gcmf_normalization": "row"},
        {"gcmf_edge_dropout": 0.5, "gcmf_side_scales": True, "self_loops": "normalised"},
        {"bounded_embeddings": False, "initial_features": False},
    ],
    ids=str,
)
def test_an_update_describes_steps_with_the_units_after_joint_training(data, params):
    """A value that is measured again changes nothing: features are computed as `fit` left them."""
    model = make(**JOINT, **params, n_folds=None, partial_fit_epochs=0).fit(data.X, data.y)
    before = model.module_.user_features, model.module_.service_features
    row = data.X[:, 2] == 3
    model.partial_fit(data.X[row][:2], data.y[row][:2])
    after = model.module_.user_features, model.module_.service_features
    for old, new in zip(before, after, strict=True):
        assert_allclose(numpy(new), numpy(old), rtol=1e-3, atol=1e-4)
        # The step was placed anew, and not left.
        assert old.data_ptr() != new.data_ptr()


def test_updates_train_the_encoder_and_not_the_units(data):
    model = make(**JOINT).fit(data.X[data.X[:, 2] < 5], data.y[data.X[:, 2] < 5])
    units = units_of(model)[0].copy()
    encoder = model.module_.layers[0].weight.clone()
    is_last = data.X[:, 2] == 5
    model.partial_fit(data.X[is_last], data.y[is_last])
    assert model.times_.tolist() == list(range(6))
    assert_array_equal(numpy(model._step_features.spatial.gcmf.units[0].weight), units)
    assert (model.module_.layers[0].weight != encoder).any()
    assert np.isfinite(model.predict(data.X)).all()


def test_validation_losses_are_of_the_present_units(data):
    """The last one is that of the fitted model."""
    X_val, y_val = data.X[::5], data.y[::5]
    kept = np.arange(len(data.y)) % 5 != 0
    model = make(**JOINT, early_stopping="monitor", target_transform=None, max_epochs=4)
    model.fit(data.X[kept], data.y[kept], X_val=X_val, y_val=y_val)
    error = np.abs(model.predict(X_val) - y_val).mean()
    assert model.history_["valid_loss"].iloc[-1] == pytest.approx(error, rel=1e-4)


def test_early_stopping_restores_the_units_of_the_best_epoch(data):
    params = {**JOINT, "learning_rate_schedule": "constant", "learning_rate": 0.05}
    model = make(**params, gcmf_epochs=0, max_epochs=60, early_stopping=True, n_iter_no_change=3)
    model.fit(data.X, data.y)
    best = model.history_["valid_loss"].idxmin()
    assert model.n_iter_ == best + 4 < 60
    shorter = make(**params, gcmf_epochs=0, max_epochs=int(best) + 1, early_stopping="monitor")
    assert_array_equal(shorter.fit(data.X, data.y).predict(data.X), model.predict(data.X))


def test_a_pickle_predicts_the_same_and_has_no_graph(data):
    model = make(**JOINT, gcmf_edge_dropout=0.2, gcmf_side_scales=True).fit(data.X, data.y)
    loaded = pickle.loads(pickle.dumps(model))
    assert_array_equal(loaded.predict(data.X), model.predict(data.X))
    assert loaded.module_.joint is None
    assert loaded._step_features.spatial.gcmf.graph is None
    again = make(**JOINT, gcmf_edge_dropout=0.2, gcmf_side_scales=True).fit(data.X, data.y)
    assert_array_equal(again.predict(data.X), model.predict(data.X))


def test_intervals(data):
    model = make(**JOINT, intervals=True).fit(data.X, data.y)
    low, high = model.predict_interval(data.X).T
    assert (low <= high).all()
    assert_array_equal(make(**JOINT).fit(data.X, data.y).predict(data.X), model.predict(data.X))


def test_scales_of_sides_do_not_decay(data):
    """Weight decay pulls to 0, and the scales start at 1."""
    model = make(modules="gcmf", gcmf_side_scales=True, weight_decay=50.0, gcmf_epochs=20)
    model.fit(data.X, data.y)
    for unit in model.module_.units:
        assert unit.scales.factors.min() > 0.3
        assert unit.weight.abs().max() < 0.05
