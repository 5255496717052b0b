"""How a training run shows itself to the person who waits for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .trainer import Progress


@contextmanager
def show_progress() -> Iterator[Callable[[Progress], None]]:
    """Something to give `train` as `progress`: a bar on a terminal, else one line an epoch, both on stderr."""
    from tqdm import tqdm

    if not sys.stderr.isatty():
        yield _print_epochs
        return
    with tqdm(unit=" steps", file=sys.stderr, dynamic_ncols=True) as bar:

        def show(progress: Progress) -> None:
            if bar.total is None:  # a resumed run begins in the middle, which must not count as speed
                bar.total, bar.initial = progress.steps, progress.step - 1
                bar.n = bar.initial
            bar.set_postfix_str(_summary(progress), refresh=False)
            bar.update(progress.step - bar.n)

        yield show


def _print_epochs(progress: Progress) -> None:
    if progress.ends_epoch:
        print(f"epoch {progress.epoch:.0f} of {progress.epochs}, {_summary(progress)}", file=sys.stderr, flush=True)


def _summary(progress: Progress) -> str:
    texts = [f"loss {progress.loss:.3f}"]
    if progress.accuracy is not None:
        texts.append(f"accuracy {progress.accuracy:.1%}")
    if progress.validation is not None:
        name = "validation" if progress.accuracy is not None else f"validation {progress.figure}"
        texts.append(f"{name} {progress.validation:.1%}")
    speed = progress.images_per_second
    return ", ".join([*texts, f"{speed:.0f} images/s" if speed >= 10 else f"{speed:.1f} images/s"])
