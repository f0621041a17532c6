"""TPMCF as a scikit-learn regressor."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from skqos._times import (
    check_new_steps,
    check_steps,
    learn_time_scale,
    read_time_step,
    warn_of_early,
)
from skqos._types import (
    EarlyStoppingOption,
    LearningRateSchedule,
    OptimizerName,
    TargetTransformName,
)
from skqos._weighted import weighted_median
from skqos.base import TrainingData, TrainingRows, check_layer_sizes
from skqos.entities import Interactions
from skqos.incremental import IncrementalQoSRegressor, Update, plan_update
from skqos.inputs import Columns
from skqos.state import FittedAttribute
from skqos.tpmcf.features import (
    FAMILIES,
    Family,
    NodeFeatures,
    make_family,
)
from skqos.tpmcf.parameters import CONSTRAINTS, PAPER_PARAMS, SWITCHED_OFF, TemporalLossName
from skqos.tpmcf.recent_cells import RecentCells
from skqos.tpmcf.step_features import StepFeatures
from skqos.tpmcf.step_rows import StepRows

if TYPE_CHECKING:
    from torch import nn

    from skqos.tpmcf.features import Sides
    from skqos.tpmcf.gcmf import GCMF, TensorSides
    from skqos.tpmcf.joint import JointFeatures
    from skqos.tpmcf.module import TPMCFModule
    from skqos.tpmcf.updating import StepUpdate
    from skqos.training import QoSNet, Trainer

# Missing times by kind of array: integers, time stamps, and time stamps with a time zone.
MISSING_TIMES = {"i": np.nan, "M": np.datetime64("NaT", "ns"), "O": pd.NaT}


class TPMCFRegressor(IncrementalQoSRegressor):
    """Temporal prediction with graph convolution and a predictive transformer encoder (TPMCF).

    The measurements of a time step give features of its users and services: statistics, factors of
    the interaction matrix, and similarities to others. Graph convolutions over the pairs measured
    in a step (GCMF) give spatial features. The features of a user and a service over the last steps
    form a sequence. A transformer encoder processes the sequence, the maximum over time summarises
    it, and dense layers predict the QoS at the target step [1]_.

    By default there is no graph convolution: the sequence encoder (PTE) processes the initial
    features. See `modules`.

    The third column of X holds the times: integers, which are the numbers of time steps, or time
    stamps, which are assigned to steps of length `time_step`. Differences between step numbers are
    distances in time: the 97 steps between the steps 2 and 100 count as steps without measurement.
    A step without training rows is predicted from the window that ends at the last step before it
    (see also `window_side`).
    If it is after all training steps, the prediction is a forecast.

    Parameters
    ----------
    n_members : int, default=2
        Number of networks, each with weights of its own. They are trained in one pass, and their
        predictions are averaged in units of the transformed target.

        The paper uses 1. All members share the initial features; each has its own graph
        convolution, encoder, dense layers and vectors of ids and context.

    user_features, service_features : list of str or int, default=None
        Context columns of X, by name or position. If None, the columns of a DataFrame whose names
        start with ``user_`` and ``service_`` are used. Columns of strings, categories, booleans,
        dates or durations, and of objects other than numbers, are categorical; all other columns
        are numeric, and values more than ten standard deviations from the mean count as ten. NaN
        means that the value is unknown.

    features : sequence of {"statistics", "factors", "similarity"}, default=("statistics",)
        Families of initial features of users and services at each time step. "statistics" are
        minimum, maximum, median, mean and standard deviation (F_S), "factors" are factors of the
        interaction matrix (F_Q), and "similarity" are compressed rows of the cosine similarities
        (F_C).

    n_factors : int, default=16
        Rank of the factorisation of the interaction matrix.

        f_q in the paper. Used only if `features` contains "factors".

    similarity_dim : int, default=16
        Size f_c of the compressed rows of similarities. Used only if `features` contains
        "similarity".

    similarity : {"factors", "autoencoder"}, default="factors"
        Compression of the rows of similarities: a truncated factorisation of the normalised matrix
        ("factors"), or one stacked autoencoder for users and one for services ("autoencoder"),
        whose training time grows with the square of the number of entities. Used only if `features`
        contains "similarity".

    autoencoder_epochs : int, default=20
        Number of epochs for which each autoencoder is trained.

        An epoch is one pass over the rows of all time steps. Used only with
        ``similarity="autoencoder"`` and if `features` contains "similarity".

    n_folds : int or None, default=20
        Number of folds of the training pairs. During training, each pair is predicted from features
        that are computed without the pairs of its fold; `predict` uses the average over the folds.
        With None, as in the paper, the features of a training pair contain its own value, and the
        network learns to read it.

    modules : {"both", "gcmf", "pte"}, default="pte"
        Parts of the network. "both" is the model of the paper: graph convolution (GCMF), whose
        embeddings form the sequences of the encoder (PTE). "gcmf" predicts by the product of the
        embeddings. "pte" encodes sequences of the initial features alone, which on WS-DREAM is as
        accurate and takes less time.

    gcmf_dim : int, default=8
        Size f' of each of the two graph-convolution units. Used only if `modules` is "both" or
        "gcmf".

    gcmf_weights : {"shared", "own"}, default="shared"
        Whether all time steps share the weights of the units ("shared"), or each has its own as in
        the paper ("own"). With "own", the embeddings of different steps are not comparable. Used
        only if `modules` is "both" or "gcmf".

    self_loops : {"whole", "normalised"}, default="whole"
        Weight of a node's own features in the convolution: 1 ("whole"), as in the code of the
        authors, or 1 / (degree + 1) ("normalised"), as in eq. 2 to 4, where the own features of a
        user are almost lost. Used only if `modules` is "both" or "gcmf".

    gcmf_edges : {"binary", "quantile"}, default="binary"
        Information on the edges of the graph of a step. With "binary", as in the paper, an edge
        means that a pair was measured. With "quantile", the edges have four types, the quarters of
        the residuals after damped means of users and services, and each unit has weights for each
        type. The quarters are those of the steps of `fit` or, for steps that `partial_fit` changes,
        of these steps. It is not in the paper. Used only if `modules` is "both" or "gcmf".

    gcmf_bounded : bool, default=False
        Whether a sigmoid bounds the predictions of the graph convolution to the range of the
        training targets. It is not in the paper. Used only if `modules` is "both" or "gcmf".

    gcmf_edge_dropout : float, default=0.0
        Fraction of the edges that carry no messages in a training step of the graph convolution.
        Messages are scaled by the degrees of the other edges. It is not in the paper. Used only if
        `modules` is "both" or "gcmf".

    gcmf_normalization : {"symmetric", "row"}, default="symmetric"
        Normalisation of the messages: by the degrees of both nodes, as in the paper, or by the
        degree of the receiver ("row"). Used only if `modules` is "both" or "gcmf".

    gcmf_side_scales : bool, default=False
        Whether each unit multiplies what users receive, and what services receive, by learnt
        factors. They have no weight decay. It is not in the paper. Used only if `modules` is "both"
        or "gcmf".

    gcmf_epochs : int, default=10
        Number of epochs in which the graph convolution is trained alone. Each takes one step for
        each fold. It may be 0 with ``gcmf_joint=True``. Used only if `modules` is "both" or "gcmf".

    gcmf_learning_rate : float, default=1e-2
        Learning rate of the graph convolution. With ``learning_rate_schedule="one_cycle"``, it is
        the maximum of the schedule. Used only if `modules` is "both" or "gcmf".

    gcmf_loss_scale : float, default=0.25
        Loss scale (gamma_s) of the graph convolution; see `loss_scale`. Used only if `loss` is
        "cauchy" or "huber", and `modules` is "both" or "gcmf".

    gcmf_joint : bool, default=False
        Whether the graph convolution is trained further together with the encoder, in the final
        stage and with its learning rate. Each step of the optimiser then convolves the graphs of
        all time steps without the edges of one fold, and its rows are those of this fold. It is not
        in the paper. Used only with ``modules="both"``.

    bounded_embeddings : bool, default=True
        Whether the embeddings of the graph convolution are standardised and bounded by tanh before
        they enter the sequences, because a few of them are very large. Mean and scale are those
        after `gcmf_epochs`. It is not in the paper. Used only with ``modules="both"``.

    initial_features : bool, default=True
        Whether the sequences contain the initial features in addition to the embeddings. It is not
        in the paper. Used only with ``modules="both"``.

    entity_dim : int or None, default=32
        Size of the vectors of the id and of the context columns of each user and service, which are
        the same at all time steps. They are not in the paper. With None, ids and context are not
        used. Used only if `modules` is "both" or "pte".

    time_step : str, Timedelta, timedelta or timedelta64, default=None
        Length of a time step, for example "15min". Required if the third column of X contains time
        stamps, and must be None if it contains integers. Steps are counted from midnight before the
        first time stamp of `fit`, in its time zone if it has one. All steps have the same length: a
        step of "1D" is 24 hours, also when clocks change.

    window : int, default=2
        Length of a sequence, in time steps. Steps without any measurement are masked. Used only if
        `modules` is "both" or "pte".

    window_side : {"past", "both"}, default="past"
        Steps of the sequence of a target step: those up to it ("past"), or also later ones
        ("both"), which are half of the `window`. With "both", a step in a gap is predicted from the
        measured steps before and after the gap, and a forecast from half of the `window`. Half of
        the rows of `forecast_share` are then predicted as in a gap. It is not in the paper. Used
        only if `window` is at least 2, and `modules` is "both" or "pte".

    token_dim : int or None, default=32
        Size to which the features of each step of a sequence are mixed linearly. With None, they
        are concatenated without mixing (eq. 7). Used only if `modules` is "both" or "pte".

    temporal : {"transformer", "gru", "lstm"}, default="transformer"
        Encoder of the sequence. Used only if `modules` is "both" or "pte".

    n_blocks : int, default=1
        Number of blocks.

        They are the blocks of the transformer (C_1), or the layers of the recurrent network. Used
        only if `modules` is "both" or "pte".

    n_heads : int, default=2
        Number of attention heads.

        h in the paper. Used only with ``temporal="transformer"``.

    head_dim : int, default=16
        Size of the queries, keys and values of each head (d_k, d_v). Used only with
        ``temporal="transformer"``.

    convolution : {"time", "paper"}, default="time"
        Kind of convolution.

        "time" convolves the features along time. "paper" convolves along the features, with the
        time steps as channels, and fills incomplete windows with zeros. Used only with
        ``temporal="transformer"``.

    n_filters : int, default=64
        Number of convolution filters.

        They are those of the first of the two convolutions of a block. Used only with
        ``temporal="transformer"``.

    dropout : float, default=0.0
        Dropout rate between the two convolutions of a block. Used only with
        ``temporal="transformer"``.

    pooling : {"max", "mean", "last"}, default="max"
        Summary of the encoded sequence: the maximum over time as in the paper, the mean, or the
        last step up to the target step. With "last" and a recurrent network, later steps have no
        effect. Used only if `modules` is "both" or "pte".

    step_encoding : bool, default=True
        Whether each step of a sequence has a learnt vector for its distance from the last step and,
        if the time stamps of X span two days or more, features of the hour of the day of the target
        step. From two weeks on, there are also features of the day of the week. They are not in the
        paper. Used only if `modules` is "both" or "pte".

    target_features : bool, default=True
        Whether the dense layers also receive the features of the last step and the vectors of ids
        and context. It is not in the paper. Used only if `modules` is "both" or "pte".

    pair_history : bool, default=True
        Whether the network also receives other measurements of the predicted pair: their values at
        the steps of the sequence, and their mean and number. Mean and number are those of all other
        steps or, for a forecast, of the steps up to the last one of the sequence. The value that is
        predicted is hidden, also from `predict`. It is not in the paper. Used only if `modules` is
        "both" or "pte".

    hidden_sizes : sequence of int, default=(256, 128)
        Sizes of the hidden dense layers, each followed by a ReLU.

        There are C_2 - 1 of them. Used only if `modules` is "both" or "pte".

    entity_dropout : float, default=0.0
        Dropout rate of the vectors of ids and context. It is not in the paper. Used only if
        `entity_dim` is not None, and `modules` is "both" or "pte".

    newcomer_share : float, default=0.02
        Fraction of the users and of the services that are represented as unknown ones during
        training, so that the network learns to predict unknown users and services.

        Users and services of training rows are chosen at random. A chosen one keeps its context,
        and all else is replaced by averages. It is not in the paper. Used only if `modules` is
        "both" or "pte".

    forecast_share : float, default=0.5
        Fraction of the training rows that are predicted from the steps before their own, so that
        the network learns to predict steps after the last one. It is not in the paper. Used only if
        `modules` is "both" or "pte".

    max_horizon : int, default=8
        Largest number of time steps between the window and a training row that is predicted from
        earlier steps (see `forecast_share`). It is limited to half of the time span of the training
        rows, including the rows of updates. The distance is drawn for each of these rows; short
        distances are more frequent. The network knows the distance from the last step of a sequence
        to the target step. For larger distances, the forecast is that of the largest trained
        distance, apart from the date. With ``window_side="both"``, this also holds for the distance
        to the next step. It is not in the paper. Used only if `forecast_share` is above 0 or
        `window_side` is "both", and `modules` is "both" or "pte".

    target_steps : list of int or of time stamps, "last" or None, default=None
        Time steps whose rows the sequence encoder learns to predict: all (None), the last one as in
        the paper ("last"), or a list of steps, given by number or by any time stamp in them.
        Features are computed from all rows in any case. Used only if `modules` is "both" or "pte".

    loss : {"cauchy", "absolute_error", "squared_error", "huber"}, default="absolute_error"
        Training loss, in units of the transformed target.

        Both training stages use it. The paper uses the Cauchy loss.

    loss_scale : float, default=0.25
        Scale gamma_t of the Cauchy loss, or threshold of the Huber loss. Used only if `loss` is
        "cauchy" or "huber", and `modules` is "both" or "pte".

    partial_fit_epochs : int, default=1
        Number of epochs of an update by `partial_fit`.

        With 0, an update computes the features of the new time steps, users and services without
        training. The graph convolution is not trained during updates, so that updates with
        ``modules="gcmf"`` never train. Dropout is switched off during updates. Used only if
        `modules` is "both" or "pte".

    replay_buffer_size : int, default=400_000
        Maximum number of training rows that the fitted estimator keeps. `partial_fit` trains on
        some of them together with the new rows. With 0, no rows are kept, and updates degrade what
        was learnt before more quickly.

        The rows of the last time steps are kept, and repeated measurements as one row. Updates
        train again only on steps of which all rows are kept. Late measurements change the features
        of a time step only if all rows of that step are kept.

    target_transform : {"auto", "sqrt", "log", "max", "standard"} or None, default="auto"
        Transformation of each target before training. It is estimated from the training rows alone,
        and predictions are transformed back. "sqrt" is
        ``sqrt(y / mean(abs(y)))``, "log" is ``log(1 + y / mean(y))`` and requires that no value is
        negative, "max" divides by the largest absolute value, "standard" subtracts the mean and
        divides by the standard deviation, and None leaves y unchanged. "auto" is
        ``sqrt((y - min(y)) / mean(y - min(y)))`` for a target with a heavy right tail, such as
        response time or throughput, and "standard" for all others. A right tail is heavy if the
        mean is above the median and the minimum is not an outlier. The result of "auto" depends
        neither on the unit of y nor on an offset. A negative value under a root gives the
        negative root of its absolute value.

    max_epochs : int, default=11
        Number of epochs of the final training stage.

        This stage trains the sequence encoder and, with `gcmf_joint`, the graph convolution. With
        ``modules="gcmf"``, `gcmf_epochs` is used instead.

    optimizer : {"adamw", "adam"}, default="adamw"
        Optimiser of the weights. `weight_decay` is decoupled with "adamw" and an L2 penalty with
        "adam".

    learning_rate : float, default=6e-3
        Learning rate. With ``learning_rate_schedule="one_cycle"``, it is the maximum of the
        schedule.

        The graph convolution has its own, `gcmf_learning_rate`, except in joint training.

    learning_rate_schedule : {"one_cycle", "constant"}, default="one_cycle"
        Schedule of the learning rate within a training stage. "one_cycle" increases the learning
        rate to its maximum and then decreases it to almost 0; "constant" does not change it.

    weight_decay : float, default=0.1
        Weight decay of the optimiser; see `optimizer`.

    batch_size : int, default=1024
        Maximum number of training rows in each step of the optimiser. The sizes of the batches of
        an epoch differ by one row at most.

        This is the size of batches of the sequence encoder. A step of the graph convolution alone
        uses all rows of a fold. With `gcmf_joint`, all rows of a batch are of one fold.

    intervals : bool, default=False
        Whether `fit` also estimates the distribution of measurements around the predictions, which
        ``predict(X, quantiles=...)``, `predict_interval` and `predict_probability` need. For this,
        a second network is trained on a part of the rows: `fit` takes 1.6 to 1.9 times as long. The
        predictions do not change.

    early_stopping : bool or "monitor", default=False
        If True, validation rows are held out before anything is learnt from the data. A training
        stage ends when the validation loss has not improved for `n_iter_no_change` epochs, and the
        best weights are restored. If "monitor", validation rows are held out and their loss is
        recorded, but training does not use it. If False, all rows are used for training.

    validation_fraction : float, default=0.1
        Fraction of the rows that are held out for validation. Used only with `early_stopping`, and
        only if no `X_val` is passed to `fit`.

    n_iter_no_change : int, default=10
        Number of epochs without improvement of the validation loss after which a training stage
        ends. Used only with ``early_stopping=True``.

    device : str, default="auto"
        Torch device on which the estimator trains and predicts. "auto" is a CUDA GPU if
        torch finds one, and the CPU otherwise.

    callbacks : list of skorch callbacks, default=None
        skorch callbacks. They are cloned and run in each training stage; the attribute ``stage`` of
        the net that they receive is the name of the stage.

    random_state : int, RandomState instance or None, default=None
        Controls the random numbers that `fit` draws. Pass an int for reproducible results across
        several calls.

        It determines the initial weights, dropout, batches, folds, factors and the validation
        split. Fits that run in several threads are not reproducible, because threads share the
        random state of torch.

    verbose : int, default=0
        If 1, `fit` reports its progress: as records of the logger "skqos" if logging is configured
        for their level, INFO, and otherwise on the standard error stream.

        There is one line per epoch, with the stage, the losses and the time left. In a terminal,
        the lines of a stage replace each other.

    Attributes
    ----------
    module_ : TPMCFModule or GCMF
        Network of the final training stage, on the CPU after `fit`.

    net_ : QoSNet
        skorch net of the final training stage.

    stage_nets_ : dict of str to QoSNet
        skorch net of each training stage, by the name of the stage.

        The stages are "gcmf" (with ``modules="both"``, unless `gcmf_epochs` is 0) and "final".
        After `partial_fit`, there is only the net of the stage "partial". A pickle keeps only the
        last net.

    history_ : DataFrame
        Training history with one row per epoch and the columns ``stage``, ``epoch``,
        ``train_loss``, ``valid_loss`` (NaN without validation rows) and ``duration`` (in seconds).
        Losses are in units of the transformed target.

        `partial_fit` appends rows whose stage is "partial".

    n_iter_ : int
        Number of iterations that were run.

        An iteration is an epoch of the final training stage or, after `partial_fit`, of the update.

    times_ : ndarray of shape (n_time_steps,)
        Time steps that were measured, in ascending order. They are int64, or the starts of the
        steps as datetime64[ns] or, with a time zone, as objects (pandas.Timestamp).

    users_, services_ : EntityEncoder
        Encoders of the users and of the services. They hold the ids seen in `fit`.

        They also hold the categories and scales of the context.

    n_features_in_ : int
        Number of columns of X seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of X seen in `fit`. Defined only if all names are strings.

    PAPER_PARAMS : dict
        Published settings [1]_, as keyword arguments of the estimator.

        What the paper does not state (epochs, batch size, learning rates, dropout, epochs of the
        autoencoder) is taken from the code of the authors, except for 1000 epochs of GCMF, for
        which the code has up to 10000. The loss scales are in the unit of y.

    Notes
    -----
    Where the paper is incomplete or not sound, we decided as follows. The factors of all steps have
    a common basis, and the autoencoders are shared by all steps; with separate bases, as in the
    paper, the features of different steps are not comparable. A user or service without a
    measurement in a step has the statistics of its other steps. The product of GCMF has a constant
    and is divided by the square root of its size. Factors are those of a truncated SVD, where the
    paper has a non-negative factorisation, and the autoencoders have no dropout. The convolutions
    of the encoder run along time. Padded steps, which are those before the first step and those
    without a measurement, are masked. Bases and scales of the features are computed from all
    training values, also with folds. The variants of table VII with a graph attention network or a
    plain graph convolution in place of GCMF are not built. The autoencoders have two hidden layers
    whose widths decrease geometrically, and are trained on the CPU. The graph convolution is
    trained before the encoder and, unless `gcmf_joint` is set, not with it.

    A time before the first measured step is predicted as a row of that step, with an
    `EarlyTimeWarning`.

    `partial_fit` adds new steps, users and services, and late measurements of earlier steps. It
    computes the features of the steps that got rows, with the bases, the scales and the weights of
    the graph convolution of `fit`, and trains the encoder on the new rows and on those of the last
    steps before. A new entity has the features of the average entity at earlier steps, and factors
    that are folded in by least squares.

    A pickle contains the weights, the features of every user and service at every step, the entity
    tables, the rows of the replay buffer and, with `pair_history`, every measured cell. It contains
    no optimiser state.

    References
    ----------
    .. [1] S. Kumar, S. Chattopadhyay, C. Adak, "TPMCF: Temporal QoS Prediction Using Multi-Source
       Collaborative Features", IEEE Transactions on Network and Service Management 21(4), 2024.

    Examples
    --------
    >>> from skqos import TPMCFRegressor
    >>> from skqos.datasets import make_qos
    >>> data = make_qos(20, 30, density=0.2, n_time_steps=4, random_state=0)
    >>> model = TPMCFRegressor(max_epochs=2, random_state=0).fit(data.X, data.y)
    >>> model.predict([[3, 17, 2], [3, 17, 4]]).shape
    (2,)
    """

    PAPER_PARAMS: ClassVar[dict[str, Any]] = PAPER_PARAMS

    _n_id_columns = 3
    _switched_off = (*IncrementalQoSRegressor._switched_off, *SWITCHED_OFF)
    _parameter_constraints: dict = {
        **IncrementalQoSRegressor._parameter_constraints,
        **CONSTRAINTS,
    }
    _step_features = FittedAttribute[Any]()

    def __init__(
        self,
        *,
        n_members: int = 2,
        user_features: Sequence[str | int] | None = None,
        service_features: Sequence[str | int] | None = None,
        features: Sequence[Literal["statistics", "factors", "similarity"]] = ("statistics",),
        n_factors: int = 16,
        similarity_dim: int = 16,
        similarity: Literal["factors", "autoencoder"] = "factors",
        autoencoder_epochs: int = 20,
        n_folds: int | None = 20,
        modules: Literal["both", "gcmf", "pte"] = "pte",
        gcmf_dim: int = 8,
        gcmf_weights: Literal["shared", "own"] = "shared",
        self_loops: Literal["whole", "normalised"] = "whole",
        gcmf_edges: Literal["binary", "quantile"] = "binary",
        gcmf_bounded: bool = False,
        gcmf_edge_dropout: float = 0.0,
        gcmf_normalization: Literal["symmetric", "row"] = "symmetric",
        gcmf_side_scales: bool = False,
        gcmf_epochs: int = 10,
        gcmf_learning_rate: float = 1e-2,
        gcmf_loss_scale: float = 0.25,
        gcmf_joint: bool = False,
        bounded_embeddings: bool = True,
        initial_features: bool = True,
        entity_dim: int | None = 32,
        time_step: str | datetime.timedelta | np.timedelta64 | None = None,
        window: int = 2,
        window_side: Literal["past", "both"] = "past",
        token_dim: int | None = 32,
        temporal: Literal["transformer", "gru", "lstm"] = "transformer",
        n_blocks: int = 1,
        n_heads: int = 2,
        head_dim: int = 16,
        convolution: Literal["time", "paper"] = "time",
        n_filters: int = 64,
        dropout: float = 0.0,
        pooling: Literal["max", "mean", "last"] = "max",
        step_encoding: bool = True,
        target_features: bool = True,
        pair_history: bool = True,
        hidden_sizes: Sequence[int] = (256, 128),
        entity_dropout: float = 0.0,
        newcomer_share: float = 0.02,
        forecast_share: float = 0.5,
        max_horizon: int = 8,
        target_steps: Sequence[Any] | Literal["last"] | None = None,
        loss: TemporalLossName = "absolute_error",
        loss_scale: float = 0.25,
        partial_fit_epochs: int = 1,
        replay_buffer_size: int = 400_000,
        target_transform: TargetTransformName | None = "auto",
        max_epochs: int = 11,
        optimizer: OptimizerName = "adamw",
        learning_rate: float = 6e-3,
        learning_rate_schedule: LearningRateSchedule = "one_cycle",
        weight_decay: float = 0.1,
        batch_size: int = 1024,
        intervals: bool = False,
        early_stopping: EarlyStoppingOption = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        device: str = "auto",
        callbacks: Sequence[Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_members = n_members
        self.user_features = user_features
        self.service_features = service_features
        self.features = features
        self.n_factors = n_factors
        self.similarity_dim = similarity_dim
        self.similarity = similarity
        self.autoencoder_epochs = autoencoder_epochs
        self.n_folds = n_folds
        self.modules = modules
        self.gcmf_dim = gcmf_dim
        self.gcmf_weights = gcmf_weights
        self.self_loops = self_loops
        self.gcmf_edges = gcmf_edges
        self.gcmf_bounded = gcmf_bounded
        self.gcmf_edge_dropout = gcmf_edge_dropout
        self.gcmf_normalization = gcmf_normalization
        self.gcmf_side_scales = gcmf_side_scales
        self.gcmf_epochs = gcmf_epochs
        self.gcmf_learning_rate = gcmf_learning_rate
        self.gcmf_loss_scale = gcmf_loss_scale
        self.gcmf_joint = gcmf_joint
        self.bounded_embeddings = bounded_embeddings
        self.initial_features = initial_features
        self.entity_dim = entity_dim
        self.time_step = time_step
        self.window = window
        self.window_side = window_side
        self.token_dim = token_dim
        self.temporal = temporal
        self.n_blocks = n_blocks
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.convolution = convolution
        self.n_filters = n_filters
        self.dropout = dropout
        self.pooling = pooling
        self.step_encoding = step_encoding
        self.target_features = target_features
        self.pair_history = pair_history
        self.hidden_sizes = hidden_sizes
        self.entity_dropout = entity_dropout
        self.newcomer_share = newcomer_share
        self.forecast_share = forecast_share
        self.max_horizon = max_horizon
        self.target_steps = target_steps
        self.loss = loss
        self.loss_scale = loss_scale
        self.partial_fit_epochs = partial_fit_epochs
        self.replay_buffer_size = replay_buffer_size
        self.target_transform = target_transform
        self.max_epochs = max_epochs
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.learning_rate_schedule = learning_rate_schedule
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.intervals = intervals
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    def attention_weights(self, X: Any) -> np.ndarray:
        """Return the attention weights between the steps of the window of each row.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Columns as in `fit`.

        Returns
        -------
        ndarray of float64 of shape (n_samples, n_blocks, n_heads, window, window)
            Attention of the step on the fourth axis to the step on the fifth axis, averaged over
            the members; it sums to 1 over the fifth axis. Attention to steps without a measurement
            is 0. Steps are in order of time. The last one is the step of the row or, if training
            has not seen it, the last step before it; with ``window_side="both"``, later steps
            follow.

        Raises
        ------
        AttributeError
            If the network has no transformer, because of ``modules="gcmf"`` or `temporal`.
        ValueError
            If X is not as described.
        NotFittedError
            If the estimator is not fitted.
        """
        from skqos.tpmcf.transformer import TransformerEncoder

        fitted = self._snapshot()
        # The parameters may have changed since `fit`.
        if not isinstance(getattr(fitted.module_, "encoder", None), TransformerEncoder):
            raise AttributeError(
                "The fitted network has no attention; attention_weights needs modules='both' or "
                "'pte', and temporal='transformer', in fit."
            )
        return fitted._score_rows(X, "attention_weights")

    def window_times(self, X: Any) -> np.ndarray:
        """Return the time steps of the window of each row, to which `attention_weights` refers.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Columns as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, window)
            Time steps in ascending order, as float64 if times are integers and of the dtype of
            `times_` otherwise. The last one is the step of the row or, if training has not seen it,
            the last step before it; with ``window_side="both"``, later steps follow. NaN or NaT
            stands for steps before the first one or after the last one, and for steps without a
            measurement.

        Raises
        ------
        AttributeError
            If there are no sequences (``modules="gcmf"``).
        ValueError
            If X is not as described.
        NotFittedError
            If the estimator is not fitted.
        """
        import torch

        fitted = self._snapshot()
        module = fitted.module_
        if not hasattr(module, "encoder"):
            raise AttributeError(
                "The fitted network has no windows; window_times needs modules='both' or 'pte' in "
                "fit."
            )
        windows = module.windows(torch.as_tensor(fitted._interactions(X).times).to(module.times))
        times = fitted.times_[windows.steps.cpu().numpy()]
        missing = ~windows.present.cpu().numpy()
        return np.where(missing, MISSING_TIMES[times.dtype.kind], times)

    @property
    def times_(self) -> np.ndarray:
        """Time steps that were measured, in the form in which `fit` received them."""
        # Read once, because another thread may fit again.
        state = self._state
        if state is None:
            raise AttributeError(f"{type(self).__name__} is not fitted and has no times_.")
        return state.time_scale.times_of(state.module_.times.cpu().numpy())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        return tags

    def _interactions(self, X: Any) -> Interactions:
        interactions = super()._interactions(X)
        first = self._state.module_.times[0].item()
        warn_of_early(interactions.times, first, self._state.time_scale)
        return interactions

    def _count_time(self, columns: Columns) -> Columns:
        scale = learn_time_scale(columns.times, self.time_step)
        check_steps(columns.times, scale)
        return columns.in_steps(scale)

    def _check_parameters(self) -> None:
        read_time_step(self.time_step)
        unknown = [name for name in self.features if name not in FAMILIES]
        if unknown or not len(self.features) or len(set(self.features)) < len(self.features):
            raise ValueError(
                f"features={self.features!r} must contain one or more of {list(FAMILIES)}, each "
                "once, and nothing else."
            )
        check_layer_sizes("hidden_sizes", self.hidden_sizes, min_layers=0)
        if self.gcmf_epochs == 0 and not (self.modules == "both" and self.gcmf_joint):
            raise ValueError(
                "gcmf_epochs=0 needs modules='both' and gcmf_joint=True: without joint training, "
                "the graph convolution would not be trained."
            )

    def _fit_networks(
        self, data: TrainingData, trainer: Trainer
    ) -> tuple[dict[str, QoSNet], dict[str, Any]]:
        rows = StepRows.arrange(data, self.n_folds, self.target_steps)
        features = StepFeatures(NodeFeatures(self._families(data.seed)), self.n_folds)
        features = features.fit(rows.cells)
        initial = features.initial(rows.cells, rows.folds)
        nets: dict[str, QoSNet] = {}
        embedded = joint = None
        if self.modules != "pte":
            gcmf, nets = self._fit_gcmf(rows, initial, trainer)
            embedded = gcmf.embed_all()
            features = self._with_graph(features, gcmf, embedded)
            if self.modules == "both" and self.gcmf_joint:
                joint = features.spatial.for_joint_training(gcmf, initial)
            gcmf.freeze()
        if self.modules != "gcmf":
            nets["final"] = self._fit_pte(rows, features.join(initial, embedded), joint, trainer)
        if joint is not None:
            features = features.with_units(joint.gcmf)
        return nets, {"_step_features": features}

    def _families(self, seed: int) -> list[Family]:
        return [
            make_family(
                name,
                n_factors=self.n_factors,
                similarity_dim=self.similarity_dim,
                similarity=self.similarity,
                autoencoder_epochs=self.autoencoder_epochs,
                seed=seed,
            )
            for name in self.features
        ]

    def _build_gcmf(self, features: Sides, data: TrainingData) -> GCMF:
        from skqos.tpmcf.gcmf import GCMF

        n_steps, in_dim = features[0].shape[1], features[0].shape[3]
        # A constant target has no range.
        bounded = self.gcmf_bounded and np.ptp(data.target) > 0
        return GCMF(
            in_dim,
            n_members=self.n_members,
            hidden_dim=self.gcmf_dim,
            n_weights=n_steps if self.gcmf_weights == "own" else 1,
            whole_self=self.self_loops == "whole",
            initial_prediction=weighted_median(data.target, data.weights),
            valued_edges=self.gcmf_edges == "quantile",
            bounds=(float(data.target.min()), float(data.target.max())) if bounded else None,
            normalization=self.gcmf_normalization,
            side_scales=self.gcmf_side_scales,
            edge_dropout=self.gcmf_edge_dropout,
        )

    def _fit_gcmf(
        self, rows: StepRows, initial: Sides, trainer: Trainer
    ) -> tuple[GCMF, dict[str, QoSNet]]:
        """Train the graph convolution on the product of its embeddings (eq. 9).

        Returns
        -------
        gcmf : GCMF
            The graph convolution, with the graphs of all steps.
        nets : dict of str to QoSNet
            The trained net by name of its stage, if there is such a stage.
        """
        gcmf = self._build_gcmf(initial, rows.data)
        gcmf.observe(rows.times, rows.cells, rows.folds, initial)
        if not self.gcmf_epochs:
            return gcmf, {}
        stage = "gcmf" if self.modules == "both" else "final"
        net = trainer.fit(
            gcmf,
            self._criterion(self.gcmf_loss_scale),
            # Each training step convolves all nodes, so it uses all rows of a fold.
            rows.by_fold(),
            rows.validation(),
            stage=stage,
            max_epochs=self.gcmf_epochs,
            batch_size=len(rows.data.target),
            learning_rate=self.gcmf_learning_rate,
        )
        return gcmf, {stage: net}

    def _with_graph(
        self, features: StepFeatures, gcmf: GCMF, embedded: TensorSides
    ) -> StepFeatures:
        has_sequences = self.modules == "both"
        return features.with_graph(
            gcmf,
            embedded,
            bounded=has_sequences and self.bounded_embeddings,
            with_initial=has_sequences and self.initial_features,
        )

    def _fit_pte(
        self,
        rows: StepRows,
        features: TensorSides,
        joint: JointFeatures | None,
        trainer: Trainer,
    ) -> QoSNet:
        """Train the PTE on the target rows (eq. 10), and the graph convolution in joint training.

        `features` are those before joint training.
        """
        module = self._build_module(rows, features)
        if joint is not None:
            module.train_jointly(joint)
        net = trainer.fit(
            module,
            self._criterion(self.loss_scale),
            rows.target_rows(by_fold=joint is not None),
            rows.validation(),
            stage="final",
            max_epochs=self.max_epochs,
        )
        net.module_.forget_training()
        return net

    def _build_module(self, rows: StepRows, features: TensorSides) -> TPMCFModule:
        from skqos.embeddings import FeatureEmbedding
        from skqos.tpmcf.calendar import make_calendar
        from skqos.tpmcf.module import TPMCFModule
        from skqos.tpmcf.pair_history import PairHistory
        from skqos.tpmcf.transformer import make_encoder
        from skqos.tpmcf.windows import longest_horizon

        data, times, entities = rows.data, rows.times, None
        if self.entity_dim is not None:
            users, services = (
                FeatureEmbedding(side.table_, side.n_categories, self.entity_dim, self.n_members)
                for side in (data.users, data.services)
            )
            entities = users, services
        token_dim = self.token_dim
        if token_dim is None:
            token_dim = sum(side.shape[-1] for side in features)
        return TPMCFModule(
            times,
            features,
            entities,
            make_encoder(
                self.temporal,
                token_dim,
                n_members=self.n_members,
                n_blocks=self.n_blocks,
                n_heads=self.n_heads,
                head_dim=self.head_dim,
                convolution=self.convolution,
                window=self.window,
                n_filters=self.n_filters,
                dropout=self.dropout,
            ),
            n_members=self.n_members,
            token_dim=self.token_dim,
            window=self.window,
            n_later=self.window // 2 if self.window_side == "both" else 0,
            max_horizon=longest_horizon(times, self.max_horizon),
            hidden_sizes=self.hidden_sizes,
            pooling=self.pooling,
            step_encoding=self.step_encoding,
            calendar=make_calendar(data.time_scale, times) if self.step_encoding else None,
            history=PairHistory(rows.cells) if self.pair_history else None,
            target_features=self.target_features,
            entity_dropout=self.entity_dropout,
            newcomer_share=self.newcomer_share,
            forecast_share=self.forecast_share,
            initial_prediction=weighted_median(data.target, data.weights),
        )

    def _kept_rows(self, rows: TrainingRows, rng: np.random.RandomState) -> RecentCells:
        return RecentCells.of_rows(rows, rng)

    def _update(self, new: TrainingRows) -> Update:
        """Add the steps of further rows, then train on them and on the last steps before."""
        from skqos.prediction import copy_module
        from skqos.tpmcf.module import TPMCFModule
        from skqos.tpmcf.updating import StepUpdate

        known_times = self.module_.times.numpy()
        check_new_steps(new.times, known_times, self._state.time_scale)
        features = self._step_features
        features.check_shared_weights()
        rng = self._update_rng()
        update = StepUpdate.of_rows(new, features, self._replay_buffer, known_times, rng)
        module, net = copy_module(self.module_), None
        has_sequences = isinstance(module, TPMCFModule)
        if has_sequences:
            module.grow(new.users, new.services)
        if has_sequences and self.partial_fit_epochs:
            net = self._train_on_steps(module, update, rng)
            module = net.module_
        else:
            update.place(module, update.touched, update.describe(update.touched))
        buffer = update.cells.limited(self.replay_buffer_size)
        return Update(module, net, {"_replay_buffer": buffer, "_step_features": update.features})

    def _train_on_steps(
        self, module: TPMCFModule, update: StepUpdate, rng: np.random.RandomState
    ) -> QoSNet:
        """Train the PTE on further cells and on earlier ones of the last steps."""
        from skqos.tpmcf.windows import longest_horizon
        from skqos.training import InteractionDataset

        further = update.further()
        codes = update.inputs(further)
        newcomers = self._find_newcomers(
            codes["users"], codes["services"], update.cells.weights[further]
        )
        # Dropped cells do not reduce the learning rate, because they are older than the kept ones,
        # unless nothing can be replayed.
        n_kept = update.n_earlier if len(update.replayable()) else 0
        n_replayed, rate = plan_update(
            len(further), n_kept, max(update.n_earlier, 1), newcomers.n_rows
        )
        cells = np.concatenate([further, update.replayed(n_replayed, rng)])

        def prepare() -> dict[str, Any]:
            times = update.describable(cells)
            features = update.describe(times)
            update.place(module, times, features)
            module.extend_horizons(longest_horizon(update.times, self.max_horizon))
            module.train_on(features, update.positions(times))
            target, weights = update.cells.target[cells], update.cells.weights[cells]
            rows = InteractionDataset(update.inputs(cells), target, weights)
            return {"criterion": self._criterion(self.loss_scale), "rows": rows}

        net = self._train_update(module, rate, newcomers.weight, rng, prepare)
        net.module_.forget_training()
        return net

    def _criterion(self, scale: float) -> nn.Module:
        from skqos.losses import ObservedLoss

        constants = {"cauchy": {"scale": scale}, "huber": {"threshold": scale}}
        return ObservedLoss(self.loss, **constants.get(self.loss, {}))
