from datetime import UTC, datetime

import pytest

from common.errors import ConfigError
from server.dashboard.access import Access, access_for
from server.provisioning.authority import new_authority, new_server, valid_for

TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of tests
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def certified(tmp_path):
    authority = new_authority("study", NOW)
    server = new_server(authority, ["dash.hospital.example", "10.1.2.3"], valid_for(30, NOW))
    (tmp_path / "cert.pem").write_bytes(server.certificate)
    (tmp_path / "key.pem").write_bytes(server.key)
    return {"certificate": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}


NOTHING = {"token_file": None, "certificate": None, "key": None}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_loopback_needs_neither_token_nor_certificate(host):
    access = access_for(host, 8470, **NOTHING)
    assert access.admits({})
    assert access.scheme == "http"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "dash.hospital.example"])  # noqa: S104
def test_another_address_is_refused_without_token_and_tls(host, token_file, certified):
    for given in (NOTHING, {**NOTHING, "token_file": token_file}, {**NOTHING, **certified}):
        with pytest.raises(ConfigError, match=r"expected --token-file, --certificate and --key"):
            access_for(host, 8470, **given)


def test_another_address_is_served_with_both_under_the_names_of_the_certificate(
    token_file, certified
):
    access = access_for("0.0.0.0", 8470, token_file=token_file, **certified)  # noqa: S104
    assert access.url(8470) == "https://dash.hospital.example:8470/"
    assert access.knows_host("Dash.Hospital.Example:8470")
    assert access.knows_host("10.1.2.3")
    assert not access.knows_host("evil.example:8470")
    assert not access.knows_host("localhost")


def test_a_certificate_without_its_key_is_refused(certified):
    with pytest.raises(ConfigError, match="expected both or none"):
        access_for("127.0.0.1", 8470, **{**NOTHING, "certificate": certified["certificate"]})


def test_a_certificate_with_a_key_that_is_not_its_own_is_refused(token_file, certified, tmp_path):
    other = tmp_path / "other.pem"
    other.write_bytes(new_authority("other", NOW).key)
    wrong = ((token_file, token_file), (certified["certificate"], other), (tmp_path / "no", other))
    for certificate, key in wrong:
        with pytest.raises(ConfigError, match="expected a certificate and its key"):
            access_for("10.1.2.3", 1, token_file=token_file, certificate=certificate, key=key)


def test_a_token_that_others_can_read_is_refused(token_file):
    token_file.chmod(0o640)
    with pytest.raises(ConfigError, match="only you can read"):
        access_for("127.0.0.1", 8470, **{**NOTHING, "token_file": token_file})


@pytest.mark.parametrize("text", ["", "short", "two words that are long enough", "ü" * 30])
def test_a_weak_token_is_refused(tmp_path, text):
    path = tmp_path / "weak"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="token"):
        access_for("127.0.0.1", 8470, **{**NOTHING, "token_file": path})


def test_the_token_or_its_cookie_is_admitted_and_nothing_else():
    access = Access("127.0.0.1", 8470, ("127.0.0.1",), token=TOKEN)
    cookie = f"consilium-dashboard={access.cookie()}"
    assert access.admits({"authorization": f"Bearer {TOKEN}"})
    assert access.admits({"cookie": f"other=1; {cookie}"})
    for headers in (
        {},
        {"authorization": "Bearer "},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN}0"},
        {"cookie": f"consilium-dashboard={TOKEN}"},
        {"cookie": cookie[:-1]},
        {"cookie": "consilium-dashboard=\u00e9\x00;;="},
    ):
        assert not access.admits(headers)


def test_the_cookie_outlives_a_restart_and_ends_with_the_token():
    first = Access("127.0.0.1", 8470, (), token=TOKEN)
    assert first.cookie() == Access("127.0.0.1", 9000, (), token=TOKEN).cookie()
    assert first.cookie() != Access("127.0.0.1", 8470, (), token=TOKEN[::-1]).cookie()
    assert TOKEN not in first.cookie()


def test_no_word_of_the_token_is_in_the_access_as_text(token_file):
    assert TOKEN not in repr(access_for("::1", 1, **{**NOTHING, "token_file": token_file}))


@pytest.mark.parametrize("header", ["[::1]:8470", "[::1]", "127.0.0.1:8470", "localhost"])
def test_loopback_is_known_by_its_names(header):
    assert access_for("::1", 8470, **NOTHING).knows_host(header)


@pytest.mark.parametrize(
    "header", ["", "evil.example", "127.0.0.1.evil.example", "[::1]x", "localhost@evil", "::1"]
)
def test_other_host_names_are_not_known(header):
    assert not access_for("127.0.0.1", 8470, **NOTHING).knows_host(header)
