"""The plot of a benchmark: how many times faster than the builtin, and than the other rivals, over n."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from jaxinv._cli.bench_report import speed_up

RIVALS = {
    "builtin": "jnp.linalg.inv",
    "torch": "torch.linalg.inv",
    "scipy": "scipy.linalg.inv",
    "getri": "LAPACK getrf, getri",
}


def save_plot(path: Path, results: list[dict[str, Any]], title: str) -> None:
    """A panel a mode; a line for each rival, dtype and, where an n of a dtype has several, batch. Needs matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    modes = list(dict.fromkeys(r["mode"] for r in results))
    figure = Figure(figsize=(6 * max(1, len(modes)), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=8)
    for mode, axes in zip(modes, figure.subplots(1, len(modes), squeeze=False)[0], strict=True):
        for label, points in lines([r for r in results if r["mode"] == mode]).items():
            axes.plot(*zip(*sorted(points), strict=True), marker="o", label=label)
        axes.axhline(1.0, color="0.6", linewidth=1)
        axes.set(yscale="log", xlabel="n", ylabel="rival's time / ours", title=mode)
        axes.set_xscale("log", base=2)
        sizes = sorted({r["n"] for r in results})
        if len(sizes) <= 12:
            axes.set_xticks(sizes, map(str, sizes), minor=False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
            axis.set_major_formatter("{x:g}")
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)


def lines(results: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The points of each line, by its label."""
    batches = defaultdict(set)
    for r in results:
        batches[r["n"], r["dtype"]].add(r["batch"])
    several = any(len(found) > 1 for found in batches.values())
    points = defaultdict(list)
    for r in results:
        for rival, name in RIVALS.items():
            ratio = speed_up(r, rival)
            if ratio is not None:
                label = f"{name}, {r['dtype']}" + (f", batch {r['batch']}" if several else "")
                points[label].append((r["n"], ratio))
    return points
