"""How long a model takes and how much memory: `minidat bench`.

If PyTorch is installed and the project's tests are there, the PyTorch transcription in `tests/reference` is timed in
the same process, turn by turn with ours, so that both see the same machine. Everything is measured in child processes:
the number of threads must be set before NumPy is imported, and a peak of memory belongs to a whole process.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .catalog import create_model, get_config
from .data.targets import BoxTargets
from .detection import DetectorConfig
from .detection.two_stage import TwoStageDetector
from .errors import ConfigError, MinidatError
from .models import DAT
from .operator_times import counted_products, floor_milliseconds, milliseconds, operator_times

PROJECT = Path(__file__).resolve().parent.parent
PAUSE = 0.05  # seconds between turns: the other library's threads have stopped spinning by then
MINIMUM_RUNS, MAXIMUM_RUNS = 5, 30
DETECTOR_SIZE = (800, 1088)  # most of COCO's pictures have 480 x 640 pixels: so they come to a detector


def run_benchmark(
    name: str,
    *,
    batch: int = 1,
    train: bool = False,
    plain: bool = False,
    threads: int | None = None,
    seconds: float = 20.0,
) -> dict[str, Any]:
    """Measure one published model; a plain dict, as `minidat bench --json` prints it.

    Inference, or with `train` a training step (forward, cross-entropy, backward; for RetinaNet and segmentors no loss,
    but random gradients of the outputs), on random images of the model's size, a detector's being 800 x 1088;
    two-stage detectors detect, or compute their losses of ten random objects, and are compared with nothing;
    `threads` for NumPy and PyTorch alike, default all cores; `seconds` to spend, roughly, but five runs at least.
    Keys: `model`, `batch`, `image_size`, `mode`, `threads`, `runs`, for us
    `milliseconds` (median), `minimum_milliseconds`, `peak_memory_mib` (of the process),
    `floor_milliseconds` (the matrix products alone), `operators` (share of each in the time of all); `pytorch` (the
    median, minimum and memory, or None without PyTorch), and `ratio`, our median by PyTorch's (or None); `session`, the
    same of a `Session` (with the number of its `helpers`, whose memory is included), or None for a training step;
    `textbook`, with `plain`: `milliseconds` of a forward pass without kernels, and `operators`, a row of
    `OperatorTimes` each; else None.
    Raises ConfigError for an unknown model or a number below 1.
    """
    get_config(name)
    for argument, value in (("batch", batch), ("threads", threads)):
        if value is not None and value < 1:
            raise ConfigError(f"{argument}: found {value}, expected a number of at least 1")
    task = {"model": name, "batch": batch, "train": train, "seconds": seconds}
    result = _child("time", task, threads)
    result["peak_memory_mib"] = _child("memory", task, threads)
    if result["session"]:
        result["session"]["peak_memory_mib"] = _child("session memory", task, threads)
    if result["pytorch"]:
        result["pytorch"]["peak_memory_mib"] = _child("pytorch memory", task, threads)
    result["textbook"] = _child("textbook", task, threads) if plain else None
    return result


def format_benchmark(result: dict[str, Any]) -> str:
    """The result of `run_benchmark` as text for a terminal."""
    height, width = result["image_size"]
    lines = [
        f"{result['model']}, batch {result['batch']}, {height} x {width} pixels, {result['mode']}, "
        f"{result['threads']} threads, "
        f"{result['runs']} runs",
        f"{'':10}{'median':>12}{'minimum':>12}{'peak memory':>14}",
    ]
    for title, figures in (("minidat", result), ("session", result["session"]), ("PyTorch", result["pytorch"])):
        if figures:
            lines.append(
                f"{title:10}{figures['milliseconds']:9.1f} ms{figures['minimum_milliseconds']:9.1f} ms"
                f"{figures['peak_memory_mib']:10.0f} MiB"
            )
    if result["ratio"] is None:
        lines.append("PyTorch, or the model in the project's tests/reference, is not here: nothing to compare with")
    else:
        lines.append(f"ratio     {result['ratio']:9.2f} (minidat / PyTorch, medians)")
        if result["session"]:
            lines.append(f"          {result['session']['ratio']:9.2f} (session / PyTorch)")
    lines.append(f"floor     {result['floor_milliseconds']:9.1f} ms (the matrix products alone)")
    lines.append("share of the operators' time")
    lines += [f"  {share:6.1%}  {op}" for op, share in result["operators"].items() if share >= 0.001]
    if result["textbook"]:
        lines.append(f"textbook  {result['textbook']['milliseconds']:9.1f} ms (forward, without kernels)")
        lines.append(f"{'forward, ms':26}{'calls':>6}{'textbook':>10}{'kernel':>10}{'PyTorch':>10}{'floor':>10}")
        lines += [_operator_line(row) for row in result["textbook"]["operators"]]
    return "\n".join(lines)


def _operator_line(row: dict[str, Any]) -> str:
    times = ("-" if row[key] is None else f"{row[key]:.2f}" for key in ("textbook", "kernel", "pytorch", "floor"))
    return f"  {row['operator']:24}{row['calls']:6}" + "".join(f"{time:>10}" for time in times)


def _child(what: str, task: dict[str, Any], threads: int | None) -> Any:
    """Run this file as a program with `threads` threads; what it prints as JSON."""
    environment = dict(os.environ)
    if threads is not None:
        for variable in ("MINIDAT_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[variable] = str(threads)
    command = [sys.executable, "-m", "minidat.benchmark", what, json.dumps(task)]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), environment.get("PYTHONPATH")]))
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise MinidatError(f"bench: the measuring process failed: {reason}")
    return json.loads(done.stdout)


# --- in the child process ---------------------------------------------------------------------------------------------


def _our_step(model: Any, task: dict[str, Any], profile: dict[str, float] | None = None) -> Callable[[], None]:
    """One inference pass, or one training step, of our model as a function to call."""
    from . import ops
    from .nn import Context

    images = _images(task, model.config)
    gradients: list[Any] = []  # of the outputs, drawn once

    def infer() -> None:
        if isinstance(model, TwoStageDetector):
            model.detect(images)
        else:
            model.forward(images, Context(profile=profile))

    def train() -> None:
        model.zero_grad()
        context = Context(gradients=True, training=True, rng=np.random.default_rng(0), profile=profile)
        if isinstance(model, TwoStageDetector):
            _, loss_backward = model.loss(images, _objects(task, model.config), context)
            loss_backward()
            return
        outputs, backward = model.forward(images, context)
        if isinstance(model, DAT):
            _, loss_backward = ops.cross_entropy(outputs, targets=_labels(task, model.config))
            backward(loss_backward(np.float32(1))[0])
            return
        if not gradients:
            gradients.extend(_gradients(outputs if isinstance(outputs, tuple) else (outputs,)))
        backward(*gradients)

    return train if task["train"] else infer


def _pytorch_step(task: dict[str, Any]) -> Callable[[], None]:
    """The same of the PyTorch transcription."""
    import torch  # type: ignore[import-not-found, unused-ignore]

    reference = importlib.import_module("tests.reference")
    from .runtime.threads import thread_count

    torch.set_num_threads(thread_count())
    config = get_config(task["model"])
    model = reference.build(config)
    images = torch.from_numpy(np.ascontiguousarray(_images(task, config).transpose(0, 3, 1, 2)))
    images.requires_grad_(task["train"] and not isinstance(model, reference.DAT))  # as ours finds it
    gradients: list[Any] = []

    def infer() -> None:
        with torch.inference_mode():
            model(images)

    def train() -> None:
        model.zero_grad(set_to_none=True)
        outputs = model(images)
        if isinstance(model, reference.DAT):
            torch.nn.functional.cross_entropy(outputs, torch.from_numpy(_labels(task, config))).backward()
            return
        levels = [outputs] if isinstance(outputs, torch.Tensor) else [level for part in outputs for level in part]
        if not gradients:
            gradients.extend(
                torch.from_numpy(array) for array in _gradients([level.detach().numpy() for level in levels])
            )
        torch.autograd.backward(levels, gradients)

    model.train(task["train"])
    return train if task["train"] else infer


def _image_size(config: Any) -> tuple[int, int]:
    return DETECTOR_SIZE if isinstance(config, DetectorConfig) else config.image_size


def _images(task: dict[str, Any], config: Any) -> np.ndarray:
    """Random images, (B, H, W, 3)."""
    return np.random.default_rng(0).standard_normal((task["batch"], *_image_size(config), 3), dtype=np.float32)


def _labels(task: dict[str, Any], config: Any) -> np.ndarray:
    """Random labels, (B,)."""
    return np.random.default_rng(1).integers(0, config.num_classes, task["batch"])


def _objects(task: dict[str, Any], config: Any) -> list[BoxTargets]:
    """Ten random objects an image, which fill their boxes."""
    rng = np.random.default_rng(1)
    height, width = _image_size(config)
    targets = []
    for _ in range(task["batch"]):
        starts = rng.uniform(0, (width - 200, height - 200), (10, 2))
        boxes = np.concatenate([starts, starts + rng.uniform(20, 200, (10, 2))], axis=1).astype(np.float32)
        masks = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.tolist()]
        targets.append(BoxTargets(boxes, rng.integers(0, config.num_classes, 10), masks))
    return targets


def _gradients(outputs: Any) -> list[Any]:
    """Random arrays like those in `outputs`, which may be lists of arrays."""
    rng = np.random.default_rng(2)
    return [
        _gradients(output) if isinstance(output, list) else rng.standard_normal(output.shape, dtype=np.float32)
        for output in outputs
    ]


def _has_pytorch() -> bool:
    return importlib.util.find_spec("torch") is not None and (PROJECT / "tests" / "reference").is_dir()


def _time(task: dict[str, Any]) -> dict[str, Any]:
    """Our step, a session's and PyTorch's in turn, until there are enough runs; then the profile and the floor."""
    from .runtime.session import Session
    from .runtime.threads import thread_count

    model = create_model(task["model"])
    steps = {"minidat": _our_step(model, task)}
    if _has_pytorch() and not isinstance(model, TwoStageDetector):
        steps["PyTorch"] = _pytorch_step(task)
    with nullcontext() if task["train"] else Session(model) as session:
        if session is not None:
            steps["session"] = partial(session, _images(task, model.config))
        figures = _in_turn(steps, task["seconds"])
        if session is not None:
            figures["session"]["helpers"] = len(session.helpers)
    pytorch = figures.pop("PyTorch", None)
    for ours in figures.values():
        ours["ratio"] = ours["milliseconds"] / pytorch["milliseconds"] if pytorch else None
    profile: dict[str, float] = {}
    profiled_step = _our_step(model, task, profile)
    profiled_step()
    profile.clear()
    profiled_step()
    total = sum(profile.values())  # of all threads
    operators = {op: spent / total for op, spent in sorted(profile.items(), key=lambda item: -item[1])}
    return {
        "model": task["model"],
        "batch": task["batch"],
        "image_size": list(_image_size(model.config)),
        "mode": "training step" if task["train"] else "inference",
        "threads": thread_count(),
        **figures["minidat"],
        "session": figures.get("session"),
        "pytorch": pytorch,
        "floor_milliseconds": _floor(model, task),
        "operators": operators,
    }


def _in_turn(steps: dict[str, Callable[[], Any]], seconds: float) -> dict[str, dict[str, Any]]:
    """Call one step after the other, again and again, for so long; the number of runs and the times of each."""
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {title: [] for title in steps}
    started = time.perf_counter()
    for run in range(MAXIMUM_RUNS):
        if run >= MINIMUM_RUNS and time.perf_counter() - started > seconds:
            break
        for title, step in steps.items():
            time.sleep(PAUSE)
            times[title].append(_seconds(step))
    return {
        title: {
            "runs": len(taken),
            "milliseconds": 1e3 * statistics.median(taken),
            "minimum_milliseconds": 1e3 * min(taken),
        }
        for title, taken in times.items()
    }


def _seconds(step: Callable[[], Any]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _peak_memory(step: Callable[[], Any]) -> float:
    """MiB of the largest resident size of this process after two steps."""
    import resource

    step()
    step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _session_memory(task: dict[str, Any]) -> float:
    """MiB of the largest resident size of this process and a session's helpers; what they share counts once."""
    from .runtime.session import Session

    model = create_model(task["model"])
    images = _images(task, model.config)
    with Session(model) as session:
        del model
        peak = _peak_memory(partial(session, images))
        helpers = [_resident(pid) for pid in session.helpers]
        if helpers:  # they also see the arrays that they have shared, of which this process has seen but a part
            shared = max(helper["RssShmem"] for helper in helpers) - _resident(os.getpid())["RssShmem"]
            peak += shared + sum(helper["RssAnon"] for helper in helpers)
    return peak


def _resident(pid: int) -> dict[str, float]:
    """MiB of memory that a process has now, by kind (Linux)."""
    lines = [line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Rss")]
    return {name.rstrip(":"): int(kibibytes) / 2**10 for name, kibibytes, _ in lines}


def _floor(model: Any, task: dict[str, Any]) -> float:
    """Milliseconds of the matrix products alone; a training step has three for each of the forward pass."""
    floor = floor_milliseconds(counted_products(model, _images(task, model.config)))
    return 3 * floor if task["train"] else floor


def _textbook(task: dict[str, Any]) -> dict[str, Any]:
    """What a forward pass takes without kernels, in all and for each operator."""
    from .nn import Context

    model = create_model(task["model"])
    images = _images(task, model.config)
    return {
        "milliseconds": milliseconds(lambda: model.forward(images, Context(plain=True))),
        "operators": [asdict(row) for row in operator_times(model, images)],
    }


def _main() -> None:
    what, task = sys.argv[1], json.loads(sys.argv[2])
    measure = {
        "time": lambda: _time(task),
        "memory": lambda: _peak_memory(_our_step(create_model(task["model"]), task)),
        "session memory": lambda: _session_memory(task),
        "pytorch memory": lambda: _peak_memory(_pytorch_step(task)),
        "textbook": lambda: _textbook(task),
    }[what]
    print(json.dumps(measure()))


if __name__ == "__main__":
    _main()
