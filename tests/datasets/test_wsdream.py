"""load_wsdream: what it reads, and what it says about files that are wrong."""

import codecs
import gzip
import re
import zipfile

import numpy as np
import pandas as pd
import pytest

from skqos.datasets import load_wsdream

RT = "0.5\t-1\t2.25\n-1\t0\t20.5\n"
TP = "10.125\t-1\t-1\n-1\t30\t0\n"
USERS = (
    "[User ID]\t[IP Address]\t[Country]\t[IP No.]\t[AS]\t[Latitude]\t[Longitude]\r\n"
    "=====\t\t\t\t\t\t\r\n"
    "0\t12.108.127.138\tUnited States\t1\tAS7018  AT&T \t38\t-97\r\n"
    "1\tnull\tnull\t0\tAS7018 AT&T\tnull\t\r\n"
)
SERVICES = (
    "[Service ID]\t[WSDL Address]\t[Service Provider]\t[IP Address]\t[Country]\t[AS]"
    "\t[Latitude]\t[Longitude]\r\n"
    "=====\t\t\t\t\t\t\t\r\n"
    '0\thttp://a/b/Foo.asmx?WSDL\ta.org\t8.23.224.110\tFran\xe7a\tAS1 "A\t1.5\t2.5\r\n'
    "7\thttp://b\tb.org\t8.23.1.1\tNone\tnull\t0\t0\r\n"
    "7\thttps://c:80/foo.ASMX/#x\ta.org\t9.1.1.1\tSp\x85in\tAS1 #B\t-1.5\t3\r\n"
)
SERVICES_2014 = (
    "[Service ID]\t[Country]\t[Continent]\t [Region]\t[City]\t[Latitude]\r\n"
    "=====\t\t\t\t\t\r\n"
    "0\tElsewhere\tEurope\tParis Region\t-\t77\r\n"
    "1\tElsewhere\tnull\tnull\tNone\t77\r\n"
    "2\tElsewhere\tEurope\tnull\tnull\t77\r\n"
)
SET1 = {"rtMatrix.txt": RT, "tpMatrix.txt": TP, "userlist.txt": USERS, "wslist.txt": SERVICES}


def write(folder, files):
    for name, text in files.items():
        data = text.encode("latin-1")
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def error_of(folder, qos="rt", kind=ValueError):
    with pytest.raises(kind) as caught:
        load_wsdream(folder, qos)
    return str(caught.value)


# Data set 1


def test_one_qos(tmp_path):
    data = load_wsdream(write(tmp_path, SET1))

    np.testing.assert_array_equal(data.X, [[0, 0], [0, 2], [1, 2]])
    assert data.X.dtype == np.int64
    np.testing.assert_array_equal(data.y, [0.5, 2.25, 20.5])
    assert data.y.dtype == np.float64
    assert data.qos_names == data.target_names == ["rt"]
    assert data.frame.columns.tolist() == ["user", "service", "rt"]
    np.testing.assert_array_equal(data.frame.to_numpy(), np.column_stack([data.X, data.y]))


def test_several_qos_come_as_columns_in_the_asked_order(tmp_path):
    data = load_wsdream(str(write(tmp_path, SET1)), ["tp", "rt"])

    np.testing.assert_array_equal(data.X, [[0, 0], [0, 2], [1, 1], [1, 2]])
    np.testing.assert_array_equal(
        data.y, [[10.125, 0.5], [np.nan, 2.25], [30, np.nan], [np.nan, 20.5]]
    )
    assert data.frame.columns.tolist() == ["user", "service", "tp", "rt"]


def test_a_sequence_of_one_qos_gives_a_2d_y(tmp_path):
    assert load_wsdream(write(tmp_path, SET1), ("tp",)).y.shape == (2, 1)


def test_arrays_are_the_callers_own(tmp_path):
    data = load_wsdream(write(tmp_path, SET1))
    data.X[:] = 7
    data.y[:] = 7.0
    assert data.frame["user"].tolist() == [0, 0, 1]
    assert data.frame["rt"].tolist() == [0.5, 2.25, 20.5]


def test_user_context(tmp_path):
    users = load_wsdream(write(tmp_path, SET1)).users

    assert users.index.tolist() == [0, 1]
    assert users.columns.tolist() == ["country", "as", "subnet", "latitude", "longitude"]
    assert users["as"].tolist() == ["AS7018 AT&T"] * 2
    assert users["country"].tolist()[0] == "United States"
    assert users["subnet"].tolist()[0] == "12.108"
    assert users[["country", "subnet", "latitude", "longitude"]].loc[1].isna().all()
    assert users.loc[0, ["latitude", "longitude"]].tolist() == [38.0, -97.0]
    assert (users.dtypes.iloc[:3] == "category").all()
    assert (users.dtypes.iloc[3:] == np.float64).all()


def test_the_position_of_a_row_is_its_id_and_latin1_is_kept(tmp_path):
    services = load_wsdream(write(tmp_path, SET1)).services

    assert services.index.tolist() == [0, 1, 2]
    assert services["provider"].tolist() == ["a.org", "b.org", "a.org"]
    assert services["wsdl"].tolist() == ["foo.asmx", np.nan, "foo.asmx"]
    assert services["wsdl"].dtype == "category"
    assert services["country"].astype(object).where(services["country"].notna(), None).tolist() == [
        "Fran\xe7a",
        None,
        "Sp in",  # \x85 is white space, yet no end of the line
    ]
    assert services.loc[[0, 2], "as"].tolist() == ['AS1 "A', "AS1 #B"]
    assert services["latitude"].tolist() == [1.5, 0.0, -1.5]


def test_the_2014_list_adds_only_what_the_current_one_lacks(tmp_path):
    write(tmp_path, SET1 | {"wslist_2014.txt": SERVICES_2014})
    services = load_wsdream(tmp_path).services

    assert services["continent"].notna().tolist() == [True, False, True]
    assert services["region"].astype(object)[0] == "Paris Region"
    assert services["region"].notna().tolist() == [True, False, False]
    assert "city" not in services  # not one is known
    assert "Elsewhere" not in services["country"].tolist()
    assert services["latitude"].max() == 1.5
    assert services.columns.tolist() == [
        "country",
        "continent",
        "as",
        "region",
        "provider",
        "wsdl",
        "subnet",
        "latitude",
        "longitude",
    ]


def test_a_current_list_may_have_the_columns_of_2014_in_any_order(tmp_path):
    users = "[City]\t[Country]\nOslo\tNorway\nRome\tItaly\n"
    table = load_wsdream(write(tmp_path, SET1 | {"userlist.txt": users})).users
    assert table["city"].tolist() == ["Oslo", "Rome"]
    assert table["country"].tolist() == ["Norway", "Italy"]


def test_the_2014_list_alone_is_enough(tmp_path):
    write(tmp_path, {"rtMatrix.txt": RT, "wslist_2014.txt": SERVICES_2014})
    assert load_wsdream(tmp_path).services["country"].tolist() == ["Elsewhere"] * 3


def test_without_lists_the_tables_have_only_the_index(tmp_path):
    data = load_wsdream(write(tmp_path, {"rtMatrix.txt": RT}))
    assert data.users.shape == (2, 0)
    assert data.services.shape == (3, 0)


@pytest.mark.parametrize(
    "text",
    [
        RT.replace("\n", "\t\n"),
        RT.replace("\n", "\r\n"),
        RT.replace("\t", " "),
        RT.strip(),
        RT + "\n",
    ],
    ids=["trailing tab", "Windows", "blanks", "no last line end", "blank line"],
)
def test_harmless_variants_of_a_matrix(tmp_path, text):
    np.testing.assert_array_equal(
        load_wsdream(write(tmp_path, {"rtMatrix.txt": text})).y, [0.5, 2.25, 20.5]
    )


def test_a_compressed_matrix(tmp_path):
    assert len(load_wsdream(write(tmp_path, {"rtMatrix.txt.gz": RT})).y) == 3


def test_terms_are_told(tmp_path):
    descr = load_wsdream(write(tmp_path, SET1)).DESCR
    assert "MIT" in descr
    assert "Zheng" in descr
    assert "WSPred" not in descr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n4 5\n", "rtMatrix.txt, line 2: 3 values expected as in line 1, found 2."),
        ("1 2 3\n\n4 5 6 7\n", "rtMatrix.txt, line 3: 3 values expected as in line 1, found 4."),
        ("1 2 3\n4 x5 6\n", "rtMatrix.txt, line 2: value 2: a number .* expected, found 'x5'."),
        ("1 2 3\n4 5 -2\n", "rtMatrix.txt, line 2: value 3: a number .* expected, found '-2'."),
        ("1 2 3\n4 nan 6\n", "rtMatrix.txt, line 2: value 2: .* found 'nan'."),
        ("1 inf 3\n4 5 6\n", "rtMatrix.txt, line 1: value 2: .* found 'inf'."),
        ("<html>404</html>\n", "rtMatrix.txt, line 1: value 1: .* found '<html>404</html>'."),
        ("", "rtMatrix.txt: numbers expected, found an empty file."),
    ],
)
def test_a_wrong_matrix_names_file_and_line(tmp_path, text, message):
    assert re.fullmatch(message, error_of(write(tmp_path, {"rtMatrix.txt": text})))


def test_large_numbers_in_messages_are_grouped(tmp_path):
    wide = "1\t" * 5824 + "1\n"
    text = wide * 16 + "1\t" * 3011 + "1\n" + wide
    assert error_of(write(tmp_path, {"rtMatrix.txt": text})) == (
        "rtMatrix.txt, line 17: 5,825 values expected as in line 1, found 3,012."
    )


def test_the_two_matrices_must_agree(tmp_path):
    write(tmp_path, SET1 | {"tpMatrix.txt": "1 2\n3 4\n"})
    assert error_of(tmp_path, ("rt", "tp")) == (
        "tpMatrix.txt: 2 x 3 values expected as in rtMatrix.txt, found 2 x 2."
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "userlist.txt",
            USERS + "2\t\t\t\t\t\t\r\n",
            "userlist.txt: 2 users expected, one for each line of rtMatrix.txt, found 3.",
        ),
        (
            "wslist.txt",
            SERVICES[: SERVICES.index("7\thttps://c")],
            "wslist.txt: 3 services expected, one for each column of rtMatrix.txt, found 2.",
        ),
        (
            "userlist.txt",
            USERS[: USERS.index("\tnull")],
            "userlist.txt, line 4: 7 columns expected as in line 1, found 1.",
        ),
        (
            "userlist.txt",
            USERS.replace("\t38\t", "\tnorth\t"),
            "userlist.txt, line 3: a latitude in degrees or null expected, found 'north'.",
        ),
        (
            "userlist.txt",
            RT,
            "userlist.txt, line 1: headers such as [IP Address] and [Country], separated by tabs, "
            "expected, found '0.5\\t-1\\t2.25'.",
        ),
    ],
)
def test_a_wrong_list_is_named(tmp_path, name, text, message):
    assert error_of(write(tmp_path, SET1 | {name: text})) == message


# Data set 2


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_triples(tmp_path, suffix):
    text = "0 0 1 0.5\n2 4 0 1.25\n2 4 3 20\n1 1 1 -1\n1 1 2 0\n"
    data = load_wsdream(write(tmp_path, {f"rtdata.txt{suffix}": text}))

    np.testing.assert_array_equal(data.X, [[0, 0, 1], [2, 4, 0], [2, 4, 3]])
    np.testing.assert_array_equal(data.y, [0.5, 1.25, 20])
    assert data.X.dtype == np.int64
    assert data.frame.columns.tolist() == ["user", "service", "time", "rt"]
    assert data.users.shape == (3, 0)
    assert data.services.shape == (5, 0)
    assert "WSPred" in data.DESCR
    assert "MIT" in data.DESCR


def test_triples_in_any_order_come_in_ascending_order(tmp_path):
    data = load_wsdream(write(tmp_path, {"rtdata.txt": "1 0 0 3\n0 2 1 2\n0 2 0 1\n"}))
    np.testing.assert_array_equal(data.X, [[0, 2, 0], [0, 2, 1], [1, 0, 0]])
    np.testing.assert_array_equal(data.y, [1, 2, 3])


def test_several_qos_of_triples_are_joined(tmp_path):
    files = {"rtdata.txt": "0 0 1 0.5\n2 4 0 1.5\n", "tpdata.txt.gz": "2 4 0 7\n0 9 9 8\n"}
    data = load_wsdream(write(tmp_path, files), ("rt", "tp"))

    np.testing.assert_array_equal(data.X, [[0, 0, 1], [0, 9, 9], [2, 4, 0]])
    np.testing.assert_array_equal(data.y, [[0.5, np.nan], [np.nan, 8], [1.5, 7]])
    assert data.services.shape == (10, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "0 0 1 0.5\n0 0 2\n",
            "line 2: 4 columns expected (user, service, slot, value), found 3.",
        ),
        (
            "0 0 1 0.5\n0 0 2 3 4\n",
            "line 2: 4 columns expected (user, service, slot, value), found 5.",
        ),
        ("0 0 0.5\n1 2 3\n", "line 1: 4 columns expected (user, service, slot, value), found 3."),
        ("0 1.5 1 2\n", "line 1: service: a non-negative integer expected, found '1.5'."),
        ("0 1 1 2\n0 1 -1 2\n", "line 2: slot: a non-negative integer expected, found '-1'."),
        (
            "0 1 1 2\n0 1 2 -20\n",
            "line 2: value: a number that is not negative, or -1 for a missing one, expected, "
            "found '-20'.",
        ),
        (
            "1 0 0 2\n0 3 5 2\n0 3 5 4\n",
            None,
        ),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_wrong_triples_name_file_and_line(tmp_path, text, message, suffix):
    expected = (
        f"rtdata.txt{suffix}: one line per user, service and slot expected, found more than one "
        "for user 0, service 3, slot 5."
        if message is None
        else f"rtdata.txt{suffix}, {message}"
    )
    assert error_of(write(tmp_path, {f"rtdata.txt{suffix}": text})) == expected


def test_a_truncated_gzip_file_is_named(tmp_path):
    rng = np.random.RandomState(0)
    rows = "".join(f"{u} {rng.randint(999)} 0 {rng.uniform():.3f}\n" for u in range(999))
    whole = gzip.compress(rows.encode())
    (tmp_path / "rtdata.txt.gz").write_bytes(whole[: len(whole) // 2])
    assert error_of(tmp_path).startswith("rtdata.txt.gz: not a complete gzip file (")


def test_text_named_gz_is_named(tmp_path):
    (tmp_path / "rtdata.txt.gz").write_text("0 0 1 0.5\n")
    assert error_of(tmp_path).startswith("rtdata.txt.gz: not a complete gzip file (")


# Which data set


@pytest.mark.parametrize("qos", ["RT", "", (), ("rt", "rt"), ("rt", "x"), "rttp"])
def test_an_unknown_qos(tmp_path, qos):
    assert error_of(write(tmp_path, SET1), qos).startswith("qos must be ")


def test_no_folder(tmp_path):
    assert "does not exist" in error_of(tmp_path / "nowhere", kind=FileNotFoundError)


def test_nothing_in_the_folder(tmp_path):
    message = error_of(tmp_path, kind=FileNotFoundError)
    assert "rtMatrix.txt" in message
    assert "rtdata.txt" in message


def test_the_asked_file_is_missing(tmp_path):
    write(tmp_path, {"rtMatrix.txt": RT})
    message = error_of(tmp_path, "tp", FileNotFoundError)
    assert f"{tmp_path / 'tpMatrix.txt'} (or tpMatrix.txt.gz) is missing." == message


def test_both_data_sets_in_one_folder(tmp_path):
    write(tmp_path, {"rtMatrix.txt": RT, "tpdata.txt": "0 0 0 1\n"})
    assert "use a separate folder for each" in error_of(tmp_path)


# Zip archives


def zipped(path, files, folder=""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            data = text.encode("latin-1")
            data = gzip.compress(data) if name.endswith(".gz") else data
            archive.writestr(f"{folder}{name}", data)
    return path


@pytest.mark.parametrize("folder", ["", "dataset1/", "data/dataset1/"])
def test_a_zip_archive_reads_as_its_folder(tmp_path, folder):
    expected = load_wsdream(write(tmp_path, SET1), ("rt", "tp"))
    files = SET1 | {"readme.txt": "hello"}
    data = load_wsdream(zipped(tmp_path / "data.zip", files, folder), ("rt", "tp"))
    np.testing.assert_array_equal(data.y, expected.y)
    pd.testing.assert_frame_equal(data.services, expected.services)


def test_compressed_triples_in_an_archive_that_macos_made(tmp_path):
    path = zipped(tmp_path / "data.zip", {"rtdata.txt.gz": "0 0 1 0.5\n"}, "set/")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/set/rtdata.txt.gz", b"")
    assert load_wsdream(path).X.tolist() == [[0, 0, 1]]


def test_wrong_archives_are_named(tmp_path):
    path = zipped(tmp_path / "data.zip", {"rtMatrix.txt": "1 x\n"}, "set/")
    assert error_of(path).startswith("rtMatrix.txt, line 1: value 2")
    assert "tpMatrix.txt (or tpMatrix.txt.gz) is missing" in error_of(path, "tp", FileNotFoundError)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/tpMatrix.txt", "1 2\n")
    assert "several folders: ['other', 'set']" in error_of(path)
    nothing = zipped(tmp_path / "nothing.zip", {"readme.txt": "hello"})
    assert "contains no WS-DREAM data" in error_of(nothing, kind=FileNotFoundError)
    (tmp_path / "text.zip").write_text("hello")
    assert "text.zip is neither a folder nor a zip archive" in error_of(tmp_path / "text.zip")


def test_a_damaged_archive_is_named(tmp_path):
    rng = np.random.RandomState(0)
    rows = "".join(f"{u} {rng.randint(999)} 0 {rng.uniform():.3f}\n" for u in range(999))
    path = zipped(tmp_path / "data.zip", {"rtdata.txt": rows})
    whole = bytearray(path.read_bytes())
    whole[3000:3040] = bytes(40)
    path.write_bytes(whole)
    assert error_of(path).startswith("rtdata.txt: not ")


# Byte-order marks

MARKED = {
    "utf-8": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "big-endian": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "utf-32": lambda text: text.encode("utf-32"),
    "mark ahead of latin-1": lambda text: codecs.BOM_UTF8 + text.encode("latin-1"),
}


@pytest.mark.parametrize("encode", MARKED.values(), ids=MARKED)
def test_a_byte_order_mark_in_any_file_of_set_1(tmp_path, encode):
    expected = load_wsdream(write(tmp_path, SET1), ("rt", "tp"))
    for name, text in SET1.items():
        (tmp_path / name).write_bytes(encode(text))
    data = load_wsdream(tmp_path, ("rt", "tp"))
    np.testing.assert_array_equal(data.y, expected.y)
    for side in ("users", "services"):
        pd.testing.assert_frame_equal(data[side], expected[side])


@pytest.mark.parametrize("encode", MARKED.values(), ids=MARKED)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_byte_order_mark_in_triples(tmp_path, encode, suffix):
    for text in ("0 0 1 0.5\r\n\r\n2 4 0 1.25\r\n", "0 0 1 0.5\n2 4 0 1.25 7\n"):
        data = encode(text)
        path = tmp_path / f"rtdata.txt{suffix}"
        path.write_bytes(gzip.compress(data) if suffix else data)
        if "7" in text:
            assert error_of(tmp_path).startswith(f"rtdata.txt{suffix}, line 2: 4 columns expected")
        else:
            assert load_wsdream(tmp_path).X.tolist() == [[0, 0, 1], [2, 4, 0]]


# Headers of one's own, and what is missing


def test_unknown_headers_warn_and_their_columns_stay(tmp_path):
    extra = USERS.replace("[Country]", "[Country]\t[ISP Name]\t[Bandwidth]\t[Empty]")
    extra = extra.replace("United States", "United States\tTelia \t3.5\t-")
    extra = extra.replace("null\tnull\t0", "null\tnull\tOrange\tunknown\t\t0")
    write(tmp_path, SET1 | {"userlist.txt": extra})
    with pytest.warns(UserWarning, match=r"userlist.txt .*\['ISP Name', 'Bandwidth', 'Empty'\]"):
        users = load_wsdream(tmp_path).users
    assert users.columns.tolist() == [
        *["country", "as", "subnet", "latitude", "longitude"],
        *["ISP Name", "Bandwidth"],
    ]
    assert users["ISP Name"].tolist() == ["Telia", "Orange"]
    assert isinstance(users["ISP Name"].dtype, pd.CategoricalDtype)
    np.testing.assert_array_equal(users["Bandwidth"], [3.5, np.nan])


def test_a_list_of_unknown_headers_only(tmp_path):
    write(tmp_path, SET1 | {"userlist.txt": "Nation\tTier\nJP\t1\nIT\t2\n"})
    with pytest.warns(UserWarning, match="'Nation', 'Tier'"):
        users = load_wsdream(tmp_path).users
    assert users["Nation"].tolist() == ["JP", "IT"]
    assert users["Tier"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (USERS.replace("[AS]", "[Country]"), "line 1: the header 'country' is there twice."),
        (USERS.replace("[AS]", ""), "line 1: headers such as"),
        (USERS.replace("[AS]", "subnet"), "line 1: the header 'subnet' is the name of a column"),
        (USERS.replace("\t38\t", "\tinf\t"), "line 3: a latitude in degrees or null expected"),
        (USERS.replace("\t-97", "\t-Infinity"), "line 3: a longitude in degrees or null expected"),
    ],
)
def test_wrong_headers_and_coordinates_are_named(tmp_path, text, message):
    error = error_of(write(tmp_path, SET1 | {"userlist.txt": text}))
    assert error.startswith(f"userlist.txt, {message}")


def test_headers_with_a_trailing_tab_and_a_compressed_list(tmp_path):
    expected = load_wsdream(write(tmp_path, SET1)).users
    (tmp_path / "userlist.txt").unlink()
    write(tmp_path, {"userlist.txt.gz": USERS.replace("\r\n", "\t\r\n")})
    pd.testing.assert_frame_equal(load_wsdream(tmp_path).users, expected)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rtMatrix.txt", "-1\t-1\n0\t-1.000e+00\n"),
        ("tpMatrix.txt.gz", "-1\n"),
        ("rtdata.txt", "0 0 1 -1\n3 4 2 0\n"),
    ],
)
def test_files_without_any_measured_value_raise(tmp_path, name, text):
    error = error_of(write(tmp_path, {name: text}), name[:2])
    assert error.startswith(f"{name}: at least one measured value expected")


@pytest.mark.parametrize("code", ["-1", "-1.0", "-1.000000000000000000e+00", "-01", "0.0", "-0"])
def test_missing_values_may_be_written_in_any_way(tmp_path, code):
    data = load_wsdream(write(tmp_path, {"rtMatrix.txt": RT.replace("-1", code)}))
    np.testing.assert_array_equal(data.y, [0.5, 2.25, 20.5])


def test_ids_that_count_nothing_are_named(tmp_path):
    text = f"0 0 1 0.5\n{10**18} 4 {10**15} 1.0\n"
    assert "rtdata.txt: consecutive ids from 0" in error_of(write(tmp_path, {"rtdata.txt": text}))


# The real files


@pytest.fixture(scope="module")
def set1(wsdream1_path):
    return load_wsdream(wsdream1_path, ("rt", "tp"))


def test_real_set_1_has_the_known_counts(set1):
    assert set1.users.shape[0] == 339
    assert set1.services.shape[0] == 5825
    assert np.isfinite(set1.y).sum(axis=0).tolist() == [188_242, 69_059]
    assert np.nanmin(set1.y) > 0
    assert np.nanmax(set1.y, axis=0).tolist() == [19.98, 1000.0]


def test_real_set_1_agrees_with_its_splits(set1, wsdream1_path):
    frame = set1.frame.set_index(["user", "service"])
    for name in ("rt", "tp"):
        split = pd.read_csv(
            wsdream1_path / "splits" / f"{name}_train_0.025.txt",
            sep="\t",
            names=["user", "service", "value"],
        )
        loaded = frame[name].loc[pd.MultiIndex.from_frame(split[["user", "service"]])]
        np.testing.assert_array_equal(loaded.to_numpy(), split["value"].to_numpy())


def test_real_set_1_has_its_context(set1):
    columns = ["country", "continent", "as", "region", "city", "subnet", "latitude", "longitude"]
    assert set1.users.columns.tolist() == columns
    assert set1.users.notna().all(axis=None)
    assert set1.services.columns.tolist() == [*columns[:5], "provider", "wsdl", *columns[5:]]
    known = set1.services.notna().sum()
    assert known[["country", "as", "subnet", "latitude"]].tolist() == [5825, 4613, 5008, 5004]
    level_3 = set1.services["as"].cat.categories.str.startswith("AS3356 ")
    assert level_3.sum() == 1
    assert not set1.services["region"].isin(["-", "None", "null"]).any()


@pytest.fixture(scope="module")
def set2(wsdream2_path):
    return load_wsdream(wsdream2_path)


def test_real_set_2_has_the_known_counts(set2):
    assert set2.X.shape == (6_036_155, 3)
    assert set2.X.max(axis=0).tolist() == [141, 4499, 63]
    assert set2.users.shape == (142, 0)
    assert set2.services.shape == (4500, 0)
    assert 0.091 < np.mean(set2.y == 20.0) < 0.093
    np.testing.assert_array_equal(set2.X[0], [0, 0, 1])
    np.testing.assert_array_equal(set2.X[-1], [141, 4499, 61])
    assert set2.y[[0, -1]].tolist() == [3.112, 0.28]
