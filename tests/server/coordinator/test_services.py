import configparser
from dataclasses import replace

from server.coordinator.kit_folder import KitFolder
from server.coordinator.services import container_file, systemd_unit


def parsed(text: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None, strict=True, delimiters=("=",))
    unit.optionxform = str
    unit.read_string(text)
    return unit


def test_the_unit_starts_the_kit_again_whatever_happens_and_may_write_below_it_only(kit):
    unit = parsed(systemd_unit(kit.folder))
    assert unit.sections() == ["Unit", "Service", "Install"]
    service = unit["Service"]
    command = service["ExecStart"]
    assert command.endswith(f'-m consilium coordinator start "{kit.folder.path}"')
    assert service["Restart"] == "always"
    assert service["ProtectSystem"] == "strict"
    assert service["ReadWritePaths"] == f'"{kit.folder.path}"'
    assert service["NoNewPrivileges"] == "yes"
    assert unit["Install"]["WantedBy"] == "multi-user.target"


def test_a_folder_with_signs_that_systemd_reads_is_quoted(kit):
    odd = kit.folder.path.with_name('50 % "odd"')
    kit.folder.path.rename(odd)
    unit = parsed(systemd_unit(replace(kit.folder, path=odd)))
    assert unit["Service"]["ReadWritePaths"].endswith('50 %% \\"odd\\""')


def test_the_container_installs_the_kits_version_and_asks_for_its_health(kit):
    text = container_file(KitFolder(kit.folder.path))
    assert "COPY consilium-0.1.0-py3-none-any.whl" in text
    assert 'ENTRYPOINT ["consilium", "coordinator", "start", "/kit"]' in text
    assert "HEALTHCHECK" in text
    assert "$" not in text
