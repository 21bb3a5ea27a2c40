"""Numbers as an operator reads them: "1.5 ms", "12.3 MiB", "1,204 conversations"."""


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun, e.g. "1 conversation" or "1,204 conversations"."""
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"


def format_bytes(size: float) -> str:
    """Return a number of bytes, e.g. "812 B" or "12.3 MiB"."""
    if size < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if round(size, 1) < 1024:
            return f"{_short(size)} {unit}"
    return f"{_short(size / 1024)} TiB"


def format_milliseconds(milliseconds: float) -> str:
    """Return a number of milliseconds, e.g. "0.04 ms", "1.5 ms", "120 ms" or "2.1 s"."""
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:,.1f} s"
    digits = 0 if milliseconds >= 10 else 1 if milliseconds >= 0.1 else 2
    return f"{milliseconds:.{digits}f} ms"


def _short(number: float) -> str:
    return f"{number:,.1f}".removesuffix(".0")
