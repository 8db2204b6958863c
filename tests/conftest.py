"""What all tests share: the long ones wait for --nightly, and random ones repeat themselves unless it is given."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Where a test names no backend, the references compute: thousands of small programs, each met once, would be compiled.
os.environ.setdefault("MINIGRAPH_BACKEND", "numpy")

# A failure in CI must be there again on the next machine: no seed, no memory, no clock. The nightly run explores.
settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly",
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="also the tests that take minutes; more random examples")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("nightly" if config.getoption("nightly") else "ci")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("nightly"):
        return
    long = [item for item in items if item.get_closest_marker("nightly")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
