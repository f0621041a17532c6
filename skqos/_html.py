"""Summary of a fitted estimator below the diagram of scikit-learn in notebooks."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skqos.state import FittedState


class FittedSummaryMixin:
    """Mixin that adds a summary of the fitted estimator to the HTML of scikit-learn."""

    _state: Any

    # scikit-learn links the diagram to this page.
    _doc_link_module = "skqos"
    _doc_link_template = "https://github.com/skqos/skqos/blob/main/docs/api.md"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        if "text/html" in bundle:
            bundle["text/html"] += fitted_line(self._state)
        return bundle

    @property
    def _repr_html_(self) -> Any:
        # An AttributeError, where scikit-learn is set to show text.
        show = super()._repr_html_  # type: ignore[misc]
        return lambda: show() + fitted_line(self._state)


def fitted_line(state: FittedState | None) -> str:
    """Return a paragraph that describes the training data; it is empty before `fit`."""
    if state is None:
        return ""
    return f'<p class="skqos-fitted">Fitted: {html.escape(", ".join(_facts(state)))}.</p>'


def _facts(state: FittedState) -> list[str]:
    facts = [f"{state.users_.n_entities:,} users", f"{state.services_.n_entities:,} services"]
    names = state.attributes.get("target_names_in_")
    if names is not None:
        facts.append(f"targets {' and '.join(names)}")
    epochs = getattr(state, "n_iter_", None)
    if epochs is not None:
        facts.append(f"{epochs:,} epochs")
    if "_intervals" in state.attributes:
        facts.append("prediction intervals")
    return facts
