"""What notebooks show of estimators: scikit-learn's diagram, and a line on what is fitted."""

import pytest
from sklearn import config_context

from skqos.baselines import EmbeddingMLPRegressor, MedianRegressor
from skqos.datasets import make_qos


@pytest.fixture(scope="module")
def data():
    return make_qos(12, 15, density=0.5, random_state=0)


@pytest.fixture(scope="module")
def model(data):
    tiny = {"embedding_dim": 2, "hidden_sizes": (4,), "n_members": 1}
    return EmbeddingMLPRegressor(max_epochs=2, **tiny, random_state=0).fit(data.X, data.y)


def test_a_fitted_estimator_tells_what_it_was_fitted_to(model):
    expected = "Fitted: 12 users, 15 services, 2 epochs."
    assert expected in model._repr_mimebundle_()["text/html"]
    assert expected in model._repr_html_()
    assert "https://github.com/skqos/skqos" in model._repr_html_()
    assert repr(model.users_) == "<12 users>"


def test_an_estimator_without_a_network_has_no_epochs(data):
    shown = MedianRegressor().fit(data.X, data.y)._repr_html_()
    assert "Fitted: 12 users, 15 services.</p>" in shown


def test_before_fit_nothing_is_fitted():
    model = MedianRegressor()
    assert "skqos-fitted" not in model._repr_mimebundle_()["text/html"]
    assert "Fitted:" not in model._repr_html_()


def test_text_is_shown_where_scikit_learn_is_set_to_text(model):
    with config_context(display="text"):
        assert "text/html" not in model._repr_mimebundle_()
        assert not hasattr(model, "_repr_html_")
