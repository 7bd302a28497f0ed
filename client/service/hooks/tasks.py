"""The process that works on one message: what it may say of an error, and what it inherits."""

from importlib import import_module
from typing import Any

from client.service.hooks.parts import CONSILIUM_ERROR, ENDING, TASK


def without_words(code: int, reason: str | None) -> str:
    """Return what of an error may leave: our own codes, nothing of Flower's texts."""
    return reason or "" if code == CONSILIUM_ERROR else ""


def silence_errors() -> None:
    """Take the text out of errors that Flower itself makes of a task; it may hold paths."""
    task: Any = import_module(TASK)
    app: Any = import_module("flwr.app")
    original = task.push_message

    def push(client: Any, message: Any, context: Any) -> None:
        if message.has_error():
            error = message.error
            message.error = app.Error(error.code, without_words(error.code, error.reason))
        original(client, message, context)

    task.push_message = push


def forget_endings() -> None:
    """Drop what the parent registered to be done at its end; for a process just forked."""
    import_module(ENDING).registered_exit_handlers.clear()
