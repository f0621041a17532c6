"""fetch_wsdream against a server on this machine: what it keeps, and what it refuses."""

import hashlib
import http.server
import io
import os
import socket
import tempfile
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from skqos.datasets import fetch_wsdream, wsdream

FILES = {
    "rtMatrix.txt": "0.5\t-1\t2.25\n-1\t0\t20.5\n",
    "tpMatrix.txt": "10\t-1\t-1\n-1\t30\t0\n",
    "userlist.txt": "[User ID]\t[Country]\n===\t\n0\tItaly\n1\tSpain\n",
    "wslist.txt": "[Service ID]\t[Country]\n===\t\n0\tItaly\n1\tnull\n2\tPeru\n",
    "readme.txt": "Read me.",
}
FILES_2 = {"rtdata.txt": "0 0 0 0.5\n1 2 3 1.5\n", "tpdata.txt": "0 0 0 9\n"}
PUBLISHED = dict(wsdream._ARCHIVES)


def make_zip(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the server's next planned answer for a path, the last one for ever."""

    def do_GET(self):
        self.server.requests.append(self.path)
        answers = self.server.answers.get(self.path, [(404, b"", 0)])
        status, body, cut = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 302:
            self.send_header("Location", body.decode())
        self.end_headers()
        self.wfile.write(body[: len(body) - cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answers, server.requests = {}, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _small_archives(monkeypatch):
    small = {1: (2, 3), 2: (2, 3, 4)}
    for number, shape in small.items():
        archive = replace(wsdream._ARCHIVES[number], shape=shape, url="http://127.0.0.1:1/none")
        monkeypatch.setitem(wsdream._ARCHIVES, number, archive)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def fetch(server, home, path="/data.zip", dataset=1, **kwargs):
    options = {"n_retries": 0, "delay": 0.0, "timeout": 5.0} | kwargs
    return fetch_wsdream(dataset, data_home=home, url=server.url + path, **options)


def refusal(server, home, **kwargs):
    """Fetch in vain; check that nothing is left behind; return the message."""
    before = contents(home)
    with pytest.raises(OSError, match="could not be fetched") as caught:
        fetch(server, home, **kwargs)
    assert contents(home) == before
    return str(caught.value)


def contents(home):
    return {str(p.relative_to(home)): p.read_bytes() for p in home.rglob("*") if p.is_file()}


def test_the_package_knows_the_published_archives():
    first, second = PUBLISHED[1], PUBLISHED[2]
    assert first.url == "https://wsdream.github.io/dataset/wsdream_dataset1"
    assert second.url == "https://wsdream.github.io/dataset/wsdream_dataset2"
    assert (first.shape, second.shape) == ((339, 5825), (142, 4500, 64))
    assert first.members == ("rtMatrix.txt", "tpMatrix.txt", "userlist.txt", "wslist.txt")
    assert second.members == ("rtdata.txt", "tpdata.txt")


def test_a_zip_is_fetched_once(server, tmp_path):
    server.answers["/data.zip"] = [(200, make_zip(FILES), 0)]

    data = fetch(server, tmp_path)
    np.testing.assert_array_equal(data.y, [0.5, 2.25, 20.5])
    assert data.users["country"].tolist() == ["Italy", "Spain"]
    assert set(contents(tmp_path)) == {f"wsdream1/{name}" for name in FILES}

    again = fetch(server, tmp_path, qos=("rt", "tp"))
    assert again.y.shape == (4, 2)
    assert server.requests == ["/data.zip"]


def test_set_2(server, tmp_path):
    server.answers["/data.zip"] = [(200, make_zip(FILES_2), 0)]
    data = fetch(server, tmp_path, dataset=2, qos=("rt", "tp"))
    np.testing.assert_array_equal(data.X, [[0, 0, 0], [1, 2, 3]])
    assert set(contents(tmp_path)) == {"wsdream2/rtdata.txt", "wsdream2/tpdata.txt"}


@pytest.mark.parametrize(
    "href", ["files/data%20set.zip", "files/data set.zip", "{url}/dataset/files/data%20set.zip"]
)
def test_a_page_is_followed_to_its_download_link(server, tmp_path, href):
    href = href.format(url=server.url)
    page = f'<html><a href="/no">x</a><p><A id="downloadlink" HREF="{href}">Get &amp; go</a>'
    server.answers["/page"] = [(302, b"/dataset/page", 0)]
    server.answers["/dataset/page"] = [(200, page.encode(), 0)]
    server.answers["/dataset/files/data%20set.zip"] = [(200, make_zip(FILES), 0)]
    assert len(fetch(server, tmp_path, path="/page").y) == 3


def test_files_may_lie_in_a_folder_of_the_archive(server, tmp_path):
    nested = {f"data/set1/{name}": text for name, text in FILES.items()}
    nested["__MACOSX/rtMatrix.txt"] = "junk"
    nested["other.txt"] = "junk"
    server.answers["/data.zip"] = [(200, make_zip(nested), 0)]
    assert len(fetch(server, tmp_path).y) == 3
    assert set(contents(tmp_path)) == {f"wsdream1/{name}" for name in FILES}


def test_a_checksum_is_verified(server, tmp_path):
    body = make_zip(FILES)
    server.answers["/data.zip"] = [(200, body, 0)]
    digest = hashlib.sha256(body).hexdigest()

    message = refusal(server, tmp_path, sha256="0" * 64)
    assert digest in message
    assert len(fetch(server, tmp_path, sha256=digest.upper()).y) == 3


def test_a_call_after_a_broken_download_works(server, tmp_path):
    body = make_zip(FILES)
    server.answers["/data.zip"] = [(200, body, 100), (200, body, 0)]

    message = refusal(server, tmp_path)
    assert f"the connection broke after {len(body) - 100:,} of {len(body):,} bytes" in message
    assert len(fetch(server, tmp_path).y) == 3


def test_a_broken_connection_is_tried_again(server, tmp_path):
    body = make_zip(FILES)
    server.answers["/data.zip"] = [(200, body, 100), (503, b"", 0), (200, body, 0)]
    with pytest.warns(UserWarning, match="Retry downloading") as caught:
        data = fetch(server, tmp_path, n_retries=2)
    assert len(caught) == 2
    assert len(data.y) == 3


def test_a_missing_page_is_not_tried_again(server, tmp_path):
    assert "404" in refusal(server, tmp_path, path="/none", n_retries=3)
    assert server.requests == ["/none"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html><a href='x.zip'>no id</a></html>", "neither a zip archive nor a page"),
        (b"", "neither a zip archive nor a page"),
        (b"<a id='downloadlink'>no address</a>", "neither a zip archive nor a page"),
        (b"<a id='downloadlink' href='/page'>round</a>", "not a complete zip archive"),
        (b"<a id='downloadlink' href='/gone.zip'>gone</a>", "404"),
        (b"<a id='downloadlink' href='javascript:x'>odd</a>", "unknown url type"),
        (make_zip(FILES)[:-30], "not a complete zip archive"),
    ],
)
def test_no_archive(server, tmp_path, body, reason):
    server.answers["/page"] = [(200, body, 0)]
    assert reason in refusal(server, tmp_path, path="/page")


def corrupt(body):
    """Flip a byte of the first member's compressed data."""
    at = body.index(b"rtMatrix.txt") + len("rtMatrix.txt") + 2
    return body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (corrupt(make_zip(FILES)), "The zip archive is damaged"),
        (make_zip({"rtMatrix.txt": "1\n"}), "does not contain tpMatrix.txt, userlist.txt, wslist"),
        (
            make_zip({f"{i}/{name}": text for i, (name, text) in enumerate(FILES.items())}),
            "has no folder with all of rtMatrix.txt",
        ),
        (make_zip(FILES | {"../evil.txt": "x"}), "'../evil.txt' is outside the folder"),
        (make_zip(FILES | {"/evil.txt": "x"}), "'/evil.txt' is outside the folder"),
        (make_zip(FILES | {"a\\..\\..\\evil": "x"}), "is outside the folder"),
        (make_zip(FILES | {"C:evil": "x"}), "'C:evil' is outside the folder"),
        (
            make_zip(FILES | {"tpMatrix.txt": "1 2\n3 4\n"}),
            "is not WS-DREAM data set 1: tpMatrix.txt: 2 x 3 values expected, found 2 x 2.",
        ),
        (
            make_zip(FILES | {"rtMatrix.txt": "1 2 3\n4 5\n"}),
            "rtMatrix.txt, line 2: 3 values expected as in line 1, found 2.",
        ),
        (
            make_zip(FILES | {"wslist.txt": "[Country]\nItaly\n"}),
            "wslist.txt: 3 entries expected, found 1.",
        ),
        (make_zip(FILES | {"userlist.txt": "x\n1\n2\n"}), "userlist.txt, line 1: headers such as"),
    ],
)
def test_a_wrong_archive_is_refused(server, tmp_path, body, reason):
    server.answers["/data.zip"] = [(200, body, 0)]
    assert reason in refusal(server, tmp_path)
    assert not (tmp_path.parent / "evil.txt").exists()


def test_a_wrong_archive_of_set_2_is_refused(server, tmp_path):
    server.answers["/data.zip"] = [(200, make_zip(FILES_2 | {"tpdata.txt": "0 3 0 9\n"}), 0)]
    assert (
        "tpdata.txt: ids below 2 x 3 x 4 (user, service, slot) expected, found up to 0 x 3 x 0."
        in refusal(server, tmp_path, dataset=2)
    )


def test_files_that_lie_there_are_kept(server, tmp_path):
    folder = tmp_path / "wsdream1"
    folder.mkdir()
    (folder / "rtMatrix.txt").write_text("1 2 3\n4 5 6\n")
    (folder / "userlist_2014.txt").write_text("[Country]\t[City]\nx\tRome\ny\tOslo\n")
    server.answers["/data.zip"] = [(200, make_zip(FILES), 50), (200, make_zip(FILES), 0)]

    refusal(server, tmp_path)
    data = fetch(server, tmp_path, qos=("rt", "tp"))
    np.testing.assert_array_equal(data.y[:, 0], [1, 2, 3, 4, 5, 6])
    assert data.users["city"].tolist() == ["Rome", "Oslo"]


@pytest.fixture
def closed_port():
    """The address of a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def test_offline_the_message_tells_how_to_go_on_by_hand(closed_port, tmp_path):
    options = {"data_home": tmp_path, "url": closed_port, "n_retries": 0}
    with pytest.raises(OSError, match="could not be fetched") as caught:
        fetch_wsdream(1, qos="tp", **options)
    assert f"put tpMatrix.txt, userlist.txt, wslist.txt into {tmp_path / 'wsdream1'};" in str(
        caught.value
    )

    (tmp_path / "wsdream1").mkdir()
    for name in ("tpMatrix.txt", "userlist.txt", "wslist.txt"):
        (tmp_path / "wsdream1" / name).write_text(FILES[name])
    assert len(fetch_wsdream(1, qos="tp", **options).y) == 2
    with pytest.raises(OSError, match="could not be fetched"):
        fetch_wsdream(1, qos="rt", **options)


def test_a_silent_server_times_out(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(OSError, match="timed out"):
            fetch_wsdream(1, data_home=tmp_path, url=url, n_retries=0, timeout=0.2)


def test_a_full_disk_leaves_nothing_behind(server, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    server.answers["/data.zip"] = [(200, make_zip(FILES), 0)]
    with monkeypatch.context() as patch:
        patch.setattr("skqos.datasets._download._extract", fail)
        assert "No space left" in refusal(server, tmp_path, n_retries=3)
    assert len(fetch(server, tmp_path).y) == 3


def test_a_fetch_that_was_killed_is_completed_by_the_next(server, tmp_path, monkeypatch):
    """Killed between two files, it leaves one of them, whole, and its working folder."""
    server.answers["/data.zip"] = [(200, make_zip(FILES), 0)]
    replace_file = os.replace

    def replace_one(*names):
        replace_file(*names)
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(wsdream.os, "replace", replace_one)
        killed.setattr(
            tempfile.TemporaryDirectory, "cleanup", lambda self: self._finalizer.detach()
        )
        with pytest.raises(KeyboardInterrupt):
            fetch(server, tmp_path)
    (left,) = (tmp_path / "wsdream1").iterdir()
    assert left.read_text() == FILES[left.name]
    assert list(tmp_path.glob(".wsdream1-*"))

    fetch(server, tmp_path)
    found = {path.name: path.read_text() for path in (tmp_path / "wsdream1").iterdir()}
    assert found == FILES


def test_data_home_by_environment_and_default(monkeypatch, tmp_path):
    monkeypatch.setenv("SKQOS_DATA_HOME", str(tmp_path / "a" / "b"))
    assert wsdream._data_home(None) == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()
    monkeypatch.delenv("SKQOS_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wsdream._data_home(None) == tmp_path / "skqos_data"
    assert wsdream._data_home("~/c") == tmp_path / "c"


@pytest.mark.parametrize("dataset", [0, 3, "1", None])
def test_an_unknown_data_set(tmp_path, dataset):
    with pytest.raises(ValueError, match="dataset must be 1 or 2"):
        fetch_wsdream(dataset, data_home=tmp_path)


def test_a_wrong_qos_downloads_nothing(server, tmp_path):
    with pytest.raises(ValueError, match="qos must be"):
        fetch(server, tmp_path, qos="x")
    assert server.requests == []


def test_a_url_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="unknown url type"):
        fetch_wsdream(1, data_home=tmp_path, url="wsdream.zip")
