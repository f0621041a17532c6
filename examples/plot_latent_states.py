"""
Which regions share a latent state
==================================

`R2SLRegressor` learns latent states of regions from the QoS between them: user regions and service
regions of the same state get on well, those of different states are slower by a common factor.

::

    python examples/plot_latent_states.py               made-up data
    python examples/plot_latent_states.py --data DIR    WS-DREAM data set 1
"""

# %%
# Measurements and regions
# ------------------------
# Latent states need no estimator: regions and measurements are enough. Here a region is a
# part of a made-up world, or with WS-DREAM a country. Hardly any state but one is left where QoS
# knows no such groups.

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt

from skqos.datasets import load_wsdream, make_qos
from skqos.inspection import LatentStateDisplay
from skqos.r2sl.latent_states import RegionalLatentStates

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, help="folder of WS-DREAM data set 1")
parser.add_argument("--states", type=int, default=3)
parser.add_argument("--out", type=Path, help="file for the picture, else it is shown")
args = parser.parse_args()

if args.data:
    kind = "country"
    data = load_wsdream(args.data, qos="rt")
else:
    kind = "region"
    data = make_qos(150, 400, 0.3, n_regions=20, n_as=40, timeout_rate=0, noise=0.1, random_state=0)
regions = [
    table[kind].astype(object).to_numpy()[ids]
    for table, ids in ((data.users, data.X[:, 0]), (data.services, data.X[:, 1]))
]
model = RegionalLatentStates(args.states, random_state=0).fit(*regions, data.y)
print(f"w = {model.mismatch_:.1f}, log posterior {model.log_posterior_[-1]:,.0f}")

# %%
# The states, and what they say about QoS
# ---------------------------------------
# On the left, a row is a region, a column a state. Regions are sorted by their most probable state,
# so that those that share one stand together. On the right, where the states of a user region and
# of a service region differ, a request is expected to take longer: 1 is the level of both regions,
# w the most.

figure, (left, middle, right) = plt.subplots(
    1, 3, figsize=(11, 6), width_ratios=[1, 1, 1.8], layout="constrained"
)
display = LatentStateDisplay.from_estimator(model, kind=kind, n_regions=40, ax=[left, middle])
differ = 1 - display.shown_["user"].to_numpy() @ display.shown_["service"].to_numpy().T
image = right.imshow(1 + (model.mismatch_ - 1) * differ, cmap="YlOrRd", aspect="auto")
right.set(
    title="expected QoS / level of both regions",
    xlabel=f"{kind} of services, sorted as in the middle",
    ylabel=f"{kind} of users, sorted as on the left",
    xticks=[],
    yticks=[],
)
figure.colorbar(image, ax=right)
if args.out:
    figure.savefig(args.out, dpi=110)
else:
    plt.show()
