"""The model's tests' small model, and learners on one thread: they are too small for two to help."""

from collections.abc import Iterator

import pytest
import torch

from earthmap.model.words import Words
from earthmap.training import Learner
from tests.model.conftest import tiny
from tests.training.learners import few_words, make, table

__all__ = ["tiny"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread while a test runs."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


@pytest.fixture(scope="session")
def words() -> Words:
    """Words for `learners.row`."""
    return few_words()


@pytest.fixture
def learner(words: Words) -> Learner:
    """At the start of `learners.table`."""
    return make(words, table())
