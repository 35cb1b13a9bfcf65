"""What a cluster says of itself that is well."""

from __future__ import annotations

NODE = {"name": "10.0.0.2", "lead": [0.3, -0.2], "earthmap": "0.6", "python": "3.11.2"}
WELL = {
    "ray": "2.60.0", "alive": 1, "nodes": [NODE], "earthmap": "0.6", "resources": {"CPU": 4.0, "memory": 8e9},
}  # fmt: skip
