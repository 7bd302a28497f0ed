"""Every private part of Flower that the site's service takes hold of, in one room.

Flower offers no way to refuse a bundle that carries code, no sign of life, and no executor of one's
own. Each part is looked for before anything starts (`parts`); without it the site does not start.
"""

from client.service.hooks.connection import keep_pulse, keep_trying, sign_off_before_signing_on
from client.service.hooks.messages import refuse_messages
from client.service.hooks.parts import EXECUTION, TASK, demand_hooks
from client.service.hooks.patience import look_again_soon
from client.service.hooks.replies import wait_for_own_replies
from client.service.hooks.tasks import forget_endings, silence_errors, without_words

__all__ = [
    "EXECUTION",
    "TASK",
    "demand_hooks",
    "forget_endings",
    "keep_pulse",
    "keep_trying",
    "look_again_soon",
    "refuse_messages",
    "sign_off_before_signing_on",
    "silence_errors",
    "wait_for_own_replies",
    "without_words",
]
