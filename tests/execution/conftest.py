"""A cluster for the tests that need one, started once a module."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest
from machines import ENVIRONMENT, NODES, Machines

from unmask.execution.executor import Executor


@pytest.fixture(scope="module")
def machines(request: pytest.FixtureRequest) -> Iterator[Machines]:
    # A path to a socket must be short.
    folder = tempfile.mkdtemp(prefix="ray")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "RAY_TMPDIR": folder}.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        started = Machines(getattr(request.module, "NODES", NODES))
        yield started
        started.leave()
        started.cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def on(machines: Machines) -> Executor:
    machines.complete()
    return machines.on


@pytest.fixture
def apart(machines: Machines) -> Machines:
    """The cluster while this process is not connected to it."""
    machines.complete()
    machines.leave()
    return machines
