"""The closed list of classes that a model file may contain, and its requirements.

A new class that is part of a fitted estimator, such as a layer, must be added here by name. A class
is imported only when a file contains it.
"""

from __future__ import annotations

import importlib

from sklearn.base import BaseEstimator
from torch import nn

# Classes of this package: objects are created without constructor, and their checked state is set
# attribute by attribute.
OURS: dict[str, tuple[str, ...]] = {
    "skqos._times": ("TimeScale",),
    "skqos.baselines.amf": ("AMFRegressor", "BoxCoxScale", "FactorSide"),
    "skqos.baselines.collaborative": (
        "Neighborhood",
        "PMFRegressor",
        "SparseRows",
        "UIPCCRegressor",
    ),
    "skqos.baselines.embedding_mlp": ("EmbeddingMLPRegressor",),
    "skqos.baselines.embedding_mlp_module": ("EmbeddingMLPModule",),
    "skqos.baselines.median": ("MedianRegressor",),
    "skqos.distribution.bands": ("BandCorrections",),
    "skqos.distribution.difficulty": ("EntityErrors",),
    "skqos.distribution.model": ("Calibration", "ErrorDistribution", "Intervals"),
    "skqos.distribution.network": ("QuantileNetwork",),
    "skqos.embeddings": ("FeatureEmbedding",),
    "skqos.entities": ("EntityEncoder", "EntityTable"),
    "skqos.graphs": ("BipartiteGraph", "ContextGraph", "SideScales", "_SparsePattern"),
    "skqos.inputs": ("ContextLayout",),
    "skqos.intervals": ("IntervalRegressor",),
    "skqos.members": ("ByteDropout", "MemberBatchNorm", "MemberLinear", "PairLinear"),
    "skqos.preprocessing": ("ContextJoiner",),
    "skqos.r2sl.estimator": ("R2SLRegressor",),
    "skqos.r2sl.latent_states": ("RegionalLatentStates",),
    "skqos.r2sl.module": ("EntityRows", "MapGeometry", "PairLevels", "R2SLModule"),
    "skqos.replay": ("ReplayBuffer",),
    "skqos.sa_moe.estimator": ("SAMoERegressor",),
    "skqos.sa_moe.experts": ("AttentionExpert", "LHUCExpert", "MLPExpert"),
    "skqos.sa_moe.module": ("EntityTower", "SAMoEModule"),
    "skqos.sharp_qos.context": ("ContextColumn",),
    "skqos.sharp_qos.estimator": ("SharpQoSRegressor",),
    "skqos.sharp_qos.hyperbolic": (
        "GraphConvolution",
        "HypergraphConvolution",
        "PartLinear",
        "PoincareBall",
    ),
    "skqos.sharp_qos.module": ("ContextConvolution", "NumericContext", "SharpQoSModule"),
    "skqos.sharp_qos.qos_graph": ("QoSGraph",),
    "skqos.sharp_qos.routing": (
        "CrossRouting",
        "GatedFusion",
        "HardConcreteGates",
        "SubnetworkRouting",
        "TaskLinear",
    ),
    "skqos.state": ("FittedState", "NetworkState"),
    "skqos.targets": ("TargetTransform",),
    "skqos.tpmcf.autoencoder": ("SimilarityAutoencoder", "StackedAutoencoder"),
    "skqos.tpmcf.calendar": ("Calendar",),
    "skqos.tpmcf.estimator": ("TPMCFRegressor",),
    "skqos.tpmcf.features": (
        *("KnownSteps", "MatrixFactors", "NodeFeatures", "SimilarityFactors", "Statistics"),
    ),
    "skqos.tpmcf.gcmf": ("GCMF", "GraphUnit"),
    "skqos.tpmcf.module": ("FeaturePlacement", "TPMCFModule"),
    "skqos.tpmcf.pair_history": ("PairHistory",),
    "skqos.tpmcf.recent_cells": ("RecentCells",),
    "skqos.tpmcf.step_features": ("SpatialFeatures", "StepFeatures"),
    "skqos.tpmcf.transformer": (
        "EncoderBlock",
        "FeatureConvolution",
        "MemberConvolution",
        "MemberLayerNorm",
        "MultiHeadAttention",
        "RecurrentEncoder",
        "TimeConvolution",
        "TransformerEncoder",
    ),
}
_CONVOLUTION = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "bias",
    "padding_mode",
)
_RECURRENT = (
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
)
# Layers of other packages: they are created by their constructor from these attributes, which are
# numbers, strings and tuples of them. Their weights must have the resulting shapes.
LAYERS: dict[str, tuple[str, ...]] = {
    "torch.nn.modules.activation.ReLU": ("inplace",),
    "torch.nn.modules.activation.Tanh": (),
    "torch.nn.modules.batchnorm.BatchNorm1d": (
        "num_features",
        "eps",
        "momentum",
        "affine",
        "track_running_stats",
    ),
    "torch.nn.modules.conv.Conv1d": _CONVOLUTION,
    "torch.nn.modules.conv.Conv2d": _CONVOLUTION,
    "torch.nn.modules.dropout.Dropout": ("p", "inplace"),
    "torch.nn.modules.linear.Identity": (),
    "torch.nn.modules.linear.Linear": ("in_features", "out_features", "bias"),
    "torch.nn.modules.normalization.LayerNorm": (
        "normalized_shape",
        "eps",
        "elementwise_affine",
        "bias",
    ),
    "torch.nn.modules.rnn.GRU": _RECURRENT,
    "torch.nn.modules.rnn.LSTM": (*_RECURRENT, "proj_size"),
    "torch.nn.modules.sparse.Embedding": (
        "num_embeddings",
        "embedding_dim",
        "padding_idx",
        "max_norm",
        "norm_type",
        "scale_grad_by_freq",
        "sparse",
    ),
}
# Classes that are created by their constructor from their content.
CONTAINERS = (
    "torch.nn.modules.container.ModuleDict",
    "torch.nn.modules.container.ModuleList",
    "torch.nn.modules.container.ParameterList",
    "torch.nn.modules.container.Sequential",
)
PARAMETERS = ("torch.nn.parameter.Parameter",)
PIPELINE = "sklearn.pipeline.Pipeline"
# Full names of all classes that a file may contain.
LISTED = frozenset(
    [
        *(f"{module}.{name}" for module, names in OURS.items() for name in names),
        *(*LAYERS, *CONTAINERS, *PARAMETERS, PIPELINE),
    ]
)
# Bases whose handling of state only sets attributes.
_PLAIN_BASES = (nn.Module, BaseEstimator)


def class_name(kind: type) -> str:
    """Return the name of a class in files."""
    return f"{kind.__module__}.{kind.__qualname__}"


def is_ours(name: str) -> bool:
    """Return whether a name is that of a listed class of this package."""
    module, _, class_ = name.rpartition(".")
    return class_ in OURS.get(module, ())


def find_class(name: str) -> type:
    """Return a listed class.

    Parameters
    ----------
    name : str
        Full name of the class.

    Raises
    ------
    ValueError
        If the class is not on the list.
    """
    if name not in LISTED:
        raise ValueError(f"it names the class {name!r:.100}, which no model is made of")
    module, _, class_ = name.rpartition(".")
    kind = getattr(importlib.import_module(module), class_, None)
    if not isinstance(kind, type) or class_name(kind) != name:
        raise ValueError(f"the class {name!r} is not in the packages installed here")
    return kind


def check_own_class(kind: type) -> None:
    """Raise TypeError unless objects of a class can be made by setting attributes.

    Parameters
    ----------
    kind : type
        A class of this package that is to be listed.
    """
    special = [
        name
        for name in ("__new__", "__reduce__", "__reduce_ex__")
        if getattr(kind, name) is not getattr(object, name)
    ]
    setstate = getattr(kind, "__setstate__", None)
    owner = getattr(setstate, "__module__", "").split(".")[0]
    # They are read now, because torch replaces that of its modules when it first compiles one.
    plain = [base.__setstate__ for base in _PLAIN_BASES]
    if setstate is not None and setstate not in plain and owner != "skqos":
        special.append("__setstate__")
    if special or kind.__module__.split(".")[0] != "skqos":
        raise TypeError(
            f"{class_name(kind)} cannot be stored in a model file: "
            f"{', '.join(special) or 'it'} is of another package and may interpret what it is "
            "given. Store plain data, or a class of skqos without special handling of its state."
        )
