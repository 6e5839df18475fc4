"""Connectors as operators save them."""

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse

from events.connectors import create_connector
from events.models import Connector
from events.services import create_channel
from gateway.connectors import kinds

INSTALL = ".venv/bin/python -m pip install -r requirements-connectors.txt"
KAFKA = {
    "name": "out",
    "type": "kafka",
    "direction": "sink",
    "channel": "trades",
    "options": {"bootstrap_servers": "127.0.0.1:9092", "topic": "trades"},
}


@pytest.fixture
def channel(db):
    return create_channel(address="trades", by="test")


@pytest.fixture
def _no_clients(monkeypatch):
    monkeypatch.setattr(kinds, "find_spec", lambda name: None)


@pytest.mark.usefixtures("channel", "_no_clients")
def test_a_connector_whose_client_is_missing_is_refused_with_the_command_that_installs_it(api):
    with pytest.raises(ValidationError) as refused:
        create_connector(**KAFKA, by="test")
    assert INSTALL in refused.value.message_dict["type"][0]
    answer = api.post("/api/v1/connectors/", KAFKA, format="json")
    assert answer.status_code == 400
    assert INSTALL in answer.content.decode()
    assert not Connector.objects.exists()


@pytest.mark.usefixtures("channel", "_no_clients")
def test_the_admin_shows_the_command_at_the_field(client, operator):
    client.force_login(operator)
    filled = KAFKA | {"options": '{"bootstrap_servers": "127.0.0.1:9092", "topic": "t"}', "start": "latest"}
    answer = client.post(reverse("admin:events_connector_add"), filled)
    assert INSTALL in answer.context["adminform"].form.errors["type"][0]


@pytest.mark.usefixtures("channel")
def test_a_connector_whose_client_is_installed_is_saved(api):
    assert api.post("/api/v1/connectors/", KAFKA, format="json").status_code == 201
