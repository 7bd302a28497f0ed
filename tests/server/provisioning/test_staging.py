"""A change of many kits happens whole or not at all, wherever the process dies."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import ConfigError, DiskError
from common.kit import read_coordinator_kit
from common.kit_checksums import verify_kit
from server.provisioning.authority import node_public_key
from server.provisioning.provision import Provisioned
from server.provisioning.registry import read_registry
from server.provisioning.staging import change, held

Make = Callable[..., Provisioned]
KILLED = 77


def dies_at_rename(number: int, work: Callable[[], object]) -> bool:
    """Do work in a child that ends at its n-th rename, as if the power failed; say if it did."""
    child = os.fork()
    if child == 0:
        seen = 0

        def watch(event: str, _: tuple[object, ...]) -> None:
            nonlocal seen
            if event == "os.rename":
                seen += 1
                if seen == number:
                    os._exit(KILLED)

        sys.addaudithook(watch)
        try:
            work()
        except BaseException:  # noqa: BLE001 - the child must not go on as a test
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, KILLED}
    return code == KILLED


def demand_consistent(kits: Path, sites: set[str]) -> None:
    """Demand that kits, registry and coordinator speak of the same keys."""
    registry, coordinator = read_registry(kits), read_coordinator_kit(kits / "coordinator")
    assert set(registry.sites) == set(coordinator.sites) == sites
    for site in sites:
        key = node_public_key((kits / site / "site.key").read_bytes())
        assert key == registry.current[site].public_key == coordinator.sites[site].public_key
    for name in ("coordinator", *sites):
        assert verify_kit(kits / name) == ()
    hidden = {path.name for path in kits.rglob(".*")}
    assert hidden == {".lock"}


def test_wherever_the_first_run_dies_every_kit_is_whole_and_the_next_run_completes(
    make: Make, kits: Path, tmp_path: Path
) -> None:
    for number in range(1, 100):
        died = dies_at_rename(number, lambda: make(sites=("north",)))
        for folder in (path for path in kits.iterdir() if path.is_dir()):
            if folder.name in {"coordinator", "north"}:
                assert verify_kit(folder) == ()
        make(sites=("north",))
        demand_consistent(kits, {"north"})
        kits.rename(tmp_path / f"done-{number}")
        if not died:
            break
    assert 15 < number < 99


def test_wherever_a_change_dies_it_is_whole_or_undone_after_the_next_run(
    make: Make, kits: Path
) -> None:
    make(sites=("north",))
    undone = finished = 0
    for number in range(1, 100):
        before = read_registry(kits)
        died = dies_at_rename(
            number, lambda: make(sites=("north",), rotate=("north", "coordinator"))
        )
        made = make(sites=("north",))
        demand_consistent(kits, {"north"})
        after = read_registry(kits)
        changes = {len(after.sites["north"]), len(after.coordinator)}
        assert len(changes) == 1  # both or none
        undone += before == after
        finished += died and before != after
        assert made.remarks == () or made.remarks[0].startswith("an earlier change was interrupted")
        if not died:
            break
    assert undone > 5
    assert finished > 5
    assert number < 99


def test_two_at_once_are_refused(make: Make, kits: Path) -> None:
    make()
    with held(kits), pytest.raises(ConfigError, match="another process is provisioning there"):
        make()


@pytest.mark.parametrize("name", ["FEDERATION.toml", "north"])
def test_a_folder_with_something_else_in_it_is_left_alone(
    make: Make, kits: Path, name: str
) -> None:
    kits.mkdir()
    (kits / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"expected an empty folder or one .* found {name}"):
        make()
    assert [path.name for path in kits.iterdir()] == [name]


def test_a_file_in_place_of_the_folder_is_refused(make: Make, kits: Path) -> None:
    kits.write_text("mine")
    with pytest.raises(ConfigError, match="expected a folder for kits, found a file"):
        make()


def test_a_folder_that_cannot_be_made_is_refused(make: Make, kits: Path) -> None:
    kits.parent.joinpath("kits").symlink_to(kits.parent / "file" / "below")
    kits.parent.joinpath("file").write_text("")
    with pytest.raises(DiskError, match="cannot be made or written"):
        make()


def test_an_empty_folder_that_is_there_is_used(make: Make, kits: Path) -> None:
    kits.mkdir()
    make()
    demand_consistent(kits, {"north", "south", "east"})


def test_nothing_to_change_writes_nothing(tmp_path: Path) -> None:
    change(tmp_path, {})
    assert [*tmp_path.iterdir()] == []


def test_a_change_that_cannot_be_finished_says_where_and_is_finished_later(
    make: Make, kits: Path
) -> None:
    make()
    readme = kits / "north" / "README.md"
    readme.unlink()
    readme.mkdir()
    with pytest.raises(DiskError, match=f"^{readme}: cannot be written: Is a directory; mend it"):
        make()
    readme.rmdir()
    (remark,) = make().remarks
    assert remark.startswith("an earlier change was interrupted and is finished now")
    demand_consistent(kits, {"north", "south", "east"})
