"""Fixtures of the browser's tests."""

from tests.landing.conftest import record

__all__ = ["record"]
