"""Progress on standard error: a bar with the time left where tqdm and a terminal are there, else a line a step."""

import sys
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TypeVar

T = TypeVar("T")


def with_progress(items: Iterable[T], total: int) -> Iterator[T]:
    """The items, each announced before it is given out."""
    if sys.stderr.isatty() and find_spec("tqdm"):
        yield from _bar(items, total)
    else:
        yield from _lines(items, total)


def _bar(items: Iterable[T], total: int) -> Iterator[T]:
    from tqdm import tqdm

    with tqdm(total=total, file=sys.stderr, leave=False, dynamic_ncols=True) as bar:
        for item in items:
            bar.set_description(str(item))
            yield item
            bar.update()


def _lines(items: Iterable[T], total: int) -> Iterator[T]:
    start = time.monotonic()
    for done, item in enumerate(items):
        left = (time.monotonic() - start) / done * (total - done) if done else None
        print(f"[{done + 1}/{total}] {item}{_left(left)}", file=sys.stderr, flush=True)
        yield item


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f", {seconds:.0f} s left" if seconds < 120 else f", {seconds / 60:.0f} min left"
