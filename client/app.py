"""The Flower side of a site: four kinds of message in, records out, and no text about errors.

Flower sends an exception's text and traceback to the coordinator; either may name a patient's
folder. Here every error becomes a code; its text goes to the site's own log.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from client import agreement, held_out, rounds
from client.site import SiteConfig, load_site, site_log
from common.errors import (
    ConfigError,
    ConsiliumError,
    DataError,
    DiskError,
    MessageError,
    PolicyError,
)
from common.messages import (
    ErrorCode,
    FloorTask,
    MeasureTask,
    PrepareTask,
    TestTask,
    TrainTask,
    ValidateTask,
)
from common.wire import body_of, to_content, weights_of

CONSILIUM_ERROR = 4100  # Flower keeps the codes below 1000 for itself
app = ClientApp()


@app.query("measure")
def measure(message: Message, context: Context) -> Message:
    """Answer with the site's fingerprint."""
    return _answer(
        message,
        context,
        lambda site: agreement.measure_site(site, body_of(MeasureTask, message.content)),
    )


@app.query("prepare")
def prepare(message: Message, context: Context) -> Message:
    """Agree on the plan and fill the cache."""
    return _answer(
        message,
        context,
        lambda site: agreement.prepare_site(site, body_of(PrepareTask, message.content)),
    )


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train for one round."""
    return _answer(
        message,
        context,
        lambda site: rounds.train_round(
            site, body_of(TrainTask, message.content), weights_of(message.content)
        ),
    )


@app.evaluate("validate")
def validate(message: Message, context: Context) -> Message:
    """Test weights on the site's own validation cases."""
    return _answer(
        message,
        context,
        lambda site: rounds.validate(
            site, body_of(ValidateTask, message.content), weights_of(message.content)
        ),
    )


@app.evaluate("test")
def test(message: Message, context: Context) -> Message:
    """Score a final model on a held-out site."""
    return _answer(
        message,
        context,
        lambda site: held_out.score_model(
            site, body_of(TestTask, message.content), weights_of(message.content)
        ),
    )


@app.evaluate("floor")
def floor(message: Message, context: Context) -> Message:
    """Measure the learning-free baseline on a held-out site."""
    return _answer(
        message,
        context,
        lambda site: held_out.measure_floor(site, body_of(FloorTask, message.content)),
    )


def _answer(message: Message, context: Context, act: Callable[[SiteConfig], object]) -> Message:
    """Do what was asked; on any error answer with a code and log the text at the site."""
    log = logging.getLogger("consilium.site")
    try:
        site = load_site(Path(str(context.node_config["site"])))
        log = site_log(site)
        result = act(site)
    except Exception as error:  # nothing may reach Flower, which would send its text
        log.exception("%s failed", message.metadata.message_type)
        return Message(Error(CONSILIUM_ERROR, _code(error)), reply_to=message)
    log.info("%s answered", message.metadata.message_type)
    body, weights = result if isinstance(result, tuple) else (result, None)
    return Message(to_content(body, weights), reply_to=message)


def _code(error: Exception) -> ErrorCode:
    """Return all that the coordinator may know of an error."""
    codes: list[tuple[type[Exception], ErrorCode]] = [
        (agreement.PlanDiffersError, "plan-differs"),
        (DataError, "data"),
        (PolicyError, "policy"),
        (DiskError, "disk"),
        (ConfigError, "config"),
        (MessageError, "message"),
        (torch.OutOfMemoryError, "out-of-memory"),
        (MemoryError, "out-of-memory"),
        (ConsiliumError, "internal"),
    ]
    return next((code for kind, code in codes if isinstance(error, kind)), "internal")
