import json
import socket
import threading
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

from client.service import credentials
from client.service.check import check_kit
from client.service.connection_checks import REFUSALS, check_connection
from client.service.kit_checks import check_dates
from common.kit import RefusalReason

DAY = timedelta(days=1)


def by_name(findings):
    return {finding.name: finding for finding in findings}


@pytest.fixture(autouse=True)
def no_accelerator(monkeypatch):
    """Ask no process for the card: loading torch takes seconds."""
    monkeypatch.setattr("client.service.site_checks.accelerator_memory_gb", lambda: None)


def outcomes(findings):
    return {finding.name: finding.outcome for finding in findings}


def test_a_sound_site_passes_every_check(make_kit, gate, monkeypatch):
    made = make_kit(gate.port)
    gate.knows(made.kit)
    monkeypatch.setattr("client.service.site_checks.accelerator_memory_gb", lambda: 24.0)
    found = outcomes(check_kit(made.folder))
    assert found == {
        "kit": "ok",
        "dates": "ok",
        "package": "ok",
        "Flower": "ok",
        "site.toml": "ok",
        "data": "ok",
        "disk": "ok",
        "accelerator": "ok",
        "privacy": "ok",
        "name of the coordinator": "ok",
        "connection": "ok",
        "certificate of the coordinator": "ok",
        "answer of the coordinator": "ok",
        "authentication": "ok",
        "clock": "ok",
    }


def test_the_command_prints_lines_and_exits_2_for_a_failure(make_kit, gate, run):
    made = make_kit(gate.port)
    gate.refuses("revoked", "ask the study office")
    code, out, _ = run("site", "check", made.folder, "--no-data")
    assert code == 2
    assert "failed       authentication: the coordinator has revoked this site's key\n" in out
    assert "it says: ask the study office\n" in out
    assert "-> ask the coordinator why" in out


def test_the_command_prints_json(make_kit, gate, run):
    made = make_kit(gate.port)
    gate.knows(made.kit)
    code, out, _ = run("site", "check", made.folder, "--no-data", "--json")
    assert code == 0
    assert {"name": "clock", "outcome": "ok"}.items() <= json.loads(out)[-1].items()


def test_without_a_kit_everything_else_is_not_checked(tmp_path):
    found = outcomes(check_kit(tmp_path))
    assert found.pop("kit") == "failed"
    assert set(found.values()) == {"not checked"}


def test_a_changed_and_a_missing_file_are_both_named(make_kit):
    made = make_kit(1)
    (made.folder / "ca.crt").write_text("changed")
    (made.folder / "identity.key").unlink()
    found = by_name(check_kit(made.folder, data=False))["kit"]
    assert found.outcome == "failed"
    assert "ca.crt: changed" in found.found
    assert "identity.key: missing" in found.found


def test_a_key_that_others_may_read_is_a_failure_with_its_command(make_kit):
    made = make_kit(1)
    (made.folder / "site.key").chmod(0o644)
    found = by_name(check_kit(made.folder, data=False))["kit"]
    assert "site.key: expected rights 0600, for it is a secret, found 0644" in found.found
    assert found.mend.endswith("chmod 600 site.key identity.key")


@pytest.mark.parametrize(
    ("days", "outcome", "words"),
    [
        (100, "ok", "in 200 days"),
        (-10, "failed", "is valid from"),
        (280, "warning", "in 20 days"),
        (310, "failed", "expired on"),
    ],
)
def test_dates(make_kit, days, outcome, words):
    made = make_kit(1)
    start = datetime.fromisoformat(made.kit.validity.not_before)
    now = start + timedelta(days=1) + timedelta(days=days)
    found = check_dates(made.kit, made.folder, now)
    assert found.outcome == outcome
    assert words in found.found


def test_another_version_says_which_to_install(make_kit):
    made = make_kit(1)
    made.write(version="9.9.9")
    found = by_name(check_kit(made.folder, data=False))["package"]
    assert (found.outcome, found.mend) == (
        "failed",
        "install consilium 9.9.9, or ask the coordinator for a kit for 0.1.0",
    )


def test_a_changed_package_of_the_same_version_is_a_failure(make_kit):
    made = make_kit(1)
    made.write(package_sha256="0" * 64)
    found = by_name(check_kit(made.folder, data=False))["package"]
    assert found.outcome == "failed"
    assert "its files are not those of the kit" in found.found


def test_what_is_left_to_fill_in_is_listed_by_line(make_kit):
    made = make_kit(1)
    path = made.folder / "site.toml"
    path.write_text('# FILL IN below\nname = "hospital-1"\ndata = "FILL IN: folder of cases"\n')
    found = by_name(check_kit(made.folder, data=False))
    assert found["site.toml"].found == 'line 3: data = "FILL IN: folder of cases"'
    assert found["disk"].outcome == "not checked"


def test_a_typo_in_the_sites_file_names_the_key(make_kit):
    made = make_kit(1)
    path = made.folder / "site.toml"
    path.write_text(path.read_text().replace("state =", "stat ="))
    found = by_name(check_kit(made.folder, data=False))["site.toml"]
    assert "did you mean 'state'?" in found.found


def test_the_file_of_another_site_is_a_failure(make_kit):
    made = make_kit(1)
    path = made.folder / "site.toml"
    path.write_text(path.read_text().replace('"hospital-1"', '"hospital-2"'))
    found = by_name(check_kit(made.folder, data=False))["site.toml"]
    assert found.found == "names the site 'hospital-2', the kit is for 'hospital-1'"


def with_line(folder, key: str, line: str) -> None:
    path = folder / "site.toml"
    lines = [old for old in path.read_text().splitlines() if not old.startswith(f"{key} =")]
    path.write_text("\n".join([line, *lines]))


def test_data_in_a_relative_folder_are_a_warning(make_kit):
    made = make_kit(1)
    with_line(made.folder, "data", 'data = "data"')
    found = by_name(check_kit(made.folder, data=False))["site.toml"]
    assert found.outcome == "warning"
    assert found.mend == "write the whole path of data, beginning with /"


def test_a_state_folder_in_the_kit_is_well(make_kit):
    made = make_kit(1)
    with_line(made.folder, "state", 'state = "state"')
    assert by_name(check_kit(made.folder, data=False))["site.toml"].outcome == "ok"


def test_defects_of_the_data_are_listed_and_the_rest_is_still_checked(make_kit, tmp_path):
    made = make_kit(1)
    (tmp_path / "empty").mkdir()
    path = made.folder / "site.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("data =")]
    path.write_text("\n".join([f'data = "{tmp_path}/empty"', *lines]))
    found = by_name(check_kit(made.folder))
    assert found["data"].outcome == "failed"
    assert found["disk"].outcome == "ok"


def test_training_on_the_cpu_is_a_warning(make_kit):
    made = make_kit(1)
    found = by_name(check_kit(made.folder, data=False))["accelerator"]
    assert found.outcome == "warning"
    assert "on the CPU" in found.found


def test_a_hello_is_signed_as_flower_signs(make_kit, gate):
    names = (FLEET_HTTP_PUBLIC_KEY_HEADER, TIMESTAMP_HEADER, FLEET_HTTP_SIGNATURE_HEADER)
    assert names == (credentials.KEY_HEADER, credentials.TIME_HEADER, credentials.SIGNATURE_HEADER)
    made = make_kit(gate.port)
    gate.knows(made.kit)
    check_connection(made.kit, made.folder)
    key, time, signature = (gate.headers[-1][name] for name in names)
    public = bytes_to_public_key(b64decode(key))
    assert verify_signature(public, time.encode("ascii"), b64decode(signature))
    assert abs((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()) < 60


def test_every_reason_to_refuse_has_words():
    assert set(get_args(RefusalReason)) == set(REFUSALS)


def test_a_clock_that_is_off_is_a_failure(make_kit, gate):
    made = make_kit(gate.port)
    gate.knows(made.kit, ahead=timedelta(seconds=200))
    found = by_name(check_connection(made.kit, made.folder))["clock"]
    assert found.outcome == "failed"
    assert found.found.endswith("s behind the coordinator's")


def test_a_coordinator_of_another_federation_is_a_failure(make_kit, gate):
    made = make_kit(gate.port)
    gate.knows(made.kit)
    gate.answer[1]["federation"] = "other"
    found = by_name(check_connection(made.kit, made.folder))["authentication"]
    assert found.outcome == "failed"


def test_a_port_that_nobody_listens_at(make_kit):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        made = make_kit(probe.getsockname()[1])
        found = by_name(check_connection(made.kit, made.folder))
    assert found["name of the coordinator"].outcome == "ok"
    assert found["connection"].found.endswith("refuses connections")
    assert found["certificate of the coordinator"].outcome == "not checked"
    assert found["clock"].found == "mend first: connection"


def test_a_name_that_is_not_known(make_kit):
    made = make_kit(1)
    made.write(coordinator="no-such-host.invalid:443")
    found = by_name(check_connection(made.kit, made.folder))["name of the coordinator"]
    assert found.found == "the name in no-such-host.invalid:443 is not known here"


def test_a_listener_that_does_not_answer(make_kit, monkeypatch):
    monkeypatch.setattr("client.service.hello.ask.__defaults__", (0.3,))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        made = make_kit(silent.getsockname()[1])
        found = check_connection(made.kit, made.folder)
    assert [finding.outcome for finding in found].count("failed") == 1
    assert any("in time" in finding.found for finding in found)


def test_a_server_without_tls(make_kit):
    def answer(listener):
        peer, _ = listener.accept()
        with peer:
            peer.recv(100)
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as plain:
        thread = threading.Thread(target=answer, args=(plain,))
        thread.start()
        made = make_kit(plain.getsockname()[1])
        found = by_name(check_connection(made.kit, made.folder))
        thread.join()
    assert "does not speak TLS" in found["certificate of the coordinator"].found


def test_the_certificate_of_another_federation(make_kit, start_gate, other_authority, tmp_path):
    gate = start_gate(*other_authority.server_files(tmp_path / "other"))
    made = make_kit(gate.port)
    found = by_name(check_connection(made.kit, made.folder))["certificate of the coordinator"]
    assert found.outcome == "failed"
    assert "a certificate of another authority" in found.found
    assert gate.headers == []


def test_a_certificate_for_another_address(make_kit, start_gate, authority, tmp_path):
    gate = start_gate(*authority.server_files(tmp_path / "elsewhere", host="127.0.0.2"))
    made = make_kit(gate.port)
    found = by_name(check_connection(made.kit, made.folder))["certificate of the coordinator"]
    assert "not made out to 127.0.0.1" in found.found


def test_an_expired_certificate(make_kit, start_gate, authority, tmp_path):
    now = datetime.now(UTC)
    files = authority.server_files(tmp_path / "old", start=now - 3 * DAY, end=now - DAY)
    made = make_kit(start_gate(*files).port)
    found = by_name(check_connection(made.kit, made.folder))["certificate of the coordinator"]
    assert "has expired" in found.found


def test_another_web_server_is_not_taken_for_a_coordinator(make_kit, gate):
    made = make_kit(gate.port)
    gate.answer = (200, {"hello": "world"})
    found = by_name(check_connection(made.kit, made.folder))["answer of the coordinator"]
    assert found.outcome == "failed"
    assert "not as a coordinator of Consilium" in found.found
