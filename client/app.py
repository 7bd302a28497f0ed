"""The Flower side of a site: eleven kinds of message in, records out, and no text about errors.

Flower sends an exception's text and traceback to the coordinator; either may name a patient's
folder. Here every error becomes a code; its text goes to the site's own log.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast, get_args

import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from client import (
    agreement,
    first_stage,
    held_out,
    masking,
    personalise,
    postprocessing,
    rank_models,
    rounds,
)
from client.site import SiteConfig, load_site, site_log
from common.axes import Weights
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
    FirstStageTask,
    FloorTask,
    KeysTask,
    MeasureTask,
    PersonaliseTask,
    PostprocessTask,
    PrepareTask,
    RankTask,
    TestTask,
    TrainTask,
    ValidateTask,
)
from common.wire import body_of, to_content, weights_of

T = TypeVar("T")
CONSILIUM_ERROR = 4100  # Flower keeps the codes below 1000 for itself
app = ClientApp()


def _answering(body: type[T], act: Callable[[SiteConfig, T], object]) -> ClientAppCallable:
    """Return a Flower handler for messages of one record without weights."""

    def handle(message: Message, context: Context) -> Message:
        return _answer(message, context, lambda site: act(site, body_of(body, message.content)))

    return handle


def _answering_weights(
    body: type[T], act: Callable[[SiteConfig, T, Weights], object]
) -> ClientAppCallable:
    """Return a Flower handler for messages of one record beside weights."""

    def handle(message: Message, context: Context) -> Message:
        content = message.content
        return _answer(
            message, context, lambda site: act(site, body_of(body, content), weights_of(content))
        )

    return handle


# All that a site can be asked to do.
app.query("keys")(_answering(KeysTask, masking.make_key))
app.query("measure")(_answering(MeasureTask, agreement.measure_site))
app.query("prepare")(_answering(PrepareTask, agreement.prepare_site))
app.query("first_stage")(_answering_weights(FirstStageTask, first_stage.predict_first_stage))
app.train()(_answering_weights(TrainTask, rounds.train_round))
app.train("personalise")(_answering_weights(PersonaliseTask, personalise.personalise))
app.evaluate("validate")(_answering_weights(ValidateTask, rounds.validate))
app.evaluate("postprocess")(_answering_weights(PostprocessTask, postprocessing.try_steps))
app.evaluate("test")(_answering_weights(TestTask, held_out.score_model))
app.evaluate("rank")(_answering(RankTask, rank_models.rank_models))
app.evaluate("floor")(_answering(FloorTask, held_out.measure_floor))


def _answer(message: Message, context: Context, act: Callable[[SiteConfig], object]) -> Message:
    """Do what was asked; on any error answer with a code and log the text at the site."""
    log = logging.getLogger("consilium.site")
    try:
        site = load_site(Path(str(context.node_config["site"])))
        log = site_log(site)
        log.info("%s received", message.metadata.message_type)
        result = act(site)
        body, weights = result if isinstance(result, tuple) else (result, None)
        content = to_content(body, weights)
    except Exception as error:  # nothing may reach Flower, which would send its text
        log.exception("%s failed", message.metadata.message_type)
        return Message(Error(CONSILIUM_ERROR, _code(error)), reply_to=message)
    log.info("%s answered", message.metadata.message_type)
    return Message(content, reply_to=message)


def _code(error: Exception) -> ErrorCode:
    """Return all that the coordinator may know of an error."""
    if isinstance(error, PolicyError) and f"policy:{error.rule}" in get_args(ErrorCode):
        return cast("ErrorCode", f"policy:{error.rule}")
    codes: list[tuple[type[Exception], ErrorCode]] = [
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
