"""A kit that lost, changed or showed a file is noticed, and a whole one is not."""

import subprocess
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.files import PRIVATE, write_atomically
from common.kit_checksums import checksum_list, kit_digest, spoken, verify_kit

FILES = {
    "README.md": b"read me",
    "ca.crt": b"a certificate",
    "identity.key": b"a secret",
    "kit.toml": b"a record",
    "site.key": b"another secret",
}


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        mode = PRIVATE if name.endswith(".key") else 0o644
        write_atomically(tmp_path / name, content, mode=mode)
    (tmp_path / "SHA256SUMS").write_bytes(checksum_list(FILES))
    return tmp_path


def test_a_whole_kit_has_no_defect(kit: Path) -> None:
    assert verify_kit(kit) == ()


def test_the_list_is_one_that_sha256sum_checks(kit: Path) -> None:
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    checked = subprocess.run(command, cwd=kit, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    printed = subprocess.run(
        ["sha256sum", "SHA256SUMS"], cwd=kit, capture_output=True, text=True, check=True
    )
    assert printed.stdout.split()[0] == kit_digest(kit)


def test_what_a_hospital_writes_itself_is_not_looked_at(kit: Path) -> None:
    (kit / "site.toml").write_text("name = 'north'")
    (kit / "state").mkdir()
    assert verify_kit(kit) == ()


def test_missing_and_changed_files_and_open_secrets_are_all_named_at_once(kit: Path) -> None:
    (kit / "ca.crt").unlink()
    (kit / "kit.toml").write_bytes(b"another record")
    (kit / "site.key").chmod(0o640)
    assert verify_kit(kit) == (
        "ca.crt: missing; copy the whole kit again",
        "kit.toml: changed; copy it again from the kit that was sent",
        (
            "site.key: expected rights 0600, for it is a secret, found 0640; "
            "mend with: chmod 600 site.key"
        ),
    )


def test_a_file_that_everybody_may_read_is_no_defect_unless_it_is_a_secret(kit: Path) -> None:
    (kit / "ca.crt").chmod(0o666)
    assert verify_kit(kit) == ()


def test_a_list_that_was_cut_short_does_not_pass(kit: Path) -> None:
    lines = (kit / "SHA256SUMS").read_bytes().splitlines(keepends=True)
    (kit / "SHA256SUMS").write_bytes(b"".join(lines[:3]))
    assert verify_kit(kit) == (
        "SHA256SUMS: expected kit.toml in it",
        "SHA256SUMS: expected site.key in it",
    )


def test_a_list_cannot_point_out_of_the_kit(kit: Path) -> None:
    with (kit / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  ../other/site.key\n")
    assert verify_kit(kit) == ("SHA256SUMS: line 6: expected a checksum and a file name",)


def test_a_coordinators_kit_has_other_files(kit: Path) -> None:
    (kit / "coordinator.toml").write_text("")
    assert "SHA256SUMS: expected executor.secret in it" in verify_kit(kit)


def test_a_folder_without_a_list_is_no_kit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a kit with SHA256SUMS in it"):
        verify_kit(tmp_path)
    with pytest.raises(ConfigError, match="expected a kit with SHA256SUMS in it"):
        kit_digest(tmp_path / "nowhere")


def test_a_digest_is_read_out_in_groups_of_four() -> None:
    assert spoken("0123456789abcdef") == "0123 4567 89ab cdef"
