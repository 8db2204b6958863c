"""Tables as text: columns of one width, and numbers that a person can read."""

from __future__ import annotations

from collections.abc import Collection, Sequence

PREFIXES = ("", "k", "M", "G", "T", "P")


def aligned(table: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Rows as lines: the columns of these numbers to the left, all others to the right.

    A rule stands below the first row, which is the head.
    """
    widths = [max(map(len, column)) for column in zip(*table)]
    lines = [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in table
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def quantity(number: float, unit: str = "") -> str:
    """Three digits and a prefix: 1,605,632 bytes are "1.61 MB"."""
    prefix = 0
    while abs(number) >= 999.5 and prefix + 1 < len(PREFIXES):
        number, prefix = number / 1000, prefix + 1
    decimals = 0 if not prefix and number == int(number) else 0 if number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{decimals}f} {PREFIXES[prefix]}{unit}".rstrip()


def milliseconds(seconds: float) -> str:
    """To the microsecond, without a unit: "12.345"."""
    return f"{1e3 * seconds:.3f}"


def duration(seconds: float) -> str:
    """Three digits: "1.23 s", "12.3 ms", "4.56 µs", but "0.02 µs"."""
    if seconds >= 0.9995:
        return f"{seconds:.3g} s" if seconds < 999.5 else f"{seconds:.0f} s"
    if seconds >= 0.0995e-3:
        return f"{1e3 * seconds:.3g} ms"
    return f"{1e6 * seconds:.3g} µs" if seconds >= 1e-6 else f"{1e6 * seconds:.2f} µs"


def shortened(text: str, most: int) -> str:
    """The text with its middle left out where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def begun(text: str, most: int) -> str:
    """The text without its end where it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
