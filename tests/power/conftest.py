"""Fixtures: disks whose power can be cut take root and a loop device."""

import os

import pytest


@pytest.fixture
def root() -> None:
    """Skip where images cannot be mounted."""
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        pytest.skip("a power cut takes root and loop devices: run scripts/test as root")
