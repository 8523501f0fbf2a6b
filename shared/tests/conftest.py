"""What tests of both halves of the runtime use."""

from collections.abc import Iterator

import pytest
from clinic_shared.testing_spans import Spans, recorded


@pytest.fixture
def spans(request: pytest.FixtureRequest) -> Iterator[Spans]:
    """Trace this test; a ratio given by indirect parametrisation traces a part of it."""
    with recorded(ratio=getattr(request, "param", 1.0)) as found:
        yield found
