"""`make bench-plot`: draw what `make bench-redis BENCH_ARGS="--json FILE"` has measured: a turn
over the length of the history, and all turns of a conversation up to there."""

import argparse
import bisect
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

IMAGE = Path(__file__).parents[1] / "docs/images/cost-over-length.svg"
SERIES = "sync-turn"
# Each stands out as much from white as from a dark page: the image has no background of its own.
GREY, BLUE, ORANGE, RED = "#7a7a7a", "#2f81d0", "#b5701d", "#cf5757"
LINES = {
    "two PINGs": ("two PINGs", GREY, ":"),
    "ours, served here before": ("django-convstate", BLUE, "-"),
    "Django session (django-redis)": ("Django's session", ORANGE, "-"),
    "LangChain": ("LangChain", RED, "-"),
}
STYLE = {
    "svg.hashsalt": "convstate",  # so that the same figures make the same file
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "lines.linewidth": 2.2,
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "grid.color": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "axes.edgecolor": GREY,
}
Points = Sequence[Sequence[float]]


def cost_at(points: Points, length: float) -> float:
    """Return the cost of a turn between two measured lengths, on the line between them where both
    axes are logarithmic; below the first it is that of the first."""
    lengths = [point[0] for point in points]
    at = bisect.bisect(lengths, length)
    if at == 0 or at == len(points):
        return points[min(at, len(points) - 1)][1]
    (x0, y0), (x1, y1) = points[at - 1], points[at]
    share = math.log(length / x0) / math.log(x1 / x0)
    return math.exp(math.log(y0) + share * math.log(y1 / y0))


def summed(points: Points) -> list[tuple[float, float]]:
    """Return how many seconds all turns take together, of two messages each, up to a length."""
    found, total, length = [], 0.0, 0
    for stop in (20, 60, 200, 600, 2_000, 6_000, 20_000):
        while length < stop:
            total += cost_at(points, length) / 1e6
            length += 2
        found.append((float(stop), total))
    return found


def draw(panel: Any, title: str, unit: str, curves: Mapping[str, Points]) -> None:
    for name, points in curves.items():
        label, color, style = LINES[name]
        panel.plot(*zip(*points, strict=True), color=color, linestyle=style)
        x, y = points[-1]
        panel.annotate(
            label,
            (x, y),
            xytext=(5, 0),
            textcoords="offset points",
            color=color,
            va="center",
            annotation_clip=False,
        )
    panel.set(title=title, xlabel="messages stored", ylabel=unit, xscale="log", yscale="log")
    panel.grid(visible=True, which="major")
    panel.minorticks_off()
    panel.set_xticks([20, 200, 2_000, 20_000], ["20", "200", "2,000", "20,000"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="what bench-redis has written")
    series = json.loads(parser.parse_args().file.read_text())["series"][SERIES]
    turns = {name: series[name] for name in LINES if name in series}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 4))
        one, all_of_them = figure.subplots(1, 2)
        draw(one, "One turn", "microseconds", turns)
        sums = {name: summed(points) for name, points in turns.items()}
        draw(all_of_them, "All turns up to there", "seconds", sums)
        figure.subplots_adjust(left=0.08, right=0.86, wspace=0.78, bottom=0.14, top=0.9)
        IMAGE.parent.mkdir(exist_ok=True)
        figure.savefig(IMAGE, transparent=True, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
