"""Made-up measurements in the files of WS-DREAM, and a part of the real ones."""

import numpy as np
import pandas as pd

from skqos.datasets import make_qos


def write_list(path, head, rows):
    lines = ["\t".join(head), "=" * 20, *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def make_wsdream1(folder):
    """Made-up measurements in the files and splits of WS-DREAM data set 1."""
    data = make_qos(20, 30, density=0.5, random_state=0)
    matrix = np.full((20, 30), -1.0)
    matrix[data.X[:, 0], data.X[:, 1]] = data.y
    for qos, values in (("rt", matrix), ("tp", np.where(matrix > 0, 10 * matrix, -1))):
        np.savetxt(folder / f"{qos}Matrix.txt", values, fmt="%.3f", delimiter="\t")
    place = ["[Country]", "[AS]", "[Latitude]", "[Longitude]", "[Region]", "[City]"]
    write_list(
        folder / "userlist.txt",
        ["[User ID]", "[IP Address]", *place],
        [(k, f"10.{k % 3}.0.1", "C", f"AS{k % 4}", k, -k, "R", f"T{k % 2}") for k in range(20)],
    )
    write_list(
        folder / "wslist.txt",
        ["[Service ID]", "[WSDL Address]", "[Service Provider]", "[IP Address]", *place],
        [
            (
                k,
                f"http://h{k}/s{k % 7}.asmx",
                f"P{k % 5}",
                f"11.{k % 3}.0.1",
                "C",
                f"AS{k % 4}",
                k,
                -k,
                "R",
                f"T{k % 2}",
            )
            for k in range(30)
        ],
    )
    rows = np.column_stack([data.X, np.maximum(data.y, 0.001).round(3)])
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    (folder / "splits").mkdir()
    for qos, scale in (("rt", 1), ("tp", 10)):
        for part, lines in (("train", rows[:200]), ("test", rows[200:])):
            path = folder / "splits" / f"{qos}_{part}_0.025.txt"
            np.savetxt(path, lines * [1, 1, scale], fmt=["%d", "%d", "%.3f"])
        rows = rows[::-1]


def make_wsdream2(folder):
    """Made-up measurements in the file of WS-DREAM data set 2, in no order."""
    data = make_qos(20, 30, density=0.4, n_time_steps=6, timeout_rate=0.1, random_state=0)
    rows = np.column_stack([data.X, np.maximum(data.y, 0.001)])
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    np.savetxt(folder / "rtdata.txt", rows, fmt=["%d", "%d", "%d", "%.3f"])


def read_part(folder, qos, part=3):
    """Return rows of every so many-th service in the 2.5 % split of WS-DREAM data set 1.

    They are all rows of the training file, and every tenth of the test file.
    """
    train, test = (
        pd.read_csv(folder / "splits" / f"{qos}_{name}_0.025.txt", sep=r"\s+", header=None)
        for name in ("train", "test")
    )
    return [rows[rows[1] % part == 0].to_numpy() for rows in (train, test[::10])]
