"""Whether tiles that look alike to a vector are alike in truth, on drawn tiles that were held out (docs/embed.md).

    python jobs/measure_embed.py --tiles 600

For each sensor and each of `nano`, `spectral` and the true shares of classes: precision at 10 (of the ten most alike
others, the share whose most frequent class is the tile's) beside chance, and the agreement of k-means with the most
frequent classes (adjusted Rand index) beside that of shuffled vectors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import numpy as np

from earthmap.evaluation.drawn import LOOKS, Batch, Look, draw_batch
from earthmap.metrics.clustering import adjusted_rand, kmeans, shuffled
from earthmap.metrics.likeness import chance, precision_at
from earthmap.predict import Predictor, build_predictor
from earthmap.tasks import make_query

SEEN = 0.5
"""Share of a tile that must be seen for its most frequent class to be that of its picture."""

NEAREST = 10
FIRST_SEED = (1 << 50) + 40_000
"""Of tiles that nothing was chosen on."""

SENSORS = ("sentinel-2-l2a", "landsat-c2-l2", "sentinel-1-db", "optical-uncalibrated")
_RESAMPLES = 500


def main() -> None:
    """Print one line for each sensor and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=600)
    arguments = parser.parse_args()
    nano = build_predictor({"name": "vlm", "checkpoint": "nano"})
    spectral = build_predictor({"name": "spectral"})
    for look in LOOKS:
        if look.dates == 1 and len(look.sensors) == 1 and look.sensors[0] in SENSORS:
            for line in _measured(look, {"nano": nano, "spectral": spectral}, arguments.tiles):
                sys.stdout.write(line + "\n")
                sys.stdout.flush()


def _measured(look: Look, predictors: dict[str, Predictor], tiles: int) -> Iterator[str]:
    batch = draw_batch(look, tiles, first=FIRST_SEED)
    told = batch.facts[0].classes
    places = [
        place for place, facts in enumerate(batch.facts) if facts.seen[0] >= SEEN and facts.classes == told
    ]  # fmt: skip
    places = [place for place in places if any(batch.facts[place].share(name) for name in told)]
    shares = np.array([[batch.facts[place].share(name) for name in told] for place in places])
    kinds = shares.argmax(axis=1)
    ways = {"true shares": np.sqrt(shares)} | {
        name: _vectors(predictor, batch, places) for name, predictor in predictors.items()
    }
    yield f"{look.sensors[0]}: {len(places)} tiles of {len(told)} classes; chance {chance(kinds):.3f}"
    for name, vectors in ways.items():
        precision = precision_at(vectors, kinds, NEAREST)
        dice = np.random.default_rng(0)
        means = [dice.choice(precision, len(precision)).mean() for _ in range(_RESAMPLES)]
        low, high = np.percentile(means, [2.5, 97.5])
        groups = kmeans(vectors, len(told))
        mixed = kmeans(shuffled(vectors), len(told))
        yield (
            f"  {name:12} precision at {NEAREST} {precision.mean():.3f} [{low:.3f}, {high:.3f}]; "
            f"adjusted Rand index {adjusted_rand(groups.labels, kinds):.3f}, shuffled "
            f"{adjusted_rand(mixed.labels, kinds):.3f}; "
            f"explained {groups.explained:.2f}, shuffled {mixed.explained:.2f}"
        )


def _vectors(predictor: Predictor, batch: Batch, places: list[int]) -> np.ndarray:
    """(n, D) as the predictor answers `embed`."""
    query = make_query("Embed this area.", task="embed")
    answers = predictor.predict([batch.items[place] for place in places], [query])
    found = [answer.embedding for (answer,) in answers]
    if any(vector is None for vector in found):
        raise SystemExit("a tile of which half is seen has no vector")
    return np.stack([vector for vector in found if vector is not None])


if __name__ == "__main__":
    main()
