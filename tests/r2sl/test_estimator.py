"""R2SLRegressor beyond the common contract: regions, latent states, losses, published settings."""

import pickle
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skqos import R2SLRegressor
from skqos._parameters import warn_of_unused_parameters
from skqos.datasets import make_qos
from skqos.exceptions import UnusedParameterWarning
from skqos.losses import LOSSES, ObservedLoss
from skqos.preprocessing import ContextJoiner
from skqos.r2sl.estimator import RegionalLossName
from skqos.r2sl.latent_states import RegionalLatentStates
from skqos.r2sl.module import MIN_DEVIATION
from skqos.targets import TargetTransform
from skqos.training import Trainer

TINY = {
    "max_epochs": 2,
    "n_states": 2,
    "embedding_dim": 4,
    "n_filters": 2,
    "hidden_size": 16,
    "random_state": 0,
}


def make(**params):
    return R2SLRegressor(**{**TINY, **params})


@pytest.fixture(scope="module")
def joined():
    """Return rows with context; countries, AS and regions are on both sides."""
    data = make_qos(30, 40, density=0.5, random_state=0)
    return ContextJoiner(data.users, data.services).fit_transform(data.X), data.y


@pytest.fixture
def state_fits(monkeypatch):
    """Record what latent states are learnt from."""
    seen = []
    original = RegionalLatentStates.fit

    def spy(self, *args):
        seen.append([np.asarray(part) for part in args])
        return original(self, *args)

    monkeypatch.setattr(RegionalLatentStates, "fit", spy)
    return seen


# --- Kinds of region ----------------------------------------------------------------------------


def test_all_categorical_context_of_both_sides_is_a_kind_of_region(joined):
    X, y = joined
    model = make().fit(X, y)
    assert "service_provider" in X
    assert model.region_features_ == ["country", "as", "region"]
    assert model.module_.geometry.n_rows == 8


@pytest.mark.parametrize("kinds", [["as"], ("region", "as"), np.array(["country"]), []])
def test_kinds_may_be_named(joined, kinds):
    model = make(region_features=kinds).fit(*joined)
    assert model.region_features_ == list(kinds)
    assert list(model.latent_states_) == list(kinds)
    assert model.module_.geometry.n_rows == 2 + 2 * len(kinds)


@pytest.mark.parametrize("kind", ["city", "provider", "latitude", "user_as"])
def test_a_named_kind_that_is_absent_raises(joined, kind):
    """Absent, of one side only, numeric, or named with its prefix."""
    message = f"region_features contains '{kind}'.*'user_{kind}' and 'service_{kind}'.*'country'"
    with pytest.raises(ValueError, match=message):
        make(region_features=["as", kind]).fit(*joined)


def test_the_printed_rate_has_no_expected_level(joined):
    with pytest.raises(ValueError, match="expected_level=True needs rate='matched'"):
        make(expected_level=True, rate="printed").fit(*joined)


def test_a_kind_named_twice_raises(joined):
    with pytest.raises(ValueError, match="region_features must contain each kind of region once"):
        make(region_features=["as", "as"]).fit(*joined)


def test_without_context_latent_states_are_off(joined, recwarn):
    X, y = joined
    model = make().fit(X[["user", "service"]], y)
    assert model.region_features_ == []
    assert model.latent_states_ == {}
    assert model.module_.geometry.n_rows == 2
    assert not recwarn.list
    with pytest.raises(ValueError, match=r"region_features contains 'as'.*found: \[\]"):
        make(region_features=["as"]).fit(X[["user", "service"]], y)


@pytest.mark.parametrize("drop", [["latitude", "longitude"], ["country", "as", "region"]])
def test_any_part_of_the_context_may_be_absent(joined, drop):
    X, y = joined
    X = X.drop(columns=[f"{side}_{name}" for side in ("user", "service") for name in drop])
    model = make().fit(X, y)
    assert len(model.region_features_) == (0 if "as" in drop else 3)
    assert np.isfinite(model.predict(X)).all()


def test_a_kind_of_which_nothing_is_known(joined):
    X, y = joined
    nothing = pd.Categorical([np.nan] * len(X), categories=["T"])
    X = X.assign(user_city=nothing, service_city="T")
    model = make(region_features=["city"]).fit(X, y)
    assert np.isfinite(model.predict(X)).all()
    assert len(model.latent_states_["city"]) == 2


# --- Latent states ------------------------------------------------------------------------------


def test_latent_states_come_by_region_name(joined):
    X, y = joined
    model = make(n_states=3).fit(X, y)
    states = model.latent_states_["country"]
    assert states.index.names == ["side", "country"]
    assert set(states.loc["user"].index.dropna()) == set(X["user_country"].dropna())
    assert set(states.loc["service"].index.dropna()) == set(X["service_country"].dropna())
    assert_allclose(states.sum(axis=1), 1)
    fitted = model.latent_state_models_["country"]
    expected = RegionalLatentStates(3, random_state=fitted.random_state)
    regions = (X[f"{side}_country"].astype(object) for side in ("user", "service"))
    above = y - y.min()
    expected.fit(*regions, above + 1e-3 * above.mean())
    assert_allclose(expected.log_posterior_, fitted.log_posterior_)
    names = expected.user_regions_
    assert_array_equal(states.loc["user"].loc[names[:2]], expected.user_states_[:2])


def test_states_are_learnt_from_the_transformed_target_if_asked_for(joined):
    X, y = joined
    fitted = make(state_target="transformed", state_shrinkage=4.0).fit(X, y)
    model = fitted.latent_state_models_["country"]
    z = np.sqrt((y - y.min()) / (y - y.min()).mean())
    expected = RegionalLatentStates(2, shrinkage=4.0, random_state=model.random_state)
    regions = (X[f"{side}_country"].astype(object) for side in ("user", "service"))
    expected.fit(*regions, z - z.min() + 1e-3 * (z - z.min()).mean())
    assert_allclose(expected.user_states_, model.user_states_, rtol=1e-4)
    assert_allclose(expected.mismatch_, model.mismatch_, rtol=1e-4)


def test_expected_levels_are_those_of_the_latent_states(joined):
    X, y = joined
    model = make(region_features=["country"], expected_level=True).fit(X, y)
    states = model.latent_state_models_["country"]
    users = model.module_.sides[0]
    of_users = X.drop_duplicates("user").set_index("user")["user_country"]
    regions = of_users.loc[model.users_.ids_].astype(object)
    logs, _ = states.log_levels(regions, ["C"])
    known = regions.notna().to_numpy()
    assert_allclose(users.levels[:, -1].numpy()[known], logs[known], rtol=1e-5)
    assert model.module_.levels.mismatch.item() == pytest.approx(states.mismatch_)
    new = X.head(3).assign(user=999, user_country="nowhere")
    assert np.isfinite(model.predict(new)).all()
    model.partial_fit(new, y[:3])
    assert users.levels.shape[1] == model.n_states + 1
    assert np.isfinite(model.predict(new)).all()


def test_the_network_has_each_entitys_states(joined):
    X, y = joined
    model = make(region_features=["region"]).fit(X, y)
    table = model.latent_states_["region"]
    for side, rows, encoder in zip(
        ("user", "service"), model.module_.sides, (model.users_, model.services_), strict=True
    ):
        regions = X.drop_duplicates(side).set_index(side)[f"{side}_region"].loc[encoder.ids_]
        plain = table.loc[side].to_numpy()[
            table.loc[side].index.get_indexer(regions.astype(object))
        ]
        _, shares = rows.eval()(torch.arange(len(encoder.ids_)))
        expected = (plain - plain.mean(0)) / np.maximum(plain.std(0), MIN_DEVIATION)
        assert_allclose(shares[0].numpy(), expected, rtol=1e-3, atol=1e-4)


def test_latent_states_see_y_in_its_own_unit_and_no_validation_row(joined, state_fits):
    X, y = joined
    model = make(region_features=["as"], early_stopping="monitor")
    train, _ = model.fit(X, y)._split_rows(y, _split_seed())
    above = y[train] - y[train].min()
    assert len(train) == len(y) - round(0.1 * len(y))
    assert_allclose(state_fits[0][2], above + 1e-3 * above.mean(), rtol=1e-12)


def _split_seed():
    return np.random.RandomState(0).randint(np.iinfo(np.int32).max, size=2)[0]


def test_the_unit_of_y_does_not_matter(joined):
    X, y = joined
    first, second = (make().fit(X, factor * y).predict(X) / factor for factor in (1, 1024))
    assert_allclose(first, second, rtol=1e-5)


@pytest.mark.parametrize("shift", [0.0, -5.0, -1e6, 7.0, 1e6])
def test_latent_states_do_not_see_an_offset(joined, state_fits, shift):
    X, y = joined
    y = y - y.min() + shift
    make(region_features=["as"]).fit(X, y)
    seen = state_fits[0][2]
    assert seen.min() > 0
    assert_allclose(seen - seen.min(), y - y.min(), atol=1e-8)
    assert seen.min() == pytest.approx(1e-3 * (y - y.min()).mean())


def test_a_constant_target_of_0_is_shifted_too(joined, state_fits):
    X, y = joined
    make(region_features=["as"]).fit(X, np.zeros_like(y))
    assert (state_fits[0][2] == 1).all()


def test_parameters_reach_the_latent_states(joined):
    params = {"n_states": 4, "concentration": 3.0, "rate": "printed", "slow_quantile": 0.6}
    model = make(region_features=["as"], **params).fit(*joined)
    fitted = model.latent_state_models_["as"].get_params()
    assert {name: fitted[name] for name in params} == params


def test_latent_states_change_predictions(joined):
    predictions = [
        make(region_features=kinds).fit(*joined).predict(joined[0]) for kinds in (None, [], ["as"])
    ]
    assert (predictions[0] != predictions[1]).any()
    assert (predictions[0] != predictions[2]).any()


def test_a_newcomer_has_the_states_of_its_region(joined):
    """With regions as the only context, and known features dropped: only the states differ."""
    X, y = joined
    X = X[["user", "service", "user_as", "service_as"]]
    model = make(region_features=["as"]).fit(X, y)
    with torch.no_grad():
        for rows in model.module_.sides:
            # Vectors of categories come after those of the ids.
            rows.features.vectors[rows.features.sizes[0] :].zero_()
            rows.state_vectors.normal_()
    newcomers = X.drop_duplicates("user_as").head(2).assign(user=-1, service=0)
    newcomers["service_as"] = X.loc[X["service"] == 0, "service_as"].iloc[0]
    unknown = newcomers.head(1).assign(user_as="nowhere")
    predictions = model.predict(pd.concat([newcomers, unknown]))
    assert len(set(predictions)) == 3


# --- Members ------------------------------------------------------------------------------------


def predict_members(model, X):
    """Predict by each member apart, in the transformed target."""
    users = model.users_.transform(X["user"], None)[0]
    services = model.services_.transform(X["service"], None)[0]
    with torch.no_grad():
        return model.module_(torch.tensor(users), torch.tensor(services)).double().numpy()


@pytest.mark.parametrize("n_members", [1, 3])
def test_predictions_are_averages_of_members_in_the_transformed_target(joined, n_members):
    X, y = joined
    model = make(n_members=n_members, target_transform="sqrt").fit(X, y)
    of_members = predict_members(model, X)
    assert of_members.shape == (n_members, len(X))
    transform = TargetTransform("sqrt").fit(y)
    expected = transform.inverse_transform(of_members.mean(0))
    found = model.predict(X)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    averages = np.mean([transform.inverse_transform(member) for member in of_members], axis=0)
    if n_members > 1:
        assert np.abs(found - averages).max() > 100 * np.abs(found - expected).max()


def test_updates_train_every_member(joined):
    X, y = joined
    model = make(n_members=3).fit(X, y)
    before = model.module_.kernels.detach().clone()
    new = X[X["user"] == 3].assign(user=10_000, user_as="nowhere before")
    model.partial_fit(new, y[: len(new)])
    assert model.module_.kernels.shape == before.shape
    assert (model.module_.kernels != before).flatten(1).any(dim=1).all()
    assert len(model.module_.sides[0].shares) == 31
    assert np.isfinite(model.predict(new)).all()


# --- Losses, published settings, pickles --------------------------------------------------------


def criterion_of(model, X, y, monkeypatch):
    seen = []
    original = Trainer.fit

    def spy(self, module, criterion, *args, **kwargs):
        seen.append(criterion)
        return original(self, module, criterion, *args, **kwargs)

    monkeypatch.setattr(Trainer, "fit", spy)
    model.fit(X, y)
    return seen[0]


@pytest.mark.parametrize("loss", get_args(RegionalLossName))
def test_the_loss_has_its_constants(joined, loss, monkeypatch):
    model = make(loss=loss, loss_threshold=0.3, tail_weight=0.7)
    criterion = criterion_of(model, *joined, monkeypatch)
    error = torch.tensor([-1.0, 0.2, 0.29, 0.31])
    constants = {
        "huber": {"threshold": 0.3},
        "e_huber": {"threshold": 0.3, "tail_weight": 0.7},
        "e_huber_printed": {"threshold": 0.3, "tail_weight": 0.7},
    }.get(loss, {})
    assert isinstance(criterion, ObservedLoss)
    expected = LOSSES[loss](error, **constants).mean()
    assert criterion(error, torch.zeros(4)) == pytest.approx(expected.item())


def test_paper_params_are_parameters_of_their_own_values():
    defaults = R2SLRegressor().get_params()
    assert R2SLRegressor.PAPER_PARAMS.keys() <= defaults.keys()
    assert all(R2SLRegressor.PAPER_PARAMS[name] != defaults[name] for name in ("loss", "rate"))


def test_the_published_model_fits(joined):
    X, y = joined
    X = X.assign(user_city=X["user_region"], service_city=X["service_region"])
    params = {**R2SLRegressor.PAPER_PARAMS, "max_epochs": 2, "random_state": 0}
    model = R2SLRegressor(**params).fit(X, y)
    assert model.region_features_ == ["city", "as"]
    assert model.module_.geometry.n_rows == 6
    assert len(model.module_.skip) == 0
    assert model.module_.kernels.shape[0] == 1
    assert np.isfinite(model.predict(X)).all()
    with pytest.raises(ValueError, match="region_features contains 'city'"):
        R2SLRegressor(**params).fit(*joined)


def test_latent_states_survive_pickling(joined):
    model = make().fit(*joined)
    loaded = pickle.loads(pickle.dumps(model))
    for kind, states in model.latent_states_.items():
        pd.testing.assert_frame_equal(loaded.latent_states_[kind], states)
    assert len(pickle.dumps(model)) < 300_000


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_states": 0}, "n_states"),
        ({"concentration": 0.9}, "concentration"),
        ({"rate": "other"}, "rate"),
        ({"slow_quantile": 0}, "slow_quantile"),
        ({"region_features": "as"}, "region_features"),
        ({"n_members": 0}, "n_members"),
        ({"n_members": 1.5}, "n_members"),
        ({"embedding_dim": 0}, "embedding_dim"),
        ({"input_dropout": 1.0}, "input_dropout"),
        ({"n_filters": 0}, "n_filters"),
        ({"hidden_size": 3}, "hidden_size"),
        ({"skip_connection": "yes"}, "skip_connection"),
        ({"loss": "hinge"}, "loss"),
        ({"loss_threshold": 0}, "loss_threshold"),
        ({"tail_weight": -1}, "tail_weight"),
    ],
    ids=str,
)
def test_bad_parameters_raise(joined, params, message):
    with pytest.raises(ValueError, match=f"'{message}' parameter of R2SLRegressor"):
        make(**params).fit(*joined)


IN_VAIN = [
    ({"region_features": ()}, {"n_states": 5, "concentration": 5.0}),
    ({"region_features": []}, {"rate": "printed", "slow_quantile": 0.5}),
    ({"loss": "squared_error"}, {"loss_threshold": 0.2, "tail_weight": 0.1}),
    ({"loss": "huber"}, {"tail_weight": 0.1}),
]
ACTIVE = [{"n_states": 5, "rate": "printed"}, {"loss": "huber", "loss_threshold": 0.2}]


@pytest.mark.parametrize(("switch", "params"), IN_VAIN, ids=str)
def test_parameters_set_in_vain_are_warned_of(switch, params):
    with pytest.warns(UnusedParameterWarning) as warned:
        warn_of_unused_parameters(R2SLRegressor(**switch, **params))
    assert {str(one.message).split("=")[0] for one in warned} == set(params)


@pytest.mark.parametrize("params", [{}, R2SLRegressor.PAPER_PARAMS, *ACTIVE], ids=str)
def test_parameters_with_an_effect_are_not_warned_of(params):
    warn_of_unused_parameters(R2SLRegressor(**params))
