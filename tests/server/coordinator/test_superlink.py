import os
import subprocess
import sys
import tomllib
from pathlib import Path

from server.coordinator.executor import executor_arguments
from server.coordinator.superlink import superlink_arguments

PROJECT = Path(__file__).parents[3]
BUNDLE = PROJECT / "server" / "coordinator" / "bundle" / "pyproject.toml"


def run(*command: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(PROJECT), **env},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_bundle_names_the_same_programs_and_settings_as_the_project():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    bundle = tomllib.loads(BUNDLE.read_text())
    assert bundle["tool"]["flwr"] == project["tool"]["flwr"]
    assert bundle["project"]["name"] == "consilium"
    assert bundle["project"]["version"] == project["project"]["version"]


def test_the_superlink_demands_known_nodes_tls_and_a_database_below_the_kit(kit):
    arguments = superlink_arguments(kit.folder, "127.0.0.1:1")
    assert "--enable-supernode-auth" in arguments
    assert "--insecure" not in arguments
    assert arguments[arguments.index("--isolation") + 1] == "process"
    assert arguments[arguments.index("--database") + 1] == str(kit.folder.database)
    assert arguments[arguments.index("--health-server-address") + 1] == "127.0.0.1:1"


def test_the_executor_dials_this_machine(kit):
    assert f"127.0.0.1:{kit.port}" in executor_arguments(kit.folder)


def test_without_flowers_hook_nothing_starts(kit):
    without_hook = (
        "import flwr.superlink.main as main; main._get_middleware = lambda: []\n"
        "from server.coordinator.superlink import install_gate\n"
        "from server.coordinator.kit_folder import KitFolder\n"
        "from pathlib import Path\n"
        f"install_gate(KitFolder(Path({str(kit.folder.path)!r})))\n"
    )
    ended = run("-c", without_hook)
    assert ended.returncode != 0
    assert "expected the hook that the gate needs" in ended.stderr


def test_a_kit_without_its_key_is_named_and_nothing_starts(kit):
    kit.folder.key.unlink()
    ended = run("-m", "server.coordinator.superlink", kit.folder.path)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == f"consilium: {kit.folder.key}: missing from the kit"
