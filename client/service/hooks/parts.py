"""Which parts of Flower are replaced or called, and whether the installed one has them."""

import inspect
from importlib import import_module
from typing import Any

from common.errors import ConfigError

START, CONNECTION = "flwr.supernode.start_client_internal", "flwr.supernode.fleet_http_connection"
CLIENT, EXECUTION = "flwr.supernode.fleet_http_client", "flwr.supercore.superexec.run_superexec"
TASK, ENDING = "flwr.supernode.runtime.run_clientapp", "flwr.supercore.exit.exit_handler"
STATE, RUN = "flwr.supernode.nodestate.in_memory_nodestate", "flwr.supercore.run"
CONSILIUM_ERROR = 4100  # as client.app answers; that imports torch

HOOKS: tuple[tuple[str, str, frozenset[str]], ...] = (
    (
        START,
        "_pull_and_store_message",
        frozenset({"state", "object_store", "receive", "get_run", "get_fab", "pull_object"})
        | {"confirm_message_received"},
    ),
    (START, "_push_messages", frozenset({"state"})),
    (STATE, "InMemoryNodeState.get_messages_legacy", frozenset({"is_reply"})),
    (START, "_insert_message", frozenset({"msg", "state", "store"})),
    (CLIENT, "FleetHttpClient.SendNodeHeartbeat", frozenset({"request"})),
    (CLIENT, "FleetHttpClient.ActivateNode", frozenset({"request"})),
    (CLIENT, "FleetHttpClient.DeactivateNode", frozenset({"request"})),
    (CONNECTION, "make_simple_http_retry_invoker", frozenset()),
    ("flwr.supernode.cli.flower_supernode", "flower_supernode", frozenset()),
    (EXECUTION, "get_executor", frozenset({"executor_type"})),
    (EXECUTION, "run_superexec", frozenset({"runtime_api_address", "superexec_auth_secret"})),
    (TASK, "run_clientapp", frozenset({"runtime_api_address", "token", "insecure", "parent_pid"})),
    (TASK, "push_message", frozenset({"client", "message", "context"})),
)
"""Module, function, and the arguments by which we call or replace it."""


def demand_hooks() -> None:
    """Demand that the installed Flower is built as this package expects.

    Raises:
        ConfigError: with one line per part that is missing or called differently.
    """
    lacking = [line for hook in HOOKS if (line := _lacking(*hook))]
    if not isinstance(getattr(import_module(ENDING), "registered_exit_handlers", None), list):
        lacking.append(f"{ENDING}.registered_exit_handlers: expected a list")
    if not hasattr(getattr(import_module(START), "time", None), "sleep"):
        lacking.append(f"{START}.time: expected the module, found none")
    if not hasattr(import_module(RUN), "RunNotRunningException"):
        lacking.append(f"{RUN}.RunNotRunningException: expected a class, found none")
    if lacking:
        lines = "\n".join(lacking)
        raise ConfigError(
            f"{lines}\nthe installed Flower does not fit this package: expected flwr>=1.41,<1.43"
        )


def _lacking(module: str, path: str, arguments: frozenset[str]) -> str | None:
    try:
        found: Any = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        missing = arguments - set(inspect.signature(found).parameters)
    except (ImportError, AttributeError, TypeError, ValueError):
        return f"{module}.{path}: expected a function, found none"
    return f"{module}.{path}: expected the arguments {sorted(missing)}" if missing else None
