"""The Flower side of a site: thirteen kinds of message in, records out, and no text about errors.

Flower sends an exception's text and traceback to the coordinator; either may name a patient's
folder. Here every error becomes a code; its text goes to the site's own log.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypeVar, cast, get_args

import torch
from flwr.app import Context, Error, Message, RecordDict
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
from client.egress.questions import keep_question
from client.permission import require_action, require_size
from client.policy import Action
from client.privacy.releases import note_release
from client.secure import keys, unmasking
from client.site import SiteConfig, load_site, site_log
from common.axes import Weights
from common.errors import (
    ConfigError,
    ConsiliumError,
    DataError,
    DiskError,
    ErrorCode,
    MessageError,
    PolicyError,
)
from common.messages import (
    AgreeTask,
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
    UnmaskTask,
    ValidateTask,
)
from common.secure_sum import MaskKey
from common.wire import body_of, n_bytes, to_content, weights_of

T = TypeVar("T")
_Act: TypeAlias = Callable[[SiteConfig, RecordDict], tuple[object, object]]
"""From a message to its record and what the site answers."""
CONSILIUM_ERROR = 4100  # Flower keeps the codes below 1000 for itself
app = ClientApp()


def _answering(
    action: Action, body: type[T], act: Callable[[SiteConfig, T], object]
) -> ClientAppCallable:
    """Return a Flower handler for messages of one record without weights."""

    def answer(site: SiteConfig, content: RecordDict) -> tuple[object, object]:
        task = body_of(body, content)
        return task, act(site, task)

    return lambda message, context: _answer(action, message, context, answer)


def _answering_weights(
    action: Action, body: type[T], act: Callable[[SiteConfig, T, Weights], object]
) -> ClientAppCallable:
    """Return a Flower handler for messages of one record beside weights."""

    def answer(site: SiteConfig, content: RecordDict) -> tuple[object, object]:
        task = body_of(body, content)
        return task, act(site, task, weights_of(content))

    return lambda message, context: _answer(action, message, context, answer)


def _key(site: SiteConfig, task: KeysTask) -> MaskKey:
    """Return a public key for one sum of counts, or for all sums of updates of a run."""
    make = keys.run_key if task.purpose == "updates" else masking.make_key
    return make(site, task)


# All that a site can be asked to do.
app.query("keys")(_answering("keys", KeysTask, _key))
app.query("measure")(_answering("measure", MeasureTask, agreement.measure_site))
app.query("prepare")(_answering("prepare", PrepareTask, agreement.prepare_site))
app.query("first_stage")(
    _answering_weights("first_stage", FirstStageTask, first_stage.predict_first_stage)
)
app.query("agree")(_answering("agree", AgreeTask, unmasking.agree))
app.query("unmask")(_answering("unmask", UnmaskTask, unmasking.unmask))
app.train()(_answering_weights("train", TrainTask, rounds.train_round))
app.train("personalise")(
    _answering_weights("personalise", PersonaliseTask, personalise.personalise)
)
app.evaluate("validate")(_answering_weights("validate", ValidateTask, rounds.validate))
app.evaluate("postprocess")(
    _answering_weights("postprocess", PostprocessTask, postprocessing.try_steps)
)
app.evaluate("test")(_answering_weights("test", TestTask, held_out.score_model))
app.evaluate("rank")(_answering("rank", RankTask, rank_models.rank_models))
app.evaluate("floor")(_answering("floor", FloorTask, held_out.measure_floor))


def _answer(action: Action, message: Message, context: Context, act: _Act) -> Message:
    """Do what was asked; on any error answer with a code and log the text at the site."""
    log = logging.getLogger("consilium.site")
    try:
        site = load_site(Path(str(context.node_config["site"])))
        log = site_log(site)
        log.info("%s received", message.metadata.message_type)
        require_action(site.policy, action)
        require_size(site.policy, n_bytes(message.content), f"a message {action}")
        task, result = act(site, message.content)
        body, weights = result if isinstance(result, tuple) else (result, None)
        note_release(site, getattr(task, "run", None), body, task)
        content = to_content(body, weights)
        require_size(site.policy, n_bytes(content), f"an answer to {action}")
        keep_question(site, message.metadata.message_id, task)
    except PolicyError as error:
        log.warning("%s refused: %s", message.metadata.message_type, error)
        return Message(Error(CONSILIUM_ERROR, _code(error)), reply_to=message)
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
