"""The words that matplotlib draws, and those that leave the picture."""

from contextlib import contextmanager
from unittest import mock

from matplotlib.text import Text


@contextmanager
def cut_off():
    """A list of the texts that are drawn, also in part, outside of their figure."""
    found, draw = [], Text.draw

    def watched(text, renderer):
        if text.get_visible() and text.get_text().strip():
            box, frame = text.get_window_extent(renderer), text.figure.bbox
            inside = box.x0 >= -0.5 <= box.y0
            if not (inside and box.x1 <= frame.x1 + 0.5 and box.y1 <= frame.y1 + 0.5):
                found.append(text.get_text())
        draw(text, renderer)

    with mock.patch.object(Text, "draw", watched):
        yield found
