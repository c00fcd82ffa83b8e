"""Columns of plain text for people. In: names and texts. Out: lines."""

from collections.abc import Sequence


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """A header, a rule and the rows; the first `left` columns lean left, the others right."""
    shown = [[printable(text) for text in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(header, *shown, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = (
            text.ljust(width) if place < left else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return [line(header), line(["-" * width for width in widths]), *(line(row) for row in shown)]


def printable(text: str) -> str:
    """Text from outside, without what would move a terminal's cursor or change its colours."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
