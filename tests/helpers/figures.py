"""What the tests of pictures share."""

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def assert_texts_apart(figure):
    """No text of a matplotlib figure covers another."""
    FigureCanvasAgg(figure).draw()
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    boxes = [text.get_window_extent() for text in shown]
    for (one, a), (other, b) in itertools.combinations(zip(shown, boxes, strict=True), 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        # Boxes have room for ascenders and descenders: two pixels of it may be shared.
        assert across <= 0 or down <= 2, (one.get_text(), other.get_text())
