"""The model's tests' small model, on one thread: it is too small for two to help."""

from collections.abc import Iterator

import pytest
import torch

from tests.model.conftest import tiny

__all__ = ["tiny"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread while a test runs."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)
