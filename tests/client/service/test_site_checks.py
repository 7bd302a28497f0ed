import pytest

from client import device
from client.service import site_checks
from client.service.site_checks import accelerator_memory_gb, check_accelerator
from client.site import SiteConfig
from simulation.simulate import OPEN_POLICY


def test_the_process_that_looks_for_a_card_says_what_torch_says_here():
    assert accelerator_memory_gb() == device.accelerator_memory_gb()


def test_a_torch_that_cannot_look_is_a_failed_check_with_its_last_line(
    tmp_path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(site_checks, "ASK_TORCH", "import a_library_that_is_not_here")
    site = SiteConfig(name="alpha", data=str(tmp_path), state=str(tmp_path), policy=OPEN_POLICY)
    found = check_accelerator(site)
    assert found.outcome == "failed"
    assert found.found.endswith("No module named 'a_library_that_is_not_here'")
