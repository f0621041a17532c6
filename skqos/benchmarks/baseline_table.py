"""The table of our neighbourhood methods and PMF beside the published figures."""

from __future__ import annotations

import pandas as pd

from skqos.benchmarks._results import read_stored
from skqos.benchmarks.markdown import markdown
from skqos.benchmarks.qos_titles import LABELS

HEAD = ("QoS", "density", "model", "MAE / RMSE", "published", "MAE ratio", "RMSE ratio", "source")
WSREC, ICSME, SA_MOE = "WSRec, 20 runs", "icsme2020, 20 runs", "arXiv:2601.11036"
WSREC_50 = "WSRec, 50 runs"
# (QoS, density): model -> MAE, RMSE, source. PMF is followed by its regularization in the unit.
PUBLISHED = {
    ("rt", 0.02): {
        "user mean": (0.8770, 1.8465, WSREC),
        "service mean": (0.7348, 1.6445, WSREC),
        "UPCC": (0.7389, 1.5496, WSREC),
        "IPCC": (0.7602, 1.6954, WSREC),
        "UIPCC": (0.7417, 1.6516, WSREC),
        "PMF, 30": (0.7099, 1.8270, WSREC),
    },
    ("rt", 0.025): {
        "UIPCC": (0.7515, 1.7549, SA_MOE),
        "PMF, 30": (0.6492, 1.6149, SA_MOE),
    },
    ("rt", 0.03): {
        "user mean": (0.8769, 1.8501, WSREC),
        "service mean": (0.7182, 1.5999, WSREC),
        "UPCC": (0.6878, 1.4312, WSREC),
        "IPCC": (0.7225, 1.5657, WSREC),
        "UIPCC": (0.7074, 1.5355, WSREC),
        "PMF, 30": (0.6214, 1.6574, WSREC_50),
    },
    ("rt", 0.05): {
        "user mean": (0.8763, 1.8529, WSREC),
        "service mean": (0.7017, 1.5673, WSREC),
        "UPCC": (0.6359, 1.3797, WSREC),
        "IPCC": (0.6344, 1.3987, WSREC),
        "UIPCC": (0.6253, 1.3879, WSREC),
        "PMF, 30": (0.5442, 1.4747, WSREC_50),
        "PMF, 40": (0.5690, 1.5371, ICSME),
    },
    ("tp", 0.02): {
        "user mean": (53.7824, 109.6414, WSREC),
        "service mean": (28.5242, 69.7834, WSREC),
        "UPCC": (34.0954, 73.5738, WSREC),
        "IPCC": (31.0753, 73.6052, WSREC),
        "UIPCC": (33.2468, 72.3560, WSREC),
        "PMF, 800": (26.6284, 77.7817, WSREC_50),
    },
    ("tp", 0.025): {
        "UIPCC": (31.260, 67.397, SA_MOE),
        "PMF, 800": (24.287, 72.125, SA_MOE),
    },
    ("tp", 0.03): {
        "user mean": (53.8755, 110.1795, WSREC),
        "service mean": (27.8557, 67.8000, WSREC),
        "UPCC": (30.3541, 65.5649, WSREC),
        "IPCC": (30.6542, 69.9615, WSREC),
        "UIPCC": (29.9205, 65.3097, WSREC),
        "PMF, 800": (22.7847, 68.1124, WSREC_50),
    },
}


def add_ratios(means: pd.DataFrame) -> pd.DataFrame:
    """Add the ratios of our errors to the published ones, NaN where there are none.

    Parameters
    ----------
    means : DataFrame
        Rows with ``qos``, ``density``, ``model``, ``mae`` and ``rmse``.
    """
    published = [
        PUBLISHED[row.qos, row.density].get(row.model, (float("nan"), float("nan"), ""))
        for row in means.itertuples()
    ]
    ratios = {
        f"{name}_ratio": means[name] / [errors[place] for errors in published]
        for place, name in enumerate(("mae", "rmse"))
    }
    return means.assign(**ratios)


def make_baseline_table(means: pd.DataFrame) -> str:
    """Write the result of `add_ratios` as a table in Markdown."""
    lines = []
    for row in means.itertuples():
        title, digits = LABELS[row.qos]
        theirs = PUBLISHED[row.qos, row.density].get(row.model)
        columns = ["", "", "", ""]
        if theirs:
            published = f"{theirs[0]:.{digits}f} / {theirs[1]:.{digits}f}"
            columns = [published, f"{row.mae_ratio:.3f}", f"{row.rmse_ratio:.3f}", theirs[2]]
        ours = f"{row.mae:.{digits}f} / {row.rmse:.{digits}f}"
        lines.append([title, f"{row.density:.1%}", row.model, ours, *columns])
    return markdown(HEAD, lines)


def make_stored_table() -> str:
    """Write the table of the stored errors."""
    return make_baseline_table(read_stored("published_baselines.csv"))
