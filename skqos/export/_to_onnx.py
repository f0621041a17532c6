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

    The file contains the network as a graph, the encoded users and services as constants, the
    inverse of the target transform, and the ids.

    Parameters
    ----------
    model : estimator or Pipeline
        Fitted estimator of this package that trains a network, or a fitted Pipeline of a
        `ContextJoiner` and such an estimator.
    path : str or path-like
        File to write. Its folder must exist. An existing file is replaced only when the new one is
        complete.

    Raises
    ------
    NotFittedError
        If `model` is not fitted.
    TypeError
        If `model` is something else, its ids are neither numbers nor strings, or `path` is not a
        path.
    ValueError
        If the file would be larger than ONNX allows (2 GiB).
    ImportError
        If onnx or onnxscript is not installed.
    OSError
        If the file cannot be written. An existing file remains unchanged.

    See Also
    --------
    OnnxPredictor : Predict from the file.
    skqos.persistence.save_model : Save a model that can be loaded as an estimator.

    Notes
    -----
    The file contains the users and services of the training data, with the context with which they
    were fitted. For a Pipeline, users and services that are only in the tables of the
    `ContextJoiner` are exported as well, represented by their context as in the predictions of the
    Pipeline. All other ids are predicted as the average user or service.

    The inputs of the graph are int64 tensors of shape (n,): ``user``, ``service`` and, for a
    temporal estimator, ``time``. The output is ``qos``, float64 of shape (n, n_targets). Users and
    services are positions in the lists ``users`` and ``services`` of the JSON text ``skqos`` in the
    metadata of the file; the position after the last one is an unknown id. Times are step numbers,
    which `OnnxPredictor` computes from time stamps.

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
        first_step=_first_step(estimator),
        users=users.ids,
        services=services.ids,
    )
    proto.metadata_props.add(key=KEY, value=contents.to_json())
    replace_file(Path(path), proto.SerializeToString())


def _first_step(estimator: Any) -> int | None:
    scale = estimator._state.time_scale
    return None if scale is None else int(estimator.module_.times[0])


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
        raise FileNotFoundError(f"{path} was not written: the folder {folder} does not exist.")


def _take_apart(model: Any) -> tuple[BaseQoSRegressor, ContextJoiner | None]:
    """Return a snapshot of the estimator, and the joiner before it, if there is one."""
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
            f"ContextJoiner and such an estimator; got {model!r:.120}. For a search, pass its "
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
    # no_grad instead of inference_mode, whose tensors the exporter does not accept.
    with torch.no_grad():
        encoded = encode(module, users.newcomers, services.newcomers)
    graph = PairGraph(module, encoded, estimator._state.target_transform)
    return trace(graph, estimator._n_id_columns)
