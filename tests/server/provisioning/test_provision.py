"""Kits over the life of a federation: founded, grown, shrunk, renewed, and left as they are."""

import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.site import load_site
from common.errors import ConfigError
from common.kit import Validity, read_coordinator_kit, read_site_kit
from common.kit_checksums import kit_digest, verify_kit
from server.provisioning.authority import facts_of, identity_public_key, node_public_key
from server.provisioning.provision import Provisioned
from server.provisioning.registry import read_registry

Make = Callable[..., Provisioned]
MARCH = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MAY = "2026-05-01T12:00:00+00:00"
A_YEAR = Validity(not_before="2026-03-01T11:00:00+00:00", not_after="2027-03-01T12:00:00+00:00")
SITES = ("north", "south", "east")
FOUR = (*SITES, "west")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def states(made: Provisioned) -> dict[str, str]:
    return {kit.name: kit.state for kit in made.kits}


def keys_of(kit: Path) -> tuple[bytes, bytes]:
    return (kit / "site.key").read_bytes(), (kit / "identity.key").read_bytes()


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_kit_is_whole_and_its_checksum_is_told(make: Make, kits: Path) -> None:
    made = make()
    assert states(made) == {"coordinator": "new", "north": "new", "south": "new", "east": "new"}
    for kit in made.kits:
        assert verify_kit(Path(kit.folder)) == ()
        assert kit.sha256 == kit_digest(kits / kit.name)
        assert kit.valid_until == "2027-03-01T12:00:00+00:00"
    assert made.remarks == ()


def test_a_sites_kit_holds_what_its_hospital_needs(make: Make, kits: Path) -> None:
    make()
    assert set(contents(kits / "north")) == {
        "README.md",
        "SHA256SUMS",
        "ca.crt",
        "identity.key",
        "kit.toml",
        "site.key",
        "site.toml",
    }
    kit = read_site_kit(kits / "north")
    assert (kit.federation, kit.site) == ("glioma", "north")
    assert kit.coordinator == "federation.example.org:9092"
    assert kit.validity == A_YEAR
    peers = {
        name: identity_public_key((kits / name / "identity.key").read_bytes())
        for name in ("east", "south")
    }
    assert kit.peers == peers


def test_the_coordinator_knows_the_keys_of_the_kits(make: Make, kits: Path) -> None:
    make()
    kit = read_coordinator_kit(kits / "coordinator")
    assert {name: entry.public_key for name, entry in kit.sites.items()} == {
        name: node_public_key((kits / name / "site.key").read_bytes()) for name in SITES
    }
    assert {entry.validity for entry in kit.sites.values()} == {A_YEAR}
    assert {entry.revoked for entry in kit.sites.values()} == {None}
    assert len((kits / "coordinator" / "executor.secret").read_bytes()) == 32
    assert len(bytes.fromhex((kits / "coordinator" / "admin.token").read_text())) == 32
    facts = facts_of((kits / "coordinator" / "coordinator.crt").read_bytes())
    assert facts.names == ("federation.example.org", "localhost", "127.0.0.1")
    assert facts.validity == A_YEAR


def test_secrets_can_be_read_by_their_owner_only(make: Make, kits: Path) -> None:
    make()
    secret = {name for name in contents(kits) if rights(kits / name) == 0o600}
    assert secret == {
        "authority/ca.key",
        "coordinator/admin.token",
        "coordinator/coordinator.key",
        "coordinator/executor.secret",
        *(f"{site}/{key}.key" for site in SITES for key in ("site", "identity")),
    }
    assert {rights(path) for path in (kits, *kits.iterdir()) if path.is_dir()} == {0o700}


def test_no_secret_is_in_another_kit(make: Make, kits: Path) -> None:
    make()
    private = [content for path, content in contents(kits).items() if path.endswith(".key")]
    assert len(set(private)) == 8
    assert len({keys_of(kits / site) for site in SITES}) == 3


def test_the_hospitals_own_file_needs_only_the_data_folder(make: Make, kits: Path) -> None:
    make()
    path = kits / "north" / "site.toml"
    assert path.read_text().count("FILL IN") == 1
    path.write_text(path.read_text().replace("FILL IN", "/data"))
    site = load_site(path)
    assert (site.name, site.data, site.state) == ("north", "/data", str(kits / "north" / "state"))
    assert site.identity == str(kits / "north" / "identity.key")
    assert (site.policy.metrics, site.policy.fingerprint) == ("ranks", "coarse")
    assert site.peers is None


def test_peers_can_be_pinned_by_taking_the_signs_away(make: Make, kits: Path) -> None:
    make()
    path = kits / "north" / "site.toml"
    text, marker = path.read_text(), "# [peers]"
    head, _, tail = text.partition(marker)
    path.write_text(head + (marker + tail).replace("# ", ""))
    assert load_site(path).peers == read_site_kit(kits / "north").peers


def test_a_second_time_changes_nothing(make: Make, kits: Path) -> None:
    make()
    before = contents(kits)
    made = make(now=MARCH + timedelta(days=9))
    assert not made.anything_changed
    assert contents(kits) == before


def test_another_duration_holds_for_what_is_issued_later(make: Make, kits: Path) -> None:
    make()
    made = make(sites=FOUR, valid_days=10)
    assert {kit.name: kit.valid_until[:10] for kit in made.kits} == {
        "coordinator": "2027-03-01",
        "north": "2027-03-01",
        "south": "2027-03-01",
        "east": "2027-03-01",
        "west": "2026-03-11",
    }


def test_a_site_that_joins_changes_no_others_keys(make: Make, kits: Path) -> None:
    make()
    (kits / "north" / "site.toml").write_text("the hospital's own")
    (kits / "coordinator" / "state").mkdir()
    (kits / "coordinator" / "state" / "database").write_text("of a running program")
    before = {site: keys_of(kits / site) for site in SITES}
    made = make(sites=FOUR)
    assert states(made) == {
        "coordinator": "changed",
        "north": "changed",
        "south": "changed",
        "east": "changed",
        "west": "new",
    }
    assert [kit.name for kit in made.kits if kit.for_secure_sums_only] == [*SITES]
    assert {site: keys_of(kits / site) for site in SITES} == before
    assert set(read_site_kit(kits / "north").peers) == {"south", "east", "west"}
    assert set(read_coordinator_kit(kits / "coordinator").sites) == {*FOUR}
    assert (kits / "north" / "site.toml").read_text() == "the hospital's own"
    assert (kits / "coordinator" / "state" / "database").exists()
    assert made.remarks == ()  # every kit is whole


def test_a_site_that_is_gone_from_the_file_must_be_revoked_first(make: Make, kits: Path) -> None:
    make()
    before = contents(kits)
    with pytest.raises(ConfigError, match="sites: east: has a kit and is no longer listed; "):
        make(sites=("north", "south"))
    assert contents(kits) == before


def test_a_revoked_site_is_refused_from_that_moment_on(make: Make, kits: Path) -> None:
    make()
    made = make(revoke=("east",), now=datetime.fromisoformat(MAY))
    assert states(made)["east"] == "revoked"
    entry = read_coordinator_kit(kits / "coordinator").sites["east"]
    assert entry.revoked == MAY
    assert set(read_site_kit(kits / "north").peers) == {"south"}
    later = make(sites=("north", "south"), now=MARCH + timedelta(days=90))
    assert not later.anything_changed
    again = make(revoke=("east",), now=MARCH + timedelta(days=90))
    assert again.remarks == ("east: was revoked before; nothing to do",)
    assert read_coordinator_kit(kits / "coordinator").sites["east"].revoked == MAY


def test_new_keys_replace_the_old_ones_everywhere(make: Make, kits: Path) -> None:
    make()
    before, others = keys_of(kits / "east"), keys_of(kits / "north")
    made = make(rotate=("east",), now=datetime.fromisoformat(MAY))
    after = keys_of(kits / "east")
    assert states(made)["east"] == "new-keys"
    assert not set(before) & set(after)
    entry = read_coordinator_kit(kits / "coordinator").sites["east"]
    assert entry.public_key == node_public_key(after[0])
    assert entry.validity.not_after == "2027-05-01T12:00:00+00:00"
    assert read_site_kit(kits / "north").peers["east"] == identity_public_key(after[1])
    assert keys_of(kits / "north") == others
    old, new = read_registry(kits).sites["east"]
    assert (old.public_key, old.replaced) == (node_public_key(before[0]), MAY)
    assert (new.public_key, new.replaced) == (entry.public_key, None)


def test_new_keys_let_a_revoked_site_in_again(make: Make, kits: Path) -> None:
    make()
    make(revoke=("east",))
    assert states(make(rotate=("east",)))["east"] == "new-keys"
    assert read_coordinator_kit(kits / "coordinator").sites["east"].revoked is None
    assert read_registry(kits).sites["east"][0].revoked == "2026-03-01T12:00:00+00:00"


def test_new_keys_for_all_leave_revoked_sites_out(make: Make, kits: Path) -> None:
    make()
    make(revoke=("east",))
    assert states(make(rotate=("all",))) == {
        "coordinator": "new-keys",
        "north": "new-keys",
        "south": "new-keys",
        "east": "revoked",
    }


def test_the_coordinators_new_certificate_needs_no_new_kit_of_a_site(
    make: Make, kits: Path
) -> None:
    make()
    old = contents(kits / "coordinator")
    made = make(rotate=("coordinator",))
    new = contents(kits / "coordinator")
    changed = {name for name, content in new.items() if old[name] != content}
    assert changed >= {"coordinator.key", "coordinator.crt", "admin.token", "executor.secret"}
    assert states(made) == {
        "coordinator": "new-keys",
        "north": "unchanged",
        "south": "unchanged",
        "east": "unchanged",
    }


def test_another_address_gives_a_new_certificate_and_changed_kits(make: Make, kits: Path) -> None:
    make()
    made = make(address="10.0.0.5:443", names=("federation.example.org",))
    assert {kit.name: (kit.state, kit.changed) for kit in made.kits} == {
        "coordinator": ("new-keys", ()),
        **dict.fromkeys(SITES, ("changed", ("coordinator",))),
    }
    facts = facts_of((kits / "coordinator" / "coordinator.crt").read_bytes())
    assert set(facts.names) == {
        "10.0.0.5",
        "federation.example.org",
        "localhost",
        "127.0.0.1",
    }
    assert read_coordinator_kit(kits / "coordinator").port == 443


def test_a_key_in_a_safe_is_asked_for_only_when_it_is_needed(make: Make, kits: Path) -> None:
    make()
    key = kits / "authority" / "ca.key"
    elsewhere = key.rename(kits.parent / "safe")
    make(sites=FOUR, revoke=("east",))
    with pytest.raises(ConfigError, match=r"ca.key: expected the authority's key, for the coord"):
        make(sites=FOUR, rotate=("coordinator",))
    elsewhere.rename(key)
    assert states(make(sites=FOUR, rotate=("coordinator",)))["coordinator"] == "new-keys"


def test_a_kit_that_was_handed_over_and_deleted_is_not_made_again(make: Make, kits: Path) -> None:
    make()
    for path in (kits / "east").iterdir():
        path.unlink()
    (kits / "east").rmdir()
    made = make(sites=FOUR)
    assert states(made)["east"] == "not-here"
    assert not (kits / "east").exists()
    assert states(make(sites=FOUR, rotate=("east",)))["east"] == "new-keys"
    assert verify_kit(kits / "east") == ()


def test_a_text_that_was_lost_is_written_again(make: Make, kits: Path) -> None:
    make()
    (kits / "north" / "README.md").unlink()
    made = make()
    assert [(kit.name, kit.changed) for kit in made.kits if kit.state == "changed"] == [
        ("north", ("README.md",))
    ]
    assert verify_kit(kits / "north") == ()


def test_keys_that_were_not_issued_are_noticed(make: Make, kits: Path) -> None:
    make()
    (kits / "north" / "site.key").write_bytes((kits / "east" / "site.key").read_bytes())
    with pytest.raises(ConfigError, match="north: expected the keys that were issued, found other"):
        make()


def test_an_authority_of_another_federation_is_noticed(make: Make, kits: Path) -> None:
    make()
    with pytest.raises(ConfigError, match="of the federation lung, found those of glioma"):
        make(name="lung")
    certificate = kits / "authority" / "ca.crt"
    certificate.write_bytes((kits / "coordinator" / "coordinator.crt").read_bytes())
    with pytest.raises(ConfigError, match=r"ca.crt: expected the certificate with serial number "):
        make()


def test_a_coordinators_kit_without_its_secrets_is_noticed(make: Make, kits: Path) -> None:
    make()
    (kits / "coordinator" / "admin.token").unlink()
    with pytest.raises(
        ConfigError, match=r"coordinator: expected coordinator.key, .* as they were"
    ):
        make(sites=FOUR)
    make(sites=FOUR, rotate=("coordinator",))
    assert verify_kit(kits / "coordinator") == ()


def test_what_ends_soon_is_said_with_the_command_that_helps(make: Make) -> None:
    make()
    assert make(now=MARCH + timedelta(days=334)).remarks == ()
    (first, *_) = make(now=MARCH + timedelta(days=335)).remarks
    assert (
        first == "coordinator: ends on 2027-03-01, in 30 days; --rotate coordinator makes new keys"
    )
    expired = make(now=MARCH + timedelta(days=366)).remarks
    assert "north: expired on 2027-03-01; --rotate north makes new keys" in expired


def test_nothing_outlasts_the_authority(make: Make) -> None:
    make()
    made = make(rotate=("all",), now=MARCH + timedelta(days=3650))
    assert {kit.valid_until for kit in made.kits} == {"2036-03-01T12:00:00+00:00"}
    assert (
        "authority: ends on 2036-03-01, in 3 days; found a new federation in another folder"
    ) in made.remarks


def test_an_expired_authority_issues_nothing_but_still_revokes(make: Make, kits: Path) -> None:
    make()
    later = MARCH + timedelta(days=3654)
    with pytest.raises(ConfigError, match="authority: expired on 2036-03-01T12:00:00"):
        make(rotate=("coordinator",), now=later)
    with pytest.raises(ConfigError, match="authority: expired on 2036-03-01T12:00:00"):
        make(sites=FOUR, now=later)
    make(revoke=("east",), now=later)
    assert read_coordinator_kit(kits / "coordinator").sites["east"].revoked is not None


def test_a_clock_that_is_wrong_by_years_is_noticed(make: Make) -> None:
    make()
    with pytest.raises(ConfigError, match="is yet to come; set the clock"):
        make(sites=FOUR, now=MARCH - timedelta(days=400))


def test_a_secret_that_others_may_read_is_pointed_out(make: Make, kits: Path) -> None:
    make()
    (kits / "north" / "site.key").chmod(0o644)
    assert make().remarks == (
        (
            f"{kits / 'north'}: site.key: expected rights 0600, for it is a secret, found 0644; "
            "mend with: chmod 600 site.key"
        ),
    )


def test_names_that_were_never_issued_are_refused_all_at_once(make: Make, kits: Path) -> None:
    make()
    before = contents(kits)
    with pytest.raises(ConfigError) as raised:
        make(revoke=("nort", "east"), rotate=("east", "sooth", "elsewhere"))
    assert str(raised.value).splitlines() == [
        "--revoke nort: no kit of that name was issued; did you mean 'north'?",
        "--rotate east: expected a site that is not revoked in the same command",
        "--rotate sooth: no kit of that name was issued; did you mean 'south'?",
        (
            "--rotate elsewhere: no kit of that name was issued; expected one of all, coordinator, "
            "east, north, south"
        ),
    ]
    assert contents(kits) == before


def test_nothing_can_be_revoked_before_there_are_kits(make: Make, kits: Path) -> None:
    with pytest.raises(ConfigError, match="expected kits to be there, found none yet"):
        make(revoke=("north",))
    assert [path.name for path in kits.iterdir()] == [".lock"]


def test_a_folder_that_is_in_the_way_of_a_new_kit_is_left_alone(make: Make, kits: Path) -> None:
    make()
    (kits / "west").mkdir()
    (kits / "west" / "notes").write_text("mine")
    before = contents(kits)
    with pytest.raises(ConfigError, match="west: expected nothing there, for the kit of that name"):
        make(sites=FOUR)
    assert contents(kits) == before
