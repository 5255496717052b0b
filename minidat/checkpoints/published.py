"""Where the authors publish their weights, what quality they report, and how to fetch a file and be sure of it."""

from __future__ import annotations

import os
import queue
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..catalog import FAMILIES, family_of, get_config
from ..errors import CheckpointError, ConfigError, DownloadError
from ..files.atomic import LONGEST_NAME, beside
from .archive import PathLike, one_line
from .load import build_model, read_checkpoint
from .npz import save_npz

Progress = Callable[[int, int | None], None]

CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = 30
STALL_SECONDS = 30
STALL_BYTES = 1 << 14  # a transfer that brings less in STALL_SECONDS has stalled
FRUITFUL_BYTES = 1 << 10  # that an attempt must bring to count
FRUITLESS_ATTEMPTS = 4  # in a row, before giving up
PAUSE_SECONDS = 1.0  # between attempts
MAX_FILE_BYTES_PER_PARAMETER = 32  # float32 weights, an optimizer's two moments, and as much again


@dataclass(frozen=True)
class PublishedWeights:
    """A file of the authors: its address, and what they report, in %.

    top1, top5: accuracy on ImageNet-1K's validation images; mean_iou: on ADE20K's, at one scale; box_ap, mask_ap: on
    COCO's of 2017; model: the config's name, where the weights have another one.
    """

    url: str
    top1: float | None = None
    top5: float | None = None
    mean_iou: float | None = None
    box_ap: float | None = None
    mask_ap: float | None = None
    model: str | None = None


def _share(identifier: str) -> str:
    return f"https://cloud.tsinghua.edu.cn/f/{identifier}/?dl=1"


def _detector(
    identifier: str, box_ap: float, mask_ap: float | None = None, model: str | None = None
) -> PublishedWeights:
    return PublishedWeights(_share(identifier), box_ap=box_ap, mask_ap=mask_ap, model=model)


# DAT: README of LeapLabTHU/DAT at 18d7bb5; DAT++: its README today; its detectors: README of DAT-Detection at 4d4023d;
# its segmentors: that of DAT-Segmentation at fdd2039. No checksums are published. A detector's name alone means its
# weights after 36 epochs ("3x"), `_1x` those after 12.
PUBLISHED_WEIGHTS = {
    "dat_tiny": PublishedWeights(_share("1367349deefc48efa650"), 82.034, 95.850),
    "dat_small": PublishedWeights(_share("f04b18081e3e4606adb7"), 83.686, 96.392),
    "dat_base": PublishedWeights(_share("a8d2a9645d454120b635"), 84.028, 96.686),
    "dat_base_384": PublishedWeights(_share("cf6a6b543cd64e0d8e43"), 84.754, 96.982),
    "datpp_tiny": PublishedWeights(_share("14c5ddae10b642e68089"), 83.9),
    "datpp_small": PublishedWeights(_share("4c2a76360c964fbd81d5"), 84.6),
    "datpp_base": PublishedWeights(_share("8e30492404d348d89f25"), 84.9),
    "datpp_base_384": PublishedWeights(_share("032dc804cdf44bf18bb5"), 85.9),
    "retinanet_datpp_tiny": _detector("ff4e48c036cb4d9badca", 49.2),
    "retinanet_datpp_tiny_1x": _detector("8e49b993adf242829ee1", 46.8, model="retinanet_datpp_tiny"),
    "retinanet_datpp_small": _detector("3687b77098a647adb54f", 50.2),
    "retinanet_datpp_small_1x": _detector("c1585651b3ec41fa9eb5", 48.3, model="retinanet_datpp_small"),
    "mask_rcnn_datpp_tiny": _detector("a7db396a372449779347", 50.5, 45.1),
    "mask_rcnn_datpp_tiny_1x": _detector("2b61106279ae488bbb45", 48.7, 43.7, model="mask_rcnn_datpp_tiny"),
    "mask_rcnn_datpp_small": _detector("3bde5a98a0ca46d8b2ee", 51.2, 45.7),
    "mask_rcnn_datpp_small_1x": _detector("8f3653c027974136a74a", 49.8, 44.5, model="mask_rcnn_datpp_small"),
    "cascade_mask_rcnn_datpp_tiny": _detector("1aa96891dda24451bbf8", 53.0, 46.0),
    "cascade_mask_rcnn_datpp_tiny_1x": _detector(
        "35be35faa96044ee8561", 52.2, 45.0, model="cascade_mask_rcnn_datpp_tiny"
    ),
    "cascade_mask_rcnn_datpp_small": _detector("17d84d4f5ae2457285af", 54.2, 46.9),
    "cascade_mask_rcnn_datpp_base": _detector("9ea06105dd394b8d97ac", 54.5, 47.0),
    "upernet_datpp_tiny": PublishedWeights(_share("de75c7e1622847268f4f"), mean_iou=49.4),
    "upernet_datpp_small": PublishedWeights(_share("2f4a2be90a08477fa4b3"), mean_iou=50.5),
    "upernet_datpp_base": PublishedWeights(_share("7c442d4371c4433aa428"), mean_iou=51.0),
    "semantic_fpn_datpp_tiny": PublishedWeights(_share("9a9df06dec1440a39bcb"), mean_iou=48.4),
    "semantic_fpn_datpp_small": PublishedWeights(_share("f4333e084ef74ca3b8f6"), mean_iou=49.9),
    "semantic_fpn_datpp_base": PublishedWeights(_share("9df9eb212f154168aab7"), mean_iou=50.4),
}


def download(name: str, destination: PathLike, *, url: str | None = None, progress: Progress | None = None) -> Path:
    """Fetch the published weights called `name` to the file `destination`, and return its path.

    A destination that ends in .npz gets the model in our format, any other the authors' file as it is. `url` is fetched
    instead of the authors' address if given (http or https). progress(bytes so far, bytes in all or None) is called as
    the file grows. A transfer that breaks off is taken up again where it stopped, also by a later call: until then,
    what came is in `destination`.part. The file must hold exactly the weights of that model: names, shapes and number
    of parameters must be those of its config; only then does it get its name.

    Raises ConfigError for an unknown name; DownloadError if the server cannot be reached or refuses, if the transfer
    breaks off again and again, or if what came is a web page or anything else than those weights.
    """
    published = PUBLISHED_WEIGHTS.get(name)
    model_name = published.model or name if published else name
    config = get_config(model_name)
    if url is None:
        if published is None:
            raise ConfigError(
                f"model name: no weights of {name} are published, expected one of {', '.join(PUBLISHED_WEIGHTS)}"
            )
        url = published.url
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{one_line(url)}: found another kind of address, expected one with http:// or https://")
    destination = Path(destination)
    if destination.is_dir():
        raise DownloadError(f"{destination}: a folder, expected the name of a file to write")

    part = destination.with_name(destination.name + ".part")
    if len(os.fsencode(part.name)) > LONGEST_NAME:
        part = beside(destination, ".part")
    expected = FAMILIES[family_of(config)].network(config).parameter_count()
    with _file_errors(destination):
        _fetch(url, part, expected * MAX_FILE_BYTES_PER_PARAMETER, progress)
    try:
        model = build_model(read_checkpoint(part, name=model_name), part)
        if model.config != config:
            found, (height, width) = model.config, config.image_size
            raise CheckpointError(
                f"a model with {found.num_classes} classes for images of {found.image_size[0]} x {found.image_size[1]} "
                f"pixels and {model.parameter_count():,} parameters, "
                f"expected {config.num_classes}, {height} x {width} and {expected:,}"
            )
    except CheckpointError as error:
        part.unlink(missing_ok=True)
        raise DownloadError(f"{url}: what came are not the weights of {name}: {error}") from None
    with _file_errors(destination):
        if destination.suffix == ".npz":
            save_npz(destination, model.state_dict(), model.config, model.labels)
            part.unlink()
        else:
            os.utime(part)
            os.replace(part, destination)
    return destination


def _fetch(url: str, part: Path, max_bytes: int, progress: Progress | None) -> None:
    """Get the whole file at `url` into `part`, going on after what is there, in as many attempts as bring something."""
    largest, fruitless = _size(part), 0
    try:
        while problem := _attempt(url, part, max_bytes, progress):
            # nearly nothing is as good as nothing: it would go on for ever
            fruitless = 0 if _size(part) > largest + FRUITFUL_BYTES else fruitless + 1
            largest = max(largest, _size(part))
            if fruitless >= FRUITLESS_ATTEMPTS:
                raise DownloadError(f"{url}: {problem}; run the same again later to go on after {_size(part):,} bytes")
            time.sleep(PAUSE_SECONDS)
    finally:
        if _size(part) == 0:
            part.unlink(missing_ok=True)


def _attempt(url: str, part: Path, max_bytes: int, progress: Progress | None) -> str | None:
    """One request for what is missing in `part`, appended to it. Returns why it is not complete, None if it is."""
    import email.utils  # these imports take longer than all of minidat
    import http.client
    import urllib.error
    import urllib.request

    done = _size(part)
    headers = {"User-Agent": "minidat", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
        if (changed := part.lstat().st_mtime) > 0:  # see _append: of a file that has changed, the server sends all
            headers["If-Range"] = email.utils.formatdate(int(changed), usegmt=True)
    try:
        request = urllib.request.Request(url, headers=headers)
        response = _answer(lambda: urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS))
    except urllib.error.HTTPError as error:
        with error:
            return _refusal(url, part, error.code, one_line(error.reason), error.headers.get("Content-Range", ""))
    except (http.client.InvalidURL, ValueError) as error:
        raise DownloadError(f"{one_line(url)}: not an address that can be fetched: {one_line(error)}") from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        return f"the server cannot be reached ({one_line(getattr(error, 'reason', error))})"

    with response:
        if "text/html" in response.headers.get("Content-Type", ""):
            raise _web_page(url)
        status = response.status
        start, total = _position(response, done)
        if start not in (0, done):
            part.unlink(missing_ok=True)
            return "the server sent another part of the file than it was asked for"
        date = email.utils.parsedate_tz(response.headers.get("Last-Modified", ""))
        changed = email.utils.mktime_tz(date) if date else 0
        with _append(part, anew=not start, changed=changed) as write:
            done, chunks = start, _chunks(response, url)
            while True:
                try:
                    chunk = next(chunks, b"")
                except (http.client.HTTPException, OSError) as error:
                    return f"the transfer broke off ({one_line(error) or type(error).__name__})"
                if not chunk:
                    break
                if done == 0 and chunk.lstrip()[:1] == b"<":
                    raise _web_page(url)
                done += len(chunk)
                if max(done, total or 0) > max_bytes:
                    raise DownloadError(
                        f"{url}: a file of {max(done, total or 0):,} bytes, expected at most {max_bytes:,}"
                    )
                write(chunk)
                if progress is not None:
                    progress(done, total)
    if total is not None and done != total:
        return f"the transfer broke off after {done:,} of {total:,} bytes"
    if done == 0:
        raise DownloadError(f"{url}: the server answers {status} with nothing, expected a file: check the address")
    return None


def _chunks(response: Any, url: str) -> Iterator[bytes]:
    """The body in pieces of CHUNK_BYTES, the last one shorter. Raises DownloadError if it only trickles."""
    chunk, since, had = bytearray(), time.monotonic(), 0
    while piece := response.read1(CHUNK_BYTES - len(chunk)):
        chunk += piece
        had += len(piece)
        if len(chunk) == CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
        if had >= STALL_BYTES:
            since, had = time.monotonic(), 0
        elif time.monotonic() - since > STALL_SECONDS:
            raise DownloadError(
                f"{url}: the transfer has nearly stopped, {had:,} bytes in {STALL_SECONDS} seconds; run the same again "
                "later to go on"
            )
    yield bytes(chunk)


def _answer(ask: Callable[[], Any]) -> Any:
    """What ask() returns or raises; TimeoutError if that takes too long, such as a byte a second of headers."""
    results: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()

    def run() -> None:
        try:
            results.put((ask(), None))
        except BaseException as error:
            results.put((None, error))

    threading.Thread(target=run, daemon=True, name="minidat download").start()
    try:
        response, error = results.get(timeout=2 * TIMEOUT_SECONDS)
    except queue.Empty:
        raise TimeoutError("it does not answer in time") from None
    if error is not None:
        raise error
    return response


@contextmanager
def _append(part: Path, *, anew: bool, changed: float) -> Iterator[Callable[[bytes], None]]:
    """Something to write chunks with, to the end of `part` or `anew`.

    The part's own date is kept at that of the file on the server, `changed` (0 if it does not tell), which the next
    request asks about. A link is not followed: it may have been put there to have another file overwritten.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if anew else os.O_APPEND)
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(part, flags, 0o666), "wb", buffering=0) as file:

        def write(chunk: bytes) -> None:
            file.write(chunk)
            os.utime(file.fileno() if os.utime in os.supports_fd else part, (changed, changed))

        yield write


def _refusal(url: str, part: Path, status: int, reason: str, content_range: str) -> str | None:
    """What an HTTP error means for the attempt. Raises DownloadError where another attempt would be no use."""
    if status == 416 and _size(part) and content_range == f"bytes */{_size(part)}":
        return None  # the range after the file's end: nothing is missing
    if status == 416 and part.exists():
        part.unlink()
        return "the server has another file than before"
    if status < 500:
        raise DownloadError(f"{url}: the server answers {status} {reason}, expected a file: check the address")
    return f"the server answers {status} {reason}"


def _position(response: Any, wanted: int) -> tuple[int, int | None]:
    """(where this response begins, size of the whole file or None): a server may ignore the range; -1 is no answer."""
    length = response.headers.get("Content-Length", "")
    if response.status != 206:
        return 0, int(length) if length.isdecimal() else None
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
    if match is None:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _web_page(url: str) -> DownloadError:
    return DownloadError(
        f"{url}: a web page came instead of a file: open the address in a browser, save the file from there, "
        "and give it to minidat convert"
    )


def _size(path: Path) -> int:
    """Of what has come. Raises DownloadError if it is something else than a file: a link would be written through."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(found.st_mode):
        raise DownloadError(f"{path}: not a regular file, expected what an earlier download has left: remove it")
    return found.st_size


@contextmanager
def _file_errors(destination: Path) -> Iterator[None]:
    """A full disk or a folder that does not exist is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise DownloadError(f"{destination}: cannot be written: {error.strerror or error}") from None
