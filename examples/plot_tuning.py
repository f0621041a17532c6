"""
Tune with pruning
=================

Optuna samples hyperparameters from the search space of `skqos.tuning.suggest_params`.
`skqos.tuning.OptunaPruning` reports the validation loss after each epoch, so that trials that fall
behind end early.

::

    python examples/plot_tuning.py
"""

# %%
# Training and test rows
# ----------------------
# The search uses only the training rows. The test rows are used once, at the end.

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pandas as pd
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline

from skqos.baselines import EmbeddingMLPRegressor, MedianRegressor
from skqos.datasets import make_qos
from skqos.preprocessing import ContextJoiner
from skqos.tuning import SEARCH_SPACES, OptunaPruning, suggest_params

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, help="file for the figure; by default it is shown")
args = parser.parse_args()

data = make_qos(60, 150, density=0.25, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(data.X, data.y, random_state=0)
print(f"{len(y_train):,} rows train, {len(y_test):,} test")


def make_model(**params: object) -> Pipeline:
    model = EmbeddingMLPRegressor(max_epochs=10, random_state=0, **params)
    return make_pipeline(ContextJoiner(data.users, data.services), model)


# %%
# Search
# ------
# ``early_stopping="monitor"`` holds out a tenth of the training rows and records their loss, which
# is what a trial returns. Trials have one member and ten epochs, because these are the budget of a
# trial. The first trial has the defaults.

PREFIX = "embeddingmlpregressor__"


def objective(trial: optuna.Trial) -> float:
    model = make_model(early_stopping="monitor", callbacks=[OptunaPruning(trial)])
    model.set_params(**suggest_params(model, trial) | {f"{PREFIX}n_members": 1})
    model.fit(X_train, y_train)
    return model[-1].history_["valid_loss"].iloc[-1]


optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(
    sampler=optuna.samplers.TPESampler(seed=0),
    pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
)
defaults = EmbeddingMLPRegressor().get_params()
space = SEARCH_SPACES[EmbeddingMLPRegressor]
study.enqueue_trial({f"{PREFIX}{name}": defaults[name] for name in space})
study.optimize(objective, n_trials=12)
trials = study.trials_dataframe(attrs=("number", "value", "state"))
print(trials.round(3).to_string(index=False))
print(pd.Series(study.best_params).rename(lambda name: name.removeprefix(PREFIX)).to_string())

# %%
# Score once
# ----------
# The best configuration and the defaults, both with four members, are fitted to all training rows.

models = {
    "tuned": make_model().set_params(**study.best_params | {f"{PREFIX}n_members": 4}),
    "defaults": make_model(),
    "service median": MedianRegressor(by="service"),
}
for name, model in models.items():
    error = mean_absolute_error(y_test, model.fit(X_train, y_train).predict(X_test))
    print(f"{name}: MAE {error:.3f} s")

# %%
# Conclusion
# ----------
# More than half of the trials were pruned after a few epochs, among them those with the highest
# losses. The best trial has a slightly lower validation loss than the defaults, and a similar test
# error: the defaults are already suitable for these data. Both are clearly better than the service
# median. The validation loss of the best trial is optimistic, because it was selected as the lowest
# of several, so that only the test rows give a fair comparison.

figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
for trial in study.trials:
    steps = trial.intermediate_values
    is_best = trial.number == study.best_trial.number
    pruned = trial.state == optuna.trial.TrialState.PRUNED
    axes.plot(
        np.array(list(steps)) + 1,
        list(steps.values()),
        marker="x" if pruned else "o",
        markevery=[-1],
        color="C1" if is_best else "0.65" if pruned else "C0",
        linewidth=2.5 if is_best else 1.2,
        label={0: "defaults", study.best_trial.number: "best"}.get(trial.number),
    )
axes.set(xlabel="epoch", ylabel="validation loss", title="Trials; x: pruned")
axes.legend(frameon=False)
if args.out:
    figure.savefig(args.out, dpi=110)
else:
    plt.show()
