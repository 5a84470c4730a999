"""Tables for a terminal and for Markdown, and JSON."""

import json
import math
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

GREEN, RED, YELLOW = "32", "31", "33"
BELOW_ONE = r"0(\.\d+)?x"  # a speed-up


def text_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their headers, words to the left and numbers to the right."""
    widths = [max(len(row[i]) for row in (headers, *rows)) for i in range(len(headers))]
    firsts = [{row[i][:1] for row in rows} for i in range(len(headers))]
    to_left = [any(map(str.isalpha, first)) and not any(map(str.isdigit, first)) for first in firsts]
    return "\n".join(
        "  ".join(row[i].ljust(width) if to_left[i] else row[i].rjust(width) for i, width in enumerate(widths)).rstrip()
        for row in (headers, *rows)
    )


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same for GitHub, everything to the right."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headers, ["--:"] * len(headers), *rows))


def coloured(text: str, colours: dict[str, str]) -> str:
    """`text` with some words, regular expressions, in colour on a terminal that has them.

    Not on a dumb one, nor where NO_COLOR is set (https://no-color.org).
    """
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    for word, colour in colours.items():
        text = re.sub(rf"(?<![\w.]){word}(?!\w)", f"\033[{colour}m\\g<0>\033[0m", text)
    return text


def as_json(report: Any) -> str:
    """Strict JSON: numbers that are not finite become null."""
    return json.dumps(_finite(report), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
