"""An application that speaks the protocol."""

import pytest

from tests.inference import publish


@pytest.fixture
def served(light_client, tmp_path):
    """The application with one model of two versions."""
    publish(light_client.app.state.graft, tmp_path / "made")
    return light_client
