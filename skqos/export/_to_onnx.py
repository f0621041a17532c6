"""`to_onnx`: a fitted model as one ONNX file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skqos._files import replace_file
from skqos.export._contents import KEY, Contents

if TYPE_CHECKING:
    from skqos.base import BaseQoSRegressor
    from skqos.export._entities import ExportedEntities
    from skqos.preprocessing import ContextJoiner


def to_onnx(model: Any, path: str | os.PathLike[str]) -> None:
    """Export a fitted model to one ONNX file, which `OnnxPredictor` reads.

    The file holds the network as a graph, what the network makes of each user and service as
    constants, the inverse of the target transform and the ids.

    Parameters
    ----------
    model : estimator or Pipeline
        A fitted estimator of this package that trains a network, or a fitted pipeline of one
        `ContextJoiner` and such an estimator.
    path : str or path-like
        The file to write. Its folder has to exist. An earlier file stays until the new one is
        complete.

    Raises
    ------
    NotFittedError
        If `model` is not fitted.
    TypeError
        If `model` is something else, its ids are neither numbers nor strings, or `path` is no path.
    ValueError
        If the file would be larger than ONNX allows (2 GiB).
    ImportError
        Without onnx and onnxscript.
    OSError
        If the file cannot be written; an earlier one is as it was.

    See Also
    --------
    OnnxPredictor : Predicts from it.
    skqos.persistence.save_model : Saves a model that can be loaded as an estimator.

    Notes
    -----
    Rows of the file are those of users and services that training saw, with the context they were
    fitted with. Of a pipeline, the users and services that only the tables of the `ContextJoiner`
    have are exported too, represented by their context, as the pipeline predicts them. All other
    ids are the average user or service at prediction.

    The graph takes one int64 tensor of shape (n,) for each of ``user``, ``service`` and, of a
    temporal estimator, ``time``, and gives ``qos``, float64 of shape (n, n_targets). Users and
    services are positions in the lists ``users`` and ``services`` of the JSON text ``skqos`` in
    the metadata of the file; the position after the last is that of an unknown id. Times are
    numbers of steps, which `OnnxPredictor` counts where X has time stamps.

    Quantiles of a model that was fitted with ``intervals=True`` are not exported.

    Examples
    --------
    >>> from skqos.export import OnnxPredictor, to_onnx
    >>> to_onnx(model, "model.onnx")  # doctest: +SKIP
    >>> OnnxPredictor("model.onnx").predict([[17, 203]])  # doctest: +SKIP
    array([0.41])
    """
    _check_exporter()
    _check_path(path)
    estimator, joiner = _take_apart(model)
    users, services = _entities(estimator, joiner)
    proto = _trace(estimator, users, services)
    contents = Contents(
        estimator=type(estimator).__name__,
        n_id_columns=estimator._n_id_columns,
        n_features=(estimator if joiner is None else joiner).n_features_in_,
        target_shape=estimator._state.target_shape,
        time_scale=estimator._state.time_scale,
        users=users.ids,
        services=services.ids,
    )
    proto.metadata_props.add(key=KEY, value=contents.to_json())
    replace_file(Path(path), proto.SerializeToString())


def _check_exporter() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "to_onnx requires onnx and onnxscript. You can install them with "
            "`pip install 'skqos[onnx]'`."
        ) from error


def _check_path(path: Any) -> None:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a path; got {path!r:.60}.")
    folder = Path(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{path} was not written: there is no folder {folder}.")


def _take_apart(model: Any) -> tuple[BaseQoSRegressor, ContextJoiner | None]:
    """Return a snapshot of the estimator, and the joiner ahead of it, if there is one."""
    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import check_is_fitted

    from skqos.base import BaseQoSRegressor
    from skqos.preprocessing import ContextJoiner

    steps = [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]
    *ahead, estimator = [step for step in steps if step not in (None, "passthrough")] or [model]
    if (
        not isinstance(estimator, BaseQoSRegressor)
        or len(ahead) > 1
        or not all(isinstance(step, ContextJoiner) for step in ahead)
    ):
        raise TypeError(
            "model must be an estimator of skqos that trains a network, or a Pipeline of one "
            f"ContextJoiner and such an estimator; got {model!r:.120}. Of a search, give its "
            "best_estimator_."
        )
    for joiner in ahead:
        check_is_fitted(joiner)
    return estimator._snapshot(), next(iter(ahead), None)


def _entities(
    estimator: BaseQoSRegressor, joiner: ContextJoiner | None
) -> tuple[ExportedEntities, ExportedEntities]:
    from skqos.export._entities import ExportedEntities

    tables = (None, None) if joiner is None else (joiner.users_, joiner.services_)
    users, services = (
        ExportedEntities.of(encoder, table)
        for encoder, table in zip((estimator.users_, estimator.services_), tables, strict=True)
    )
    return users, services


def _trace(estimator: BaseQoSRegressor, users: ExportedEntities, services: ExportedEntities) -> Any:
    """Encode all entities by a copy of the network on the CPU; return the ONNX model."""
    import torch

    from skqos.export._graph import PairGraph, trace
    from skqos.prediction import copy_module, encode

    module = copy_module(estimator.module_).eval()
    # Not inference_mode: the exporter takes no tensors that were made in it.
    with torch.no_grad():
        encoded = encode(module, users.newcomers, services.newcomers)
    graph = PairGraph(module, encoded, estimator._state.target_transform)
    return trace(graph, estimator._n_id_columns)
