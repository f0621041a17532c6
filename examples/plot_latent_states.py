"""
Latent states of regions
========================

`R2SLRegressor` learns latent states of regions from the QoS between them. If the states of a user
region and a service region match, the expected response time is the product of the levels of both
regions; if they differ, it is larger by a common factor w.

::

    python examples/plot_latent_states.py               synthetic data
    python examples/plot_latent_states.py --data DIR    WS-DREAM data set 1
"""

# %%
# Measurements and regions
# ------------------------
# `RegionalLatentStates` learns the states without an estimator, from regions and measurements. The
# regions are synthetic, or countries with WS-DREAM. If the QoS does not depend on groups of
# regions, almost all regions have the same state.

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
parser.add_argument("--out", type=Path, help="file for the figure; by default it is shown")
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
# States and expected QoS
# -----------------------
# In the left and middle plots, a row is a region and a column is a state. Regions are sorted by
# their most probable state. The right plot shows the expected response time of each pair of
# regions, relative to the product of their levels: it is 1 if the states match, and w if they
# differ.

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

# %%
# Conclusion
# ----------
# On the synthetic data, nearly all user regions have the same state. Most service regions share
# this state. A few service regions have another one, and requests to them are expected to take
# longer than the levels of the regions suggest, by a factor of up to w. The states therefore
# separate service regions that are slow for almost all users.
