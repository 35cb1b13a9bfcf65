"""Map an event on the cluster that this runs on.

    ray job submit --working-dir . -- python jobs/respond.py --event POLYGON --event-time TIME …

Needs `pip install 'earthmap[cluster]'` here and on the head, whose job server it asks (`--address`, or RAY_ADDRESS).
The same as `earthmap respond … --cluster auto`; every argument is one of that command.
"""

from __future__ import annotations

import sys

from earthmap.cli import main

if __name__ == "__main__":
    sys.exit(main(["respond", *sys.argv[1:], "--cluster", "auto"]))
