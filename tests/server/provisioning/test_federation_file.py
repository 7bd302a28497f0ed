"""FEDERATION.toml: every mistake in it is said at once, in words, with its place."""

from dataclasses import fields
from pathlib import Path

import pytest

from common.errors import ConfigError
from server.provisioning.federation_file import FederationFile, read_federation

SMALLEST = """
name = "glioma"
address = "federation.example.org:9092"
sites = ["north", "south"]
task = "brats-2021"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "FEDERATION.toml"
    path.write_text(text)
    return path


def defects(tmp_path: Path, text: str) -> list[str]:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        read_federation(path)
    return str(raised.value).replace(f"{path}: ", "").splitlines()


def test_the_smallest_file_is_enough(tmp_path: Path) -> None:
    file = read_federation(written(tmp_path, SMALLEST))
    assert file == FederationFile(
        name="glioma",
        address="federation.example.org:9092",
        names=(),
        listen="0.0.0.0",  # noqa: S104 - the default
        admin_addresses=("127.0.0.1",),
        sites=("north", "south"),
        task="brats-2021",
        contact="the person who gave you this folder",
        valid_days=365,
        max_message_mb=1024.0,
    )


def test_the_certificate_proves_all_names_once_and_loopback(tmp_path: Path) -> None:
    text = SMALLEST + 'names = ["10.0.0.5", "federation.example.org", "localhost"]'
    file = read_federation(written(tmp_path, text))
    assert file.certificate_names == (
        "federation.example.org",
        "10.0.0.5",
        "localhost",
        "127.0.0.1",
    )


def test_all_mistakes_are_said_at_once(tmp_path: Path) -> None:
    text = """
    name = "glio ma"
    adress = "a:1"
    address = "federation.example.org"
    names = ["fine.org", "not_fine"]
    admin_addresses = ["localhost"]
    sites = ["north", "a clinic", "Authority", "all"]
    valid_days = 0
    max_message_mb = -1
    task = "brats-2021"
    """
    assert sorted(defects(tmp_path, text)) == [
        (
            "address: expected a host, a colon and a port up to 65535, as in "
            "'federation.example.org:9092', found 'federation.example.org'"
        ),
        "admin_addresses.0: expected an IPv4 address, found 'localhost'",
        "adress: unknown key; did you mean 'address'?",
        "max_message_mb: expected greater than 0, found -1",
        "name: expected text of the pattern '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$', found 'glio ma'",
        "names.1: expected a host name or an IPv4 address, found 'not_fine'",
        (
            "sites.1: expected at most 64 letters, digits, '.', '_' and '-', a letter or digit "
            "first, found 'a clinic'"
        ),
        "sites.2: expected another name than authority, coordinator, all, found 'Authority'",
        "sites.3: expected another name than authority, coordinator, all, found 'all'",
        "valid_days: expected greater than or equal to 1, found 0",
    ]


@pytest.mark.parametrize(
    "address",
    ["host:0", "host:65536", "host:09", ":9092", "a..b:1", "-a:1", "1.2.3:9", "1.2.3.256:9", "a:b"],
)
def test_an_address_that_cannot_be_dialled_is_refused(tmp_path: Path, address: str) -> None:
    text = SMALLEST.replace("federation.example.org:9092", address)
    assert [line.partition(":")[0] for line in defects(tmp_path, text)] == ["address"]


def test_sites_that_one_file_system_would_mix_up_are_refused(tmp_path: Path) -> None:
    text = SMALLEST.replace('"south"', '"North"')
    assert defects(tmp_path, text) == [
        "sites: expected names that differ by more than capital letters, found 'north' and 'North'"
    ]


def test_the_same_site_twice_is_refused(tmp_path: Path) -> None:
    text = SMALLEST.replace('"south"', '"north"')
    assert defects(tmp_path, text) == [
        "sites: expected names that differ by more than capital letters, found 'north' and 'north'"
    ]


def test_a_federation_without_sites_is_refused(tmp_path: Path) -> None:
    text = SMALLEST.replace('"north", "south"', "")
    assert defects(tmp_path, text) == ["sites: expected at least one, found none"]


def test_a_contact_of_several_lines_is_refused(tmp_path: Path) -> None:
    assert defects(tmp_path, SMALLEST + 'contact = "a\\nb"') == [
        "contact: expected one line of text, found 'a\\nb'"
    ]


def test_an_unknown_task_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (line,) = defects(tmp_path, SMALLEST.replace("brats-2021", "brats-2020"))
    assert line.startswith("task: task 'brats-2020': expected a path ending in .toml or one of ")


def test_a_task_of_ones_own_lies_beside_the_file_and_is_known_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        'name = "liver"\nversion = 1\nchannels = ["CT"]\n'
        "[labels]\nbackground = 0\nliver = 1\n[regions]\nliver = [1]\n"
    )
    text = SMALLEST.replace("brats-2021", "own.toml")
    assert read_federation(written(tmp_path, text)).task == "liver"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml: expected a readable TOML file"):
        read_federation(tmp_path / "nowhere.toml")


def test_the_file_to_copy_says_every_key() -> None:
    path = Path(__file__).parents[3] / "configs" / "federation.toml"
    assert read_federation(path).sites == ("north", "south", "east")
    said = {line.partition(" =")[0] for line in path.read_text().splitlines() if " = " in line}
    assert said == {field.name for field in fields(FederationFile)}
