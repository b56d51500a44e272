"""What a build is lent of a machine's way to the package index."""

import configparser

import pytest

from cluster.pip_access import CERTIFICATES, Access, access


@pytest.fixture
def lent(tmp_path):
    """(what is lent, the settings in its pip.conf), from lines of `pip config list` and an environment."""

    def write(listed, **environment):
        ways = access(listed, environment)(tmp_path)
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(ways.secrets["pip"])
        return ways, dict(parser["global"])

    return write


@pytest.fixture
def certificates(tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n")
    return path


def test_a_machine_without_settings_lends_an_empty_file(lent, tmp_path):
    ways, settings = lent([])
    assert ways == Access({"pip": tmp_path / "pip.conf"})
    assert settings == {}


def test_what_leads_to_the_index_is_kept_and_taste_is_not(lent):
    _, settings = lent(
        [
            "global.index-url='https://user:pa%ss@index.example/simple'",
            "global.timeout='60'",
            "global.disable-pip-version-check='1'",
            "install.user='true'",
            "freeze.timeout='1'",
        ]
    )
    assert settings == {"index-url": "https://user:pa%ss@index.example/simple", "timeout": "60"}


def test_a_variable_wins_over_a_file_and_the_section_for_install_over_the_general_one(lent):
    _, settings = lent(
        [
            ":env:.index-url='https://of-variable.example'",
            "global.index-url='https://of-file.example'",
            "global.proxy='http://general.example'",
            "install.proxy='http://install.example'",
        ]
    )
    assert settings == {"index-url": "https://of-variable.example", "proxy": "http://install.example"}


@pytest.mark.parametrize("by_pip", [True, False])
def test_certificates_are_lent_and_named_by_where_the_build_finds_them(lent, certificates, by_pip):
    listed = [f"global.cert='{certificates}'"] if by_pip else []
    ways, settings = lent(listed, SSL_CERT_FILE="" if by_pip else str(certificates))
    assert ways.secrets["ca"] == certificates
    assert settings == {"cert": CERTIFICATES}


def test_certificates_that_are_not_there_are_not_lent(lent):
    ways, settings = lent(["global.cert='/nowhere/ca.pem'"])
    assert "ca" not in ways.secrets
    assert settings == {}


def test_a_folder_of_packages_is_lent_under_its_own_path_and_an_empty_one_is_not(lent, tmp_path):
    full, empty = tmp_path / "full", tmp_path / "empty"
    full.mkdir()
    empty.mkdir()
    (full / "a-1-py3-none-any.whl").touch()
    links = f"https://packages.example/ {full} {empty} {tmp_path}/nowhere"
    ways, settings = lent([f":env:.find-links='{links}'"])
    assert ways.folders == (full,)
    assert settings["find-links"].split() == ["https://packages.example/", str(full)]


def test_the_file_may_hold_a_password_so_nobody_else_can_read_it(lent):
    ways, _ = lent([])
    assert ways.secrets["pip"].stat().st_mode & 0o077 == 0
