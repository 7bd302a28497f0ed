import pytest

from client.app import app
from common.errors import ConfigError, FederationError
from common.messages import MeasureTask
from common.task import load_task
from server.flower_sites import FlowerSites
from server.node_names import NODES_VARIABLE, registered_names, write_names
from simulation.grid import InProcessGrid


def measured(tiny_study, home, names) -> list[str]:
    nodes = dict(enumerate(tiny_study.write_sites(home).values(), start=1))
    grid = InProcessGrid(app, {node: {"site": str(path)} for node, path in nodes.items()})
    task = MeasureTask(run="run", task=load_task(tiny_study.config.task))
    return [reply.site for reply in FlowerSites(grid, names=names).measure(task, 2, 10.0)]


def test_a_site_is_who_its_key_says(tiny_study, tmp_path, monkeypatch):
    write_names(tmp_path / "nodes.json", {1: "alpha", 2: "beta"})
    monkeypatch.setenv(NODES_VARIABLE, str(tmp_path / "nodes.json"))
    assert sorted(measured(tiny_study, tmp_path, registered_names)) == ["alpha", "beta"]


@pytest.mark.parametrize("names", [{1: "beta", 2: "alpha"}, {1: "alpha"}, {}])
def test_a_site_with_another_sites_name_or_an_unknown_key_ends_the_run(tiny_study, tmp_path, names):
    with pytest.raises(FederationError, match="which it is not"):
        measured(tiny_study, tmp_path, lambda: names)


def test_without_a_service_a_sites_word_is_taken(tiny_study, tmp_path, monkeypatch):
    monkeypatch.delenv(NODES_VARIABLE, raising=False)
    assert sorted(measured(tiny_study, tmp_path, registered_names)) == ["alpha", "beta"]


def test_a_list_of_names_that_is_lost_lets_nobody_in(tmp_path, monkeypatch):
    monkeypatch.setenv(NODES_VARIABLE, str(tmp_path / "nodes.json"))
    with pytest.raises(ConfigError):
        registered_names()
