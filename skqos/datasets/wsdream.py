"""WS-DREAM, measured QoS of real Web services: loading and downloading."""

import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from skqos._arrays import sorted_unique
from skqos._errors import about
from skqos._parameters import validated
from skqos._sklearn_compat import Interval
from skqos._warnings import warn_user

from ._common import make_bunch
from ._download import download_zip, unpack
from ._files import (
    DamagedFileError,
    File,
    Folder,
    encoding_of,
    find,
    open_bytes,
    open_folder,
    read_lines,
    read_text,
)

__all__ = ["fetch_wsdream", "load_wsdream"]

_QOS = ("rt", "tp")
_MATRIX_FILES = {"rt": "rtMatrix.txt", "tp": "tpMatrix.txt"}
_TRIPLE_FILES = {"rt": "rtdata.txt", "tp": "tpdata.txt"}
_TRIPLE_DTYPES = {0: np.int64, 1: np.int64, 2: np.int64, 3: np.float64}

# The current list is first, and columns of both lists are taken from it. The 2014 list adds
# continent, region and city.
_USER_LISTS = ("userlist.txt", "userlist_2014.txt")
_SERVICE_LISTS = ("wslist.txt", "wslist_2014.txt")

# Our column name -> header in the file, without brackets and in lower case.
_CATEGORICAL_HEADERS = {
    "country": "country",
    "continent": "continent",
    "as": "as",
    "region": "region",
    "city": "city",
    "provider": "service provider",
}
_COORDINATE_HEADERS = {"latitude": "latitude", "longitude": "longitude"}
_IP_HEADER = "ip address"
_ADDRESS_HEADER = "wsdl address"
# Headers without a column, because rows are identified by their position.
_UNUSED_HEADERS = re.compile(r"(user|service|ws)?[ _]?id|ip no\.?")
_USED_HEADERS = frozenset(
    {*_CATEGORICAL_HEADERS.values(), *_COORDINATE_HEADERS.values(), _IP_HEADER, _ADDRESS_HEADER}
)
_OUR_COLUMNS = (*_CATEGORICAL_HEADERS, "wsdl", "subnet", *_COORDINATE_HEADERS)
_UNKNOWN = frozenset({"", "-", "n/a", "nan", "none", "null", "unknown"})
_IPV4 = re.compile(r"(\d{1,3}\.\d{1,3})\.\d{1,3}\.\d{1,3}")

_TERMS = """\
Licence: MIT, (c) 2011-present WS-DREAM, CUHK.

Please cite: Z. Zheng, Y. Zhang and M. R. Lyu, "Investigating QoS of Real-World Web Services",
IEEE Transactions on Services Computing 7(1), 2014, pp. 32-39."""

_DESCR = {
    1: f"""\
WS-DREAM data set 1: QoS of real-world Web services
---------------------------------------------------
339 users measured 5,825 Web services. rt is the response time in seconds (time-outs are about
20 s), tp the throughput in kbps. Users and services come with country, autonomous system,
address and coordinates. A pair without a value is not listed.

{_TERMS}""",
    2: f"""\
WS-DREAM data set 2: QoS of real-world Web services over time
-------------------------------------------------------------
142 users measured 4,500 Web services in 64 consecutive slots of 15 minutes. rt is the response
time in seconds (a time-out is 20 s), tp the throughput in kbps. No context is known. A cell
without a value is not listed.

{_TERMS}

And for this data set: Y. Zhang, Z. Zheng and M. R. Lyu, "WSPred: A Time-Aware Personalized QoS
Prediction Framework for Web Services", ISSRE 2011, pp. 210-219.""",
}


def load_wsdream(path: str | os.PathLike[str], qos: str | Sequence[str] = "rt") -> Bunch:
    r"""Load WS-DREAM data set 1 or 2 from a folder or a zip archive.

    The data set is recognised by its files. Set 1 has ``rtMatrix.txt`` and ``tpMatrix.txt``, with
    one line per user and one value per service. Set 2 has ``rtdata.txt`` and ``tpdata.txt``, with
    lines of ``user service slot value``. Each file may be compressed, with a name that ends with
    ``.gz``, and only the files of the requested QoS are needed. The encoding is latin-1, unless
    there is a byte-order mark.

    The context of set 1 is read from ``userlist.txt`` and ``wslist.txt``, and further columns
    (continent, region, city) from ``userlist_2014.txt`` and ``wslist_2014.txt``. Columns are
    identified by their headers, rows by their position. Columns with other headers are kept under
    these names, with a warning. All of these lists are optional.

    Parameters
    ----------
    path : str or path-like
        Folder with the files, or a zip archive that contains them in one folder.
    qos : {"rt", "tp"} or sequence of them, default="rt"
        Response time in seconds, throughput in kbps, or both.

    Returns
    -------
    Bunch
        X : ndarray of shape (n, 2) or (n, 3), dtype int64
            User, service and, for set 2, time slot of each measurement, in ascending order.
        y : ndarray of shape (n,) or (n, n_qos), dtype float64
            Measured values: 1-D if `qos` is a str, otherwise one column per requested QoS, with NaN
            for values that were not measured. Each row has at least one value. Values of -1 and 0
            in the files count as not measured; any other negative number is an error.
        users : DataFrame of n_users rows
            Context with the user ids as index. The categorical columns are ``country``,
            ``continent``, ``as``, ``region``, ``city``, ``provider``, ``wsdl`` (last part of the
            path of the service's address, which identifies the same software at many addresses) and
            ``subnet`` (first two octets of the IP address); the numeric ones are ``latitude`` and
            ``longitude`` (in degrees). Only columns that the files contain are present. Columns
            with other headers follow, as float64 if all known values are numbers, and as
            categorical otherwise. NaN means unknown. There are no columns for set 2.
        services : DataFrame of n_services rows
            Context with the service ids as index, in the same form.
        frame : DataFrame of n rows
            Columns ``user``, ``service``, ``time`` for set 2, and one column per QoS.
        qos_names, target_names : list of str
            Names of the columns of ``y``.
        DESCR : str
            Description, licence and citation.

    Raises
    ------
    FileNotFoundError
        If the folder or the file of a requested QoS is missing.
    ValueError
        If `qos` is invalid, or a file has no measured value, is damaged or does not match the
        others. The message contains the file, the line and what was expected.

    Warns
    -----
    UserWarning
        If a list has columns with unknown headers.

    References
    ----------
    .. [1] Z. Zheng, Y. Zhang and M. R. Lyu, "Investigating QoS of Real-World Web
       Services", IEEE Transactions on Services Computing 7(1), 2014.
    .. [2] Y. Zhang, Z. Zheng and M. R. Lyu, "WSPred: A Time-Aware Personalized QoS
       Prediction Framework for Web Services", ISSRE 2011.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skqos.datasets import load_wsdream
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "rtMatrix.txt").write_text("0.3 -1 2.5\n-1 0.7 -1\n")
    ...     data = load_wsdream(folder)
    >>> data.X
    array([[0, 0],
           [0, 2],
           [1, 1]])
    >>> data.y
    array([0.3, 2.5, 0.7])
    """
    names = _check_qos(qos)
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a str or path-like; got {path!r:.60}.")
    with open_folder(Path(path), {*_MATRIX_FILES.values(), *_TRIPLE_FILES.values()}) as folder:
        number = _recognise(folder)
        load = _load_matrices if number == 1 else _load_triples
        frame, users, services = load(folder, names)
    single = isinstance(qos, str)
    return make_bunch(frame, names, users, services, single=single, descr=_DESCR[number])


def _check_qos(qos: str | Sequence[str]) -> tuple[str, ...]:
    with about("qos"):
        names = (qos,) if isinstance(qos, str) else tuple(qos)
    is_known = all(isinstance(name, str) and name in _QOS for name in names)
    if not names or not is_known or len(set(names)) < len(names):
        raise ValueError(f'qos must be "rt", "tp" or a sequence of both or one, got {qos!r}.')
    return names


def _recognise(folder: Folder) -> int:
    """Return the number of the data set in a folder, recognised by its files."""
    kinds = {1: _MATRIX_FILES, 2: _TRIPLE_FILES}
    found = [n for n, files in kinds.items() if any(find(folder, f) for f in files.values())]
    if not found:
        raise FileNotFoundError(
            f"{folder} contains no WS-DREAM data: rtMatrix.txt or tpMatrix.txt (data set 1), or "
            "rtdata.txt or tpdata.txt (data set 2, also with .gz) expected."
        )
    if len(found) > 1:
        raise ValueError(
            f"{folder} contains files of data sets 1 and 2; use a separate folder for each."
        )
    return found[0]


def _get(folder: Folder, name: str) -> File:
    path = find(folder, name)
    if path is None:
        raise FileNotFoundError(f"{folder / name} (or {name}.gz) is missing.")
    return path


# Data set 1 ---------------------------------------------------------------------------


def _load_matrices(
    folder: Folder, names: tuple[str, ...]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    paths = [_get(folder, _MATRIX_FILES[name]) for name in names]
    matrices = [_read_matrix(path) for path in paths]
    shape = matrices[0].shape
    for path, matrix in zip(paths, matrices, strict=True):
        if matrix.shape != shape:
            raise ValueError(
                f"{path.name}: {_by(shape)} values expected as in {paths[0].name}, "
                f"found {_by(matrix.shape)}."
            )
    users = _read_context(folder, _USER_LISTS, "user", shape[0], f"line of {paths[0].name}")
    services = _read_context(
        folder, _SERVICE_LISTS, "service", shape[1], f"column of {paths[0].name}"
    )
    return _matrices_to_frame(names, matrices), users, services


def _matrices_to_frame(names: tuple[str, ...], matrices: list[np.ndarray]) -> pd.DataFrame:
    measured = np.logical_or.reduce([matrix > 0 for matrix in matrices])
    user, service = np.nonzero(measured)
    values = {n: _or_nan(m[user, service]) for n, m in zip(names, matrices, strict=True)}
    return pd.DataFrame({"user": user, "service": service, **values})


def _or_nan(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, np.nan)


def _read_matrix(path: File) -> np.ndarray:
    matrix = _read_numbers(path, np.float64, _matrix_faults)
    if not _are_values(matrix).all():
        _raise_fault(path, _matrix_faults)
    _check_measured(path, matrix)
    return matrix


def _check_measured(path: File, values: np.ndarray) -> None:
    if not (values > 0).any():
        raise ValueError(
            f"{path.name}: at least one measured value expected, found {values.size:,} that are "
            "all missing (-1 or 0)."
        )


def _matrix_faults(lines: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, str]]:
    """Yield the line number and a description of each fault in a matrix."""
    first = width = 0
    for number, tokens in lines:
        if not width:
            first, width = number, len(tokens)
        if len(tokens) != width:
            yield (
                number,
                f"{width:,} values expected as in line {first}, found {len(tokens):,}",
            )
        for column, token in enumerate(tokens, start=1):
            if not _is_value(token):
                yield number, f"value {column:,}: {_VALUE_EXPECTED}, found {token[:40]!r}"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{n:,}" for n in shape)


# Data set 2 ---------------------------------------------------------------------------


def _load_triples(
    folder: Folder, names: tuple[str, ...]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    paths = [_get(folder, _TRIPLE_FILES[name]) for name in names]
    tables = [_read_triples(path) for path in paths]
    shape = tuple(int(max(t[column].max() for t in tables)) + 1 for column in range(3))
    if math.prod(shape) > np.iinfo(np.int64).max:
        raise ValueError(
            f"{', '.join(path.name for path in paths)}: consecutive ids from 0 on (user, service, "
            f"slot) expected, found up to {_by(shape)}."
        )
    # One integer per cell makes joining and sorting fast, even for millions of rows.
    columns = [_by_cell(p, t, shape) for p, t in zip(paths, tables, strict=True)]
    cells = sorted_unique(np.concatenate([cell for cell, _ in columns]))
    user, service, time = np.unravel_index(cells, shape)
    frame = pd.DataFrame({"user": user, "service": service, "time": time})
    for name, (cell, values) in zip(names, columns, strict=True):
        frame[name] = _spread(cell, values, cells)
    return frame, _empty_context("user", shape[0]), _empty_context("service", shape[1])


def _by_cell(
    path: File, table: pd.DataFrame, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ascending cell numbers of the measured values, and the values."""
    table = table[table[3] > 0]
    cell = np.ravel_multi_index([table[column].to_numpy() for column in range(3)], shape)
    values = table[3].to_numpy()
    if not (cell[1:] > cell[:-1]).all():
        order = np.argsort(cell, kind="stable")
        cell, values = cell[order], values[order]
        _check_no_repeat(path, cell, shape)
    return cell, values


def _check_no_repeat(path: File, cell: np.ndarray, shape: tuple[int, ...]) -> None:
    repeats = cell[1:][cell[1:] == cell[:-1]]
    if len(repeats):
        user, service, slot = np.unravel_index(repeats[0], shape)
        raise ValueError(
            f"{path.name}: one line per user, service and slot expected, found more than one "
            f"for user {user}, service {service}, slot {slot}."
        )


def _spread(cell: np.ndarray, values: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Distribute the values over all `cells`, with NaN for missing ones."""
    if len(cell) == len(cells):
        return values
    column = np.full(len(cells), np.nan)
    column[np.searchsorted(cells, cell)] = values
    return column


def _read_triples(path: File) -> pd.DataFrame:
    table = _read_numbers(path, _TRIPLE_DTYPES, _triple_faults)
    if table.shape[1] != 4 or (table[[0, 1, 2]] < 0).any(axis=None):
        _raise_fault(path, _triple_faults)
    if not _are_values(table[3].to_numpy()).all():
        _raise_fault(path, _triple_faults)
    _check_measured(path, table[3].to_numpy())
    return table


def _triple_faults(lines: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, str]]:
    """Yield the line number and a description of each fault in a list of measurements."""
    for number, tokens in lines:
        if len(tokens) != 4:
            yield (
                number,
                f"4 columns expected (user, service, slot, value), found {len(tokens):,}",
            )
            continue
        for name, token in zip(("user", "service", "slot"), tokens, strict=False):
            if not (token.isascii() and token.isdigit()):
                yield number, f"{name}: a non-negative integer expected, found {token[:40]!r}"
        if not _is_value(tokens[3]):
            yield number, f"value: {_VALUE_EXPECTED}, found {tokens[3][:40]!r}"


# Numbers and their errors -------------------------------------------------------------

_Faults = Callable[[Iterator[tuple[int, list[str]]]], Iterator[tuple[int, str]]]
_VALUE_EXPECTED = "a number that is not negative, or -1 for a missing one, expected"


def _read_numbers(path: File, dtype: type | dict, faults: _Faults) -> np.ndarray | pd.DataFrame:
    """Read numbers separated by blanks or tabs; search for a faulty line only after an error."""
    try:
        # Raised for numbers that are too large for the integer type.
        with open_bytes(path) as stream, np.errstate(invalid="raise"):
            table = pd.read_csv(
                stream,
                sep=r"\s+",
                header=None,
                dtype=dtype,
                na_filter=False,
                encoding=encoding_of(stream),
            )
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"{path.name}: numbers expected, found an empty file.") from error
    except DamagedFileError:
        raise
    except (ValueError, OverflowError, FloatingPointError) as error:
        _raise_fault(path, faults, error)
    return table if isinstance(dtype, dict) else table.to_numpy()


def _raise_fault(path: File, faults: _Faults, cause: Exception | None = None) -> NoReturn:
    number, fault = next(faults(_split_lines(path)), (None, f"not readable ({cause})"))
    where = path.name if number is None else f"{path.name}, line {number:,}"
    raise ValueError(f"{where}: {fault}.") from cause


def _split_lines(path: File) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(read_lines(path), start=1):
        if tokens := line.split():
            yield number, tokens


def _is_value(token: str) -> bool:
    try:
        return bool(_are_values(np.float64(token)))
    except ValueError:
        return False


def _are_values(values: np.ndarray | np.float64) -> np.ndarray:
    return ((values >= 0) & (values < np.inf)) | (values == -1)


# Context tables -----------------------------------------------------------------------


def _empty_context(entity: str, n: int) -> pd.DataFrame:
    return pd.DataFrame(index=pd.RangeIndex(n, name=entity))


def _read_context(
    folder: Folder, list_files: tuple[str, ...], entity: str, n: int, counted: str
) -> pd.DataFrame:
    """Join the columns of the list files of a folder; the first file with a column is used."""
    context = _empty_context(entity, n)
    for name in list_files:
        path = find(folder, name)
        if path is None:
            continue
        table = _read_list(path)
        if len(table) != n:
            raise ValueError(
                f"{path.name}: {n:,} {entity}s expected, one for each {counted}, "
                f"found {len(table):,}."
            )
        for column, values in _context_columns(path.name, table).items():
            if column not in context and values.notna().any():
                context[column] = values.set_axis(context.index)
    order = [column for column in _OUR_COLUMNS if column in context]
    return context[[*order, *context.columns.difference(order, sort=False)]]


def _read_list(path: File) -> pd.DataFrame:
    """Read a context list as strings; the index is the line number."""
    # Not split by str.splitlines, which also breaks lines at \x85, a latin-1 character.
    lines = read_text(path).split("\n")
    header = _read_header(path, lines[0])
    rows = {
        number: _split_row(path, number, line, len(header))
        for number, line in enumerate(lines[1:], start=2)
        if line.strip() and not line.startswith("===")
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=header)


def _read_header(path: File, line: str) -> list[str]:
    """Return the column names without brackets, known ones in lower case."""
    names = [_clean(name).strip("[] ") for name in line.rstrip().split("\t")]
    header = [name.lower() if _is_known(name) else name for name in names]
    # A single name means that the line is not separated by tabs.
    is_header = any(map(_is_known, names)) or (len(names) > 1 and not any(map(_is_data, names)))
    if not is_header or "" in header:
        raise ValueError(
            f"{path.name}, line 1: headers such as [IP Address] and [Country], separated by tabs, "
            f"expected, found {line.strip()[:60]!r}."
        )
    if repeated := [name for name in header if header.count(name) > 1]:
        raise ValueError(f"{path.name}, line 1: the header {repeated[0]!r} is there twice.")
    return header


def _is_known(header: str) -> bool:
    header = header.lower()
    return header in _USED_HEADERS or _UNUSED_HEADERS.fullmatch(header) is not None


def _is_data(field: str) -> bool:
    """Return whether a field is data, a number or an address, and not a header."""
    return re.match(r"[-+.]?\d|[a-z]+://", field) is not None


def _split_row(path: File, number: int, line: str, width: int) -> list[str]:
    fields = [_clean(field) for field in line.split("\t")]
    if len(fields) < width or any(fields[width:]):
        raise ValueError(
            f"{path.name}, line {number:,}: {width} columns expected as in line 1, "
            f"found {len(fields)}."
        )
    return fields[:width]


def _clean(text: str) -> str:
    """Trim, and merge repeated blanks, so that equal names have the same spelling."""
    return " ".join(text.split())


def _context_columns(file: str, table: pd.DataFrame) -> dict[str, pd.Series]:
    known = table.mask(table.apply(_is_unknown))
    columns = {
        name: known[header].astype("category")
        for name, header in _CATEGORICAL_HEADERS.items()
        if header in known
    }
    if _ADDRESS_HEADER in known:
        columns["wsdl"] = _last_of_path(known[_ADDRESS_HEADER]).astype("category")
    if _IP_HEADER in known:
        subnet = known[_IP_HEADER].str.extract(f"^{_IPV4.pattern}$", expand=False)
        columns["subnet"] = subnet.astype("category")
    for name, header in _COORDINATE_HEADERS.items():
        if header in known:
            columns[name] = _to_degrees(file, name, known[header])
    others = [header for header in known if not _is_known(header)]
    if taken := [header for header in others if header in columns]:
        raise ValueError(
            f"{file}, line 1: the header {taken[0]!r} is the name of a column that is read from "
            "another one. Rename it."
        )
    if others:
        warn_user(
            f"{file} has headers that are not known: {others}. The columns are kept as context "
            "under these names.",
        )
    return columns | {header: _numbers_or_names(known[header]) for header in others}


def _numbers_or_names(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    if np.isfinite(numbers[column.notna()]).all():
        return numbers
    return column.astype("category")


def _last_of_path(addresses: pd.Series) -> pd.Series:
    """Return "people.asmx" for "http://a.org/_vti_bin/People.asmx?WSDL"."""
    path = addresses.str.replace(r"^[a-z]+://|[?#].*$", "", case=False, regex=True)
    return path.str.extract(r"/([^/]+)/?$", expand=False).str.lower()


def _is_unknown(column: pd.Series) -> pd.Series:
    return column.str.lower().isin(_UNKNOWN)


def _to_degrees(file: str, name: str, column: pd.Series) -> pd.Series:
    degrees = pd.to_numeric(column, errors="coerce").astype(np.float64)
    wrong = ~np.isfinite(degrees) & column.notna()
    if wrong.any():
        line = wrong.idxmax()
        raise ValueError(
            f"{file}, line {line:,}: a {name} in degrees or null expected, found {column[line]!r}."
        )
    return degrees


# Fetching -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Archive:
    """Expected content of a published archive."""

    title: str
    folder: str
    url: str
    qos_files: Mapping[str, str]
    shape: tuple[int, ...]
    list_files: tuple[str, ...] = ()

    @property
    def members(self) -> tuple[str, ...]:
        return (*self.qos_files.values(), *self.list_files)


_ARCHIVES = {
    1: _Archive(
        title="WS-DREAM data set 1",
        folder="wsdream1",
        url="https://wsdream.github.io/dataset/wsdream_dataset1",
        qos_files=_MATRIX_FILES,
        shape=(339, 5825),
        list_files=("userlist.txt", "wslist.txt"),
    ),
    2: _Archive(
        title="WS-DREAM data set 2",
        folder="wsdream2",
        url="https://wsdream.github.io/dataset/wsdream_dataset2",
        qos_files=_TRIPLE_FILES,
        shape=(142, 4500, 64),
    ),
}
_OPTIONAL_MEMBERS = ("readme.txt",)


@validated(
    {
        "data_home": [str, os.PathLike, None],
        "url": [str, None],
        "sha256": [str, None],
        "n_retries": [Interval(Integral, 0, None, closed="left")],
        "delay": [Interval(Real, 0, None, closed="left")],
        "timeout": [Interval(Real, 0, None, closed="neither")],
    }
)
def fetch_wsdream(
    dataset: int,
    *,
    data_home: str | os.PathLike[str] | None = None,
    url: str | None = None,
    sha256: str | None = None,
    qos: str | Sequence[str] = "rt",
    n_retries: int = 3,
    delay: float = 1.0,
    timeout: float = 60.0,
) -> Bunch:
    """Load WS-DREAM data set 1 or 2, and download it if necessary.

    The files are kept in the folder ``wsdream1`` or ``wsdream2`` of the data home. If all required
    files exist there, from an earlier call or copied manually, nothing is downloaded. A download is
    checked completely before any of its files is kept, and existing files are never replaced.

    Parameters
    ----------
    dataset : {1, 2}
        Data set 1 has 339 users and 5,825 services; data set 2 has 142 users, 4,500 services and 64
        time slots.
    data_home : str or path-like, default=None
        Folder for downloaded data. If None, it is the value of the environment variable
        ``SKQOS_DATA_HOME``, or ``~/skqos_data``. It is created if it does not exist.
    url : str, default=None
        Address of the zip archive, or of an HTML page that contains a link to it with
        ``id="downloadlink"``. If None, it is the page published by the authors.
    sha256 : str, default=None
        Expected checksum of a downloaded archive, in hexadecimal digits. If None, it is not
        checked.
    qos : {"rt", "tp"} or sequence of them, default="rt"
        As in `load_wsdream`.
    n_retries : int, default=3
        Number of retries after a failed connection.
    delay : float, default=1.0
        Seconds before the first retry; doubled for each further retry.
    timeout : float, default=60.0
        Seconds without a response after which a connection has failed.

    Returns
    -------
    Bunch
        Result of `load_wsdream`.

    Raises
    ------
    OSError
        If the archive cannot be downloaded, or has an unexpected content. The message states which
        files to copy to which folder instead.
    ValueError
        If an argument is invalid, or an existing file is damaged.

    References
    ----------
    .. [1] Z. Zheng, Y. Zhang and M. R. Lyu, "Investigating QoS of Real-World Web
       Services", IEEE Transactions on Services Computing 7(1), 2014.

    Examples
    --------
    >>> from skqos.datasets import fetch_wsdream
    >>> data = fetch_wsdream(1, qos="tp")  # doctest: +SKIP
    >>> data.X.shape[1]  # doctest: +SKIP
    2
    """
    if not isinstance(dataset, Integral) or dataset not in _ARCHIVES:
        raise ValueError(f"dataset must be 1 or 2, got {dataset!r}.")
    archive = _ARCHIVES[dataset]
    home = _data_home(data_home)
    folder = home / archive.folder
    needed = [archive.qos_files[name] for name in _check_qos(qos)] + [*archive.list_files]
    if not all(find(folder, name) for name in needed):
        options = {"sha256": sha256, "n_retries": n_retries, "delay": delay, "timeout": timeout}
        try:
            _install(archive, home, url or archive.url, **options)
        except (OSError, HTTPException) as error:
            raise OSError(_by_hand(archive, folder, needed, error)) from error
    return load_wsdream(folder, qos)


def _data_home(data_home: str | os.PathLike[str] | None) -> Path:
    if data_home is None:
        data_home = os.environ.get("SKQOS_DATA_HOME") or "~/skqos_data"
    with about("data_home"):
        home = Path(data_home).expanduser()
        home.mkdir(parents=True, exist_ok=True)
    return home


def _by_hand(archive: _Archive, folder: Path, needed: list[str], error: Exception) -> str:
    reason = str(error).rstrip(".")
    return (
        f"{archive.title} could not be fetched: {reason}. To go on without a download, put "
        f"{', '.join(needed)} into {folder}; the next call finds them there."
    )


def _install(archive: _Archive, home: Path, url: str, **options: Any) -> None:
    """Download, unpack and check an archive, then move the missing files to the folder."""
    # In the same file system as the final folder, so that os.replace is atomic.
    with tempfile.TemporaryDirectory(prefix=f".{archive.folder}-", dir=home) as temporary:
        zip_path, unpacked = Path(temporary, "archive.zip"), Path(temporary, "unpacked")
        download_zip(url, zip_path, **options)
        unpack(zip_path, unpacked, required=archive.members, optional=_OPTIONAL_MEMBERS)
        try:
            _check_unpacked(archive, unpacked)
        except ValueError as error:
            raise OSError(f"{url} is not {archive.title}: {error}") from error
        _move_missing(unpacked, home / archive.folder)


def _move_missing(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for path in source.iterdir():
        if find(target, path.name) is None:
            os.replace(path, target / path.name)


def _check_unpacked(archive: _Archive, folder: Path) -> None:
    if archive.list_files:
        _check_matrices(archive, folder)
    else:
        _check_triples(archive, folder)


def _check_matrices(archive: _Archive, folder: Path) -> None:
    for name in archive.qos_files.values():
        shape = _read_matrix(folder / name).shape
        if shape != archive.shape:
            raise ValueError(f"{name}: {_by(archive.shape)} values expected, found {_by(shape)}.")
    for name, n in zip(archive.list_files, archive.shape, strict=True):
        found = len(_read_list(folder / name))
        if found != n:
            raise ValueError(f"{name}: {n:,} entries expected, found {found:,}.")


def _check_triples(archive: _Archive, folder: Path) -> None:
    for name in archive.qos_files.values():
        # One file at a time, because a complete one has about 30 million lines.
        largest = _read_triples(folder / name)[[0, 1, 2]].max().to_numpy()
        if (largest >= np.array(archive.shape)).any():
            raise ValueError(
                f"{name}: ids below {_by(archive.shape)} (user, service, slot) expected, "
                f"found up to {_by(tuple(largest))}."
            )
