"""The model's tests' small model."""

from tests.model.conftest import tiny

__all__ = ["tiny"]
