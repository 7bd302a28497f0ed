import pytest

from client.service import hooks
from client.service.hooks import parts
from common.errors import ConfigError


def test_the_installed_flower_has_every_part_that_the_site_takes_hold_of():
    hooks.demand_hooks()


def test_a_part_that_is_missing_or_called_differently_is_named(monkeypatch):
    lacking = (
        ("flwr.no_such_module", "f", frozenset()),
        (hooks.TASK, "run_clientapp", frozenset({"tocken"})),
    )
    monkeypatch.setattr(parts, "HOOKS", lacking)
    with pytest.raises(ConfigError) as caught:
        hooks.demand_hooks()
    assert str(caught.value).splitlines() == [
        "flwr.no_such_module.f: expected a function, found none",
        "flwr.supernode.runtime.run_clientapp.run_clientapp: expected the arguments ['tocken']",
        "the installed Flower does not fit this package: expected flwr>=1.41,<1.43",
    ]


def test_our_codes_may_leave_and_flowers_texts_may_not():
    assert hooks.without_words(4100, "policy:plan") == "policy:plan"
    assert hooks.without_words(3, "<class 'OSError'>:<'/data/patient'>") == ""


def test_the_site_answers_with_the_code_of_its_app():
    from client.app import CONSILIUM_ERROR

    assert parts.CONSILIUM_ERROR == CONSILIUM_ERROR
