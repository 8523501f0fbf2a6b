"""Where keys lie: one file per service, made where it may be, refused where it is unfit."""

import json
import stat

import pytest
from clinic_shared.encryption.ciphers import Place
from clinic_shared.encryption.key_store import (
    FILE,
    DataKeysMissingError,
    find_keys,
    keys_in_clear,
    new_file,
    read_file,
    unwrapped,
)
from clinic_shared.encryption.keyring import Keyring
from clinic_shared.encryption.providers import FileProvider
from clinic_shared.settings import ServiceSettings

PLACE = Place("billing", "intake", "1")


def settings(folder, environment="development"):
    return ServiceSettings(
        environment=environment,
        secrets_dir=folder,
        database_url="postgresql://fictitious.example.org/none",
        amqp_url="amqp://fictitious.example.org",
    )


def production(folder):
    return settings(folder).model_copy(update={"environment": "production"})


def test_a_first_start_makes_keys_that_the_next_one_finds(tmp_path):
    made = find_keys(settings(tmp_path))
    assert find_keys(settings(tmp_path)) == made
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_production_makes_none(tmp_path):
    with pytest.raises(DataKeysMissingError, match=FILE):
        find_keys(production(tmp_path))
    assert not (tmp_path / FILE).exists()


def test_production_refuses_keys_made_for_development(tmp_path):
    find_keys(settings(tmp_path))
    with pytest.raises(DataKeysMissingError, match="development"):
        find_keys(production(tmp_path))


def test_production_takes_keys_of_its_own(tmp_path):
    (tmp_path / FILE).write_text(new_file())
    assert find_keys(production(tmp_path)) == read_file(tmp_path / FILE)


async def test_the_last_key_is_current(tmp_path):
    (tmp_path / FILE).write_text(new_file())
    stored = read_file(tmp_path / FILE)
    ring = Keyring(await unwrapped(stored, FileProvider(), service="billing"))
    assert ring.current_id.hex() == stored.encryption[-1].key_id
    sealed = ring.seal_row(PLACE, {"body": b"value"})
    tool = Keyring(keys_in_clear(tmp_path / FILE))
    assert tool.open_row(PLACE, sealed.data_key, sealed.values) == {"body": b"value"}


@pytest.mark.parametrize(
    "change",
    [
        {"encryption": []},
        {"provider": "paper"},
        {"unknown": 1},
        {"encryption": [{"key_id": "x", "created_at": "2026-01-01T00:00:00Z", "wrapped": "SECRET"}]},
    ],
)
def test_an_unusable_file_is_refused_without_saying_what_stands_in_it(tmp_path, change):
    file = tmp_path / FILE
    file.write_text(json.dumps(json.loads(new_file()) | change))
    with pytest.raises(DataKeysMissingError) as refusal:
        read_file(file)
    assert "SECRET" not in str(refusal.value)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    document = json.loads(new_file())
    document["index"] = document["encryption"]
    (tmp_path / FILE).write_text(json.dumps(document))
    with pytest.raises(DataKeysMissingError):
        read_file(tmp_path / FILE)
