"""What was answered about one place."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import geopandas


@dataclass(frozen=True, slots=True, repr=False)
class PlaceReply:
    """The answer to one question about one place, and where what was found lies."""

    document: Mapping[str, Any]
    """As `earthmap ask --json` writes it."""

    @property
    def status(self) -> str:
        """`answered`, `skipped` or `failed`; the document says why."""
        return str(self.document["status"])

    @property
    def answer(self) -> str | None:
        """In words, where the question has such an answer."""
        value = self.document.get("answer") or self.document.get("text")
        return None if value is None else str(value)

    @property
    def probability(self) -> float | None:
        """Of the answer, where there is one."""
        return self.document.get("probability")

    @property
    def fraction(self) -> float | None:
        """Of the seen ground, where a share was asked for, 0 to 1."""
        return self.document.get("fraction")

    @property
    def features(self) -> geopandas.GeoDataFrame:
        """What was found, in EPSG:4326."""
        import geopandas

        found = self.document["found"]["features"]
        return geopandas.GeoDataFrame.from_features(found, columns=["geometry", "kind", "label"], crs="EPSG:4326")

    def _told(self) -> list[str]:
        """What a person wants to know first."""
        told = {
            "answer": self.answer,
            "of the seen ground": None if self.fraction is None else f"{self.fraction:.1%}",
            "probability": None if self.probability is None else f"{self.probability:.2f}",
            "found": len(self.document["found"]["features"]) or None,
            "why": self.document.get("message"),
        }
        return [f"{name}: {value}" for name, value in told.items() if value is not None]

    def __repr__(self) -> str:
        return f"<PlaceReply {self.document['question']!r} {', '.join((self.status, *self._told()))}>"

    def _repr_html_(self) -> str:
        lines = [html.escape(line) for line in self._told()]
        return "<br>".join((f"<b>{html.escape(str(self.document['question']))}</b> {self.status}", *lines))
