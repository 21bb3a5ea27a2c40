"""Durations as an operator writes and reads them: "90s", "30m", "2h", "7d"."""

import argparse
import re
from typing import Final

from .. import conf

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(text: str) -> float:
    """Return the seconds in "90s", "1.5h" or "1h30m".

    Raises:
        argparse.ArgumentTypeError: it is no duration, or none above 0 and up to ten years; or a
            number has no unit, so that no operator means days and deletes what is seconds old.
    """
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)([smhdw]?)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a duration: write 90s, 30m, 2h, 7d or 1h30m."
        )
    number, unit = parts[-1]  # only the last one can lack its unit
    if not unit:
        before = text.removesuffix(number)
        examples = ", ".join(f"{before}{number}{unit}" for unit in "smhd")
        raise argparse.ArgumentTypeError(f"{text!r} has no unit: write one of {examples}.")
    total = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if problem := conf.seconds(total):
        raise argparse.ArgumentTypeError(f"A duration {problem}.")
    return total


def format_duration(seconds: float) -> str:
    """Return the two largest units of a duration, e.g. "2h 5m"."""
    left, parts = max(0, round(seconds)), []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, _SECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"
