"""The processes of the service, by their ids."""

from __future__ import annotations

from collections.abc import Mapping

from earthmap.service.processes.ask import ASK
from earthmap.service.processes.estimate import ESTIMATE
from earthmap.service.processes.finetune import FINETUNE
from earthmap.service.processes.map import MAP
from earthmap.service.processes.process import Process
from earthmap.service.processes.respond import RESPOND
from earthmap.service.processes.sample import SAMPLE

PROCESSES: Mapping[str, Process] = {one.id: one for one in (MAP, RESPOND, ASK, SAMPLE, ESTIMATE, FINETUNE)}
"""In the order in which they are listed."""
