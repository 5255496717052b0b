"""Fetching published weights, from a server on this machine that misbehaves in every way."""

from __future__ import annotations

import http.server
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from minidat.catalog import list_models
from minidat.checkpoints import load_model, published
from minidat.checkpoints.published import PUBLISHED_WEIGHTS, PublishedWeights, download
from minidat.errors import ConfigError, DownloadError
from minidat.models import create_model
from minidat.models.config import PUBLISHED_CONFIGS
from tests.checkpoint_files import save_authors_file, small_config


@dataclass
class Server:
    """What the server has and how it behaves; `ranges` are the Range headers it was sent."""

    content: bytes = b""
    url: str = ""
    ranges: list[str | None] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)  # bytes after which each of the next answers breaks off
    statuses: list[int] = field(default_factory=list)  # what the next answers are instead of the file
    ignores_range: bool = False
    tells_length: bool = True
    kind: str = "application/octet-stream"
    shift: int = 0  # answers from this far beside the range asked for
    changed: str | None = None  # when the file was changed last
    pause: float = 0.0  # seconds between one byte and the next
    silent: bool = False  # no answer at all

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.ranges.append(request.headers["Range"])
        if self.silent:
            time.sleep(3)
            return
        if self.statuses and self.statuses[0] < 400:
            request.send_response(self.statuses.pop(0))
            request.end_headers()
            return
        if self.statuses:
            request.send_error(self.statuses.pop(0))
            return
        if request.headers["If-Range"] is not None and self.changed not in (None, request.headers["If-Range"]):
            del request.headers["Range"]
        match = re.fullmatch(r"bytes=(\d+)-", request.headers["Range"] or "")
        start = int(match[1]) if match and not self.ignores_range else None
        if start is not None and start >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if start is not None:
            start = max(0, start + self.shift)
        body = self.content[start or 0 :]
        request.send_response(200 if start is None else 206)
        if start is not None:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        request.send_header("Content-Type", self.kind)
        if self.changed is not None:
            request.send_header("Last-Modified", self.changed)
        if self.tells_length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        for i in range(len(body) if self.pause else 0):
            try:
                request.wfile.write(body[i : i + 1])
            except OSError:
                return
            time.sleep(self.pause)
        request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)
        request.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves a file that, on this test's authority, is the published model "small"."""
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{listener.server_address[1]}/small.pth"
    monkeypatch.setattr(published, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(published, "CHUNK_BYTES", 1000)
    monkeypatch.setitem(PUBLISHED_CONFIGS, "small", small_config())
    monkeypatch.setitem(PUBLISHED_WEIGHTS, "small", PublishedWeights(state.url, 50.0))
    yield state
    listener.shutdown()
    listener.server_close()
    thread.join()


@pytest.fixture
def served(server: Server, tmp_path: Path) -> Server:
    """A server that has the file."""
    server.content = save_authors_file(tmp_path / "original.pth", create_model(small_config(), seed=1)).read_bytes()
    (tmp_path / "original.pth").unlink()
    return server


def error_of(destination: Path, url: str | None = None) -> str:
    with pytest.raises(DownloadError) as caught:
        download("small", destination, url=url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- it works ---------------------------------------------------------------------------------------------------------


def test_a_file_arrives(served: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = download("small", tmp_path / "x.pth", progress=lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "x.pth"
    assert path.read_bytes() == served.content
    assert names(tmp_path) == ["x.pth"]
    size = len(served.content)
    assert seen == [(min(1000 * i, size), size) for i in range(1, -(-size // 1000) + 1)]
    assert served.ranges == [None]


def test_a_destination_in_our_format(served: Server, tmp_path: Path) -> None:
    download("small", tmp_path / "x.npz")
    loaded, model = load_model(tmp_path / "x.npz"), create_model(small_config(), seed=1)
    assert loaded.config == model.config
    np.testing.assert_array_equal(loaded.state_dict()["head.weight"], model.state_dict()["head.weight"])
    assert names(tmp_path) == ["x.npz"]


def test_another_address(served: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED_WEIGHTS, "small", PublishedWeights("http://127.0.0.1:9/", 50.0))
    download("small", tmp_path / "x.pth", url=served.url)
    assert names(tmp_path) == ["x.pth"]


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_server_that_breaks_off_again_and_again(served: Server, tmp_path: Path, tells_length: bool) -> None:
    """Each attempt goes on where the last one stopped, many times, as long as something comes."""
    served.cuts = [5000] * 9
    assert download("small", tmp_path / "x.pth").read_bytes() == served.content
    assert served.ranges == [None, *(f"bytes={5000 * i}-" for i in range(1, 10))]


def test_an_interrupted_download_goes_on_later(served: Server, tmp_path: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        if done >= 40_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download("small", tmp_path / "x.pth", progress=interrupt)
    assert names(tmp_path) == ["x.pth.part"]
    assert (tmp_path / "x.pth.part").stat().st_size == 40_000
    assert download("small", tmp_path / "x.pth").read_bytes() == served.content
    assert served.ranges == [None, "bytes=40000-"]


def test_a_server_that_ignores_the_range(served: Server, tmp_path: Path) -> None:
    served.ignores_range = True
    served.cuts = [5000, 7000]
    seen: list[int] = []
    path = download("small", tmp_path / "x.pth", progress=lambda done, total: seen.append(done))
    assert path.read_bytes() == served.content
    assert served.ranges == [None, "bytes=5000-", "bytes=7000-"]
    assert seen[5:12] == [1000, 2000, 3000, 4000, 5000, 6000, 7000]  # from the beginning again


def test_a_server_that_sends_another_range(served: Server, tmp_path: Path) -> None:
    served.cuts = [5000]
    served.shift = 7
    assert download("small", tmp_path / "x.pth").read_bytes() == served.content
    assert served.ranges == [None, "bytes=5000-", None]


def test_all_is_there_already(served: Server, tmp_path: Path) -> None:
    (tmp_path / "x.pth.part").write_bytes(served.content)
    assert download("small", tmp_path / "x.pth").read_bytes() == served.content
    assert served.ranges == [f"bytes={len(served.content)}-"]
    assert names(tmp_path) == ["x.pth"]


def test_more_is_there_than_the_server_has(served: Server, tmp_path: Path) -> None:
    (tmp_path / "x.pth.part").write_bytes(served.content + b"more")
    assert download("small", tmp_path / "x.pth").read_bytes() == served.content


def test_a_server_in_trouble_for_a_moment(served: Server, tmp_path: Path) -> None:
    served.statuses = [503, 500]
    assert download("small", tmp_path / "x.pth").read_bytes() == served.content


def test_a_server_that_does_not_tell_the_length(served: Server, tmp_path: Path) -> None:
    served.tells_length = False
    totals: set[int | None] = set()
    path = download("small", tmp_path / "x.pth", progress=lambda done, total: totals.add(total))
    assert path.read_bytes() == served.content
    assert totals == {None}


# --- it does not ------------------------------------------------------------------------------------------------------


def test_truncated_for_good(served: Server, tmp_path: Path) -> None:
    size = len(served.content)
    served.cuts = [5000, 0, 0, 0, 0]
    assert error_of(tmp_path / "x.pth") == (
        f"{served.url}: the transfer broke off after 5,000 of {size:,} bytes; "
        "run the same again later to go on after 5,000 bytes"
    )
    assert names(tmp_path) == ["x.pth.part"]
    assert download("small", tmp_path / "x.pth").read_bytes() == served.content


def test_truncated_without_a_length(served: Server, tmp_path: Path) -> None:
    """Nothing but the content tells then, so it starts from nothing next time."""
    served.tells_length = False
    served.cuts = [50_000]
    message = error_of(tmp_path / "x.pth")
    assert message.startswith(
        f"{served.url}: what came are not the weights of small: {tmp_path / 'x.pth.part'}: a cut-off"
    )
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("text/html; charset=utf-8", b"Please log in to download"),
        ("application/octet-stream", b"\n<!DOCTYPE html><html>Please log in to download</html>"),
    ],
)
def test_a_web_page_instead_of_a_file(server: Server, tmp_path: Path, kind: str, content: bytes) -> None:
    server.content, server.kind = content, kind
    assert error_of(tmp_path / "x.pth") == (
        f"{server.url}: a web page came instead of a file: open the address in a browser, save the file from there, "
        "and give it to minidat convert"
    )
    assert names(tmp_path) == []


def test_no_such_page(server: Server, tmp_path: Path) -> None:
    server.statuses = [404]
    assert error_of(tmp_path / "x.pth") == (
        f"{server.url}: the server answers 404 Not Found, expected a file: check the address"
    )


def test_a_server_in_trouble(server: Server, tmp_path: Path) -> None:
    server.statuses = [503] * 10
    assert error_of(tmp_path / "x.pth") == (
        f"{server.url}: the server answers 503 Service Unavailable; run the same again later to go on after 0 bytes"
    )
    assert len(server.ranges) == published.FRUITLESS_ATTEMPTS


def test_no_server(server: Server, tmp_path: Path) -> None:
    message = error_of(tmp_path / "x.pth", url="http://127.0.0.1:9/x.pth")
    assert message.startswith("http://127.0.0.1:9/x.pth: the server cannot be reached ([Errno 111] Connection refused")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/x", "x.pth"])
def test_other_kinds_of_addresses(server: Server, tmp_path: Path, url: str) -> None:
    assert error_of(tmp_path / "x.pth", url=url) == (
        f"{url}: found another kind of address, expected one with http:// or https://"
    )


def test_a_broken_address(server: Server, tmp_path: Path) -> None:
    message = error_of(tmp_path / "x.pth", url="http://127.0.0.1:port/x.pth")
    assert message.startswith("http://127.0.0.1:port/x.pth: not an address that can be fetched: nonnumeric port")


def test_the_weights_of_another_model(server: Server, tmp_path: Path) -> None:
    model, expected = create_model(small_config(num_classes=5)), create_model(small_config())
    server.content = save_authors_file(tmp_path / "y.pth", model).read_bytes()
    (tmp_path / "y.pth").unlink()
    assert error_of(tmp_path / "x.pth") == (
        f"{server.url}: what came are not the weights of small: a model with 5 classes for images of 32 x 32 pixels "
        f"and {model.parameter_count():,} parameters, expected 3, 32 x 32 and {expected.parameter_count():,}"
    )
    assert names(tmp_path) == []


def test_a_damaged_file_is_fetched_anew(served: Server, tmp_path: Path) -> None:
    """What is left of another file, or was damaged on the way, must not be kept as a beginning."""
    (tmp_path / "x.pth.part").write_bytes(b"PK of another file" * 3000)
    assert "what came are not the weights of small" in error_of(tmp_path / "x.pth")
    assert names(tmp_path) == []
    assert download("small", tmp_path / "x.pth").read_bytes() == served.content


def test_a_file_without_end(served: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "MAX_FILE_BYTES_PER_PARAMETER", 1)
    limit = create_model(small_config()).parameter_count()
    assert error_of(tmp_path / "x.pth") == (
        f"{served.url}: a file of {len(served.content):,} bytes, expected at most {limit:,}"
    )


@pytest.mark.parametrize("status", [200, 204])
def test_an_empty_answer(server: Server, tmp_path: Path, status: int) -> None:
    server.statuses = [status]
    assert error_of(tmp_path / "x.pth") == (
        f"{server.url}: the server answers {status} with nothing, expected a file: check the address"
    )
    assert names(tmp_path) == []


def test_no_range_though_none_was_asked_for(server: Server, tmp_path: Path) -> None:
    server.statuses = [416]
    assert "the server answers 416 " in error_of(tmp_path / "x.pth")


def test_another_part_though_all_was_asked_for(served: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "_position", lambda response, wanted: (7, None))
    assert "the server sent another part of the file than it was asked for" in error_of(tmp_path / "x.pth")


def test_a_part_that_is_a_link_is_not_followed(served: Server, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"precious")
    (tmp_path / "x.pth.part").symlink_to(tmp_path / "other")
    assert error_of(tmp_path / "x.pth").startswith(f"{tmp_path / 'x.pth.part'}: not a regular file, expected")
    assert (tmp_path / "other").read_bytes() == b"precious"


def test_a_part_that_is_a_fifo(served: Server, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pth.part")
    assert "x.pth.part: not a regular file" in error_of(tmp_path / "x.pth")


@pytest.mark.parametrize("changes", [True, False])
def test_a_file_that_changes_between_two_attempts(served: Server, tmp_path: Path, changes: bool) -> None:
    """If-Range asks for the rest of the same file, or else for all of the new one."""
    served.changed = "Wed, 21 Oct 2015 07:28:00 GMT"
    original = served.content

    def interrupt(done: int, total: int | None) -> None:
        if done >= 40_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download("small", tmp_path / "x.pth", progress=interrupt)
    if changes:
        served.content = save_authors_file(tmp_path / "y.pth", create_model(small_config(), seed=2)).read_bytes()
        served.changed = "Thu, 22 Oct 2015 07:28:00 GMT"
    assert download("small", tmp_path / "x.pth").read_bytes() == served.content
    assert (served.content != original) == changes
    assert served.ranges == [None, "bytes=40000-"]


def test_a_transfer_that_trickles(served: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "STALL_SECONDS", 0.2)
    served.pause = 0.01
    assert "the transfer has nearly stopped" in error_of(tmp_path / "x.pth")


def test_a_server_that_never_answers(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "TIMEOUT_SECONDS", 0.05)
    server.silent = True
    assert "the server cannot be reached (" in error_of(tmp_path / "x.pth")


@pytest.mark.parametrize("length", [246, 251, 255])
def test_a_destination_with_a_long_name(served: Server, tmp_path: Path, length: int) -> None:
    path = tmp_path / ("n" * (length - 4) + ".pth")
    assert download("small", path).read_bytes() == served.content
    assert names(tmp_path) == [path.name]


def test_places_that_cannot_be_written(served: Server, tmp_path: Path) -> None:
    assert error_of(tmp_path) == f"{tmp_path}: a folder, expected the name of a file to write"
    assert (
        error_of(tmp_path / "no" / "x.pth")
        == f"{tmp_path / 'no' / 'x.pth'}: cannot be written: No such file or directory"
    )


def test_other_weights_of_a_model(served: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED_WEIGHTS, "small_1x", PublishedWeights(served.url, 40.0, model="small"))
    path = download("small_1x", tmp_path / "x.npz")
    assert load_model(path).config == small_config()
    with pytest.raises(ConfigError, match="model name: found 'small_2x'"):
        download("small_2x", path, url=served.url)


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model name: found 'resnet', expected one of dat_tiny, "):
        download("resnet", tmp_path / "x.pth")
    with pytest.raises(ConfigError) as caught:
        download("datplus_tiny", tmp_path / "x.pth")
    assert str(caught.value) == (
        "model name: no weights of datplus_tiny are published, expected one of " + ", ".join(PUBLISHED_WEIGHTS)
    )


def test_the_table_names_published_models_only() -> None:
    models = [entry.model or name for name, entry in PUBLISHED_WEIGHTS.items()]
    assert [name for name in list_models() if name in PUBLISHED_WEIGHTS] == list(dict.fromkeys(models))
    others = {name: entry.model for name, entry in PUBLISHED_WEIGHTS.items() if entry.model}
    assert all(name == f"{model}_1x" for name, model in others.items())
    assert len({entry.url for entry in PUBLISHED_WEIGHTS.values()}) == len(PUBLISHED_WEIGHTS)
    for entry in PUBLISHED_WEIGHTS.values():
        assert entry.url.endswith("/?dl=1")
        assert [entry.top1, entry.mean_iou, entry.box_ap].count(None) == 2
        assert 80 < (entry.top1 or 82) < 87
        assert 48 < (entry.mean_iou or 49) < 52
