"""Who answers questions without a cluster: what workers and replicas must come to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from earthmap.predict import Predictor
from earthmap.service.asking import Asked, finish, prepare


class AnsweringHere:
    """Answers in threads of this process: two that prepare, and one that asks each predictor in turn."""

    def __init__(self, predictors: Mapping[str, Predictor]) -> None:
        self._predictors = dict(predictors)
        self._workers = ThreadPoolExecutor(2, thread_name_prefix="prepare")
        self._models = ThreadPoolExecutor(1, thread_name_prefix="predict")

    async def answer(self, asked: Asked) -> dict[str, Any]:
        """The reply. Raises EarthmapError."""
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(self._workers, prepare, asked)
        predictor = self._predictors[prepared.model]
        items, queries = [prepared.subject.item], [prepared.query]
        answers = await loop.run_in_executor(self._models, predictor.predict, items, queries)
        done = partial(finish, prepared, answers[0][0], predictor=predictor.key)
        return await loop.run_in_executor(self._workers, done)

    async def close(self) -> None:
        """End the threads; what they are at is not waited for."""
        for pool in (self._workers, self._models):
            pool.shutdown(wait=False, cancel_futures=True)
