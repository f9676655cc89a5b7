"""Draws frames as an animated SVG: a film strip that moves up by one frame at a time."""

import base64
from html import escape

import terminal

CELL, LINE, MARGIN = 8, 17, 14
WIDTH = terminal.COLUMNS * CELL + 2 * MARGIN
HEIGHT = terminal.ROWS * LINE + 2 * MARGIN
# How long the page is shown at the end, in seconds.
PAGE = 6
COLOURS = {
    "default": "#d5dbe3", "black": "#5b6570", "brightblack": "#8fa3b5", "red": "#ef6b73", "green": "#7ec27e", "brown": "#d9b560", "blue": "#6aa7e8",
    "magenta": "#c792d6", "cyan": "#67c3cc", "white": "#ffffff",
}


def film(frames: list, page: bytes) -> str:
    """The SVG of the frames, and at the end of a page as PNG."""
    total = sum(frame.seconds for frame in frames) + PAGE
    steps, pictures, at = [], [], 0.0
    for number, frame in enumerate(frames):
        steps.append(step(at / total, number))
        pictures.append(f'<g transform="translate(0,{number * HEIGHT})">{screen(frame.lines)}</g>')
        at += frame.seconds
    steps.append(step(at / total, len(frames)))
    data = base64.b64encode(page).decode()
    pictures.append(f'<image y="{len(frames) * HEIGHT}" width="{WIDTH}" height="{HEIGHT}" href="data:image/png;base64,{data}"/>')
    style = (
        f"@keyframes film{{{''.join(steps)}}}"
        f".film{{animation:film {total:.2f}s steps(1,end) infinite}}"
        f"text{{font:13.3px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre;fill:{COLOURS['default']}}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
        f"<style>{style}</style>"
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#1d232b"/>'
        f'<g class="film">{"".join(pictures)}</g></svg>\n'
    )


def step(share: float, number: int) -> str:
    return f"{share * 100:.3f}%{{transform:translateY(-{number * HEIGHT}px)}}"


def screen(lines: list) -> str:
    drawn = []
    for row, line in enumerate(lines):
        if text := "".join(spans(line)):
            drawn.append(f'<text x="{MARGIN}" y="{MARGIN + (row + 1) * LINE - 5}">{text}</text>')
    return "".join(drawn)


def spans(line: list) -> list[str]:
    """The characters of a line, those of one colour together."""
    last = max((column for column, char in enumerate(line) if char.data != " "), default=-1)
    parts: list[list] = []
    for char in line[: last + 1]:
        look = (COLOURS.get(char.fg, COLOURS["default"]), char.bold)
        if parts and parts[-1][0] == look:
            parts[-1][1] += char.data
        else:
            parts.append([look, char.data])
    return [span(*part) for part in parts]


def span(look: tuple[str, bool], text: str) -> str:
    colour, bold = look
    attributes = f' fill="{colour}"' if colour != COLOURS["default"] else ""
    attributes += ' font-weight="bold"' if bold else ""
    return f"<tspan{attributes}>{escape(text)}</tspan>" if attributes else escape(text)
