"""A page inside another: a run's report in a notebook, where it cannot reach what is around it."""

from __future__ import annotations

import html
from dataclasses import dataclass, field

HEIGHT_PX = 1000
"""Of the frame: the figures and the map of a report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InlinePage:
    """A page that a notebook shows where it is a cell's last value.

    Example:
        >>> InlinePage(text="<b>water</b>")._repr_html_()[:8]
        '<iframe '
    """

    text: str = field(repr=False)
    """The whole HTML file; it must load nothing."""
    height_px: int = HEIGHT_PX

    def _repr_html_(self) -> str:
        # A page may hold what strangers wrote: its scripts run, but not as the notebook's own (no allow-same-origin).
        return (
            f'<iframe srcdoc="{html.escape(self.text, quote=True)}" sandbox="allow-scripts" '
            f'title="earthmap" style="width: 100%; height: {self.height_px}px; border: 0"></iframe>'
        )
