"""Map one job file on the cluster that this runs on.

    ray job submit --working-dir . -- python jobs/map_area.py JOB.yaml

Needs `pip install 'earthmap[cluster]'` here and on the head, whose job server it asks (`--address`, or RAY_ADDRESS).
The same as `earthmap map JOB.yaml --cluster auto`; every further argument is one of `earthmap map`.
"""

from __future__ import annotations

import sys

from earthmap.cli import main

if __name__ == "__main__":
    sys.exit(main(["map", *sys.argv[1:], "--cluster", "auto"]))
