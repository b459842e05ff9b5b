"""Options of the repository's own tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=4, help="how often the loop is killed in test_interruption.py")
