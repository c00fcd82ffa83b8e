"""A picture with a table that gives way: as many of its lines as the terminal has room for."""

from collections.abc import Callable
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult


class Fitted:
    """Draws with the most lines, up to `lines`, with which the whole is no taller than the terminal.

    Where there is no terminal there is no height, and all are drawn.
    """

    def __init__(self, draw: Callable[[int], RenderableType], lines: int) -> None:
        self._draw: Final = draw
        self._lines: Final = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by rich with the console's size as it is now."""
        yield self._draw(self._fitting(console, options) if console.is_terminal else self._lines)

    def _fitting(self, console: Console, options: ConsoleOptions) -> int:
        free = options.update(height=None)

        def height(lines: int) -> int:
            return len(console.render_lines(self._draw(lines), free, pad=False))

        if height(self._lines) <= console.height:
            return self._lines
        # One row at least for each line; a name that is folded takes more, so what was expected to fit is tried.
        lines = max(0, min(self._lines - 1, console.height - height(0)))
        while lines and height(lines) > console.height:
            lines -= 1
        return lines
