"""earthmap answers a question about an area of the Earth."""

from __future__ import annotations

__version__ = "0.1.0"
