"""No implicit transfer between host and devices in a step, in all tests of this folder."""

import pytest

from tests.conftest import explicit_transfers


@pytest.fixture(autouse=True)
def _explicit_transfers():
    with explicit_transfers():
        yield
