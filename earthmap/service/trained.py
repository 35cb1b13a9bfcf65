"""Models that jobs trained, offered to questions from the first that names one; nobody has to hold them ready.

Few are offered at once: one more takes the place of the one that was not asked for longest. Runs compute such a model
themselves, so that a withdrawal ends none (docs/decisions/0041-a-trained-model-can-be-asked.md).
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from earthmap.service.processes.scope import OF_JOB
from earthmap.service.replicas import ReplicaOptions, deploy_for_questions, running, spec_of, withdraw

MOST = 4
"""Models that are offered at once, where nobody says; one that is not asked takes no memory after a while."""


class Trained:
    """What is offered on the cluster that this process is connected to; used by one event loop."""

    def __init__(self, options: ReplicaOptions, *, most: int = MOST) -> None:
        """`options` are those of any model, but that no replica is held ready. Withdraws what others left behind."""
        self._options, self._most = replace(options, fewest=0), most
        self._offered: dict[str, None] = {}
        """Names, the longest not asked first."""
        self._deploying = ThreadPoolExecutor(1, thread_name_prefix="earthmap-trained")
        for name in running():
            if name.startswith(OF_JOB):
                withdraw(name)

    async def offer(self, name: str, checkpoint: str) -> None:
        """Have the model `name` asked through `earthmap.service.replicas.replica_handle` from now on.

        Raises:
            ModelError: for a checkpoint that cannot be used.
            ClusterError: where Ray Serve does not take it.
        """
        await asyncio.get_running_loop().run_in_executor(self._deploying, self._offer, name, checkpoint)

    async def look(self, name: str) -> None:
        """Find out whether `name`, which could not be asked just now, is there; else its next question deploys it."""
        await asyncio.get_running_loop().run_in_executor(self._deploying, self._look, name)

    def _offer(self, name: str, checkpoint: str) -> None:
        if name not in self._offered:
            deploy_for_questions(name, spec_of(checkpoint), options=self._options)
        self._offered.pop(name, None)
        self._offered[name] = None
        if len(self._offered) > self._most:
            self._withdraw(next(iter(self._offered)))

    def _look(self, name: str) -> None:
        if name not in running():
            self._offered.pop(name, None)

    def _withdraw(self, name: str) -> None:
        """End its replicas when they have answered; that takes a while, and nobody waits for it."""
        del self._offered[name]
        threading.Thread(target=withdraw, args=(name,), name="earthmap-withdraw", daemon=True).start()
