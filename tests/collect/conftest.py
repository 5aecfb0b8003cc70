"""What tests of collecting share: each HTTP client in turn."""

from __future__ import annotations

import pytest

from collect.net.wire import CLIENTS


@pytest.fixture(params=list(CLIENTS))
def client(request: pytest.FixtureRequest) -> str:
    """The name of an HTTP client; skipped where its package is not installed."""
    pytest.importorskip(request.param)
    return str(request.param)
