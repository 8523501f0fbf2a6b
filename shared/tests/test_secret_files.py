"""Settings as files of one folder."""

from clinic_shared.secret_files import with_secret_files


def test_a_file_is_a_setting_of_its_name(tmp_path):
    (tmp_path / "clinic_amqp_url").write_text("amqp://broker.example.org\n")
    (tmp_path / "signing-key.pem").write_text("no setting")
    (tmp_path / "..data").mkdir()
    environ = {"CLINIC_SECRETS_DIR": str(tmp_path)}
    assert with_secret_files(environ) == {**environ, "CLINIC_AMQP_URL": "amqp://broker.example.org"}


def test_the_environment_wins_over_a_file(tmp_path):
    (tmp_path / "clinic_log_level").write_text("DEBUG")
    environ = {"CLINIC_SECRETS_DIR": str(tmp_path), "CLINIC_LOG_LEVEL": "INFO"}
    assert with_secret_files(environ) == environ


def test_without_a_folder_there_is_only_the_environment():
    assert with_secret_files({"CLINIC_LOG_LEVEL": "INFO"}) == {"CLINIC_LOG_LEVEL": "INFO"}
