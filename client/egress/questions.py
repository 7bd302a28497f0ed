"""Which question of the coordinator was answered last: what gives a ledger's line run and round.

The answer itself does not name its run. The process that answers writes this file just before the
answer leaves it; the process that sends compares the number of the message, and believes no other.
"""

from pathlib import Path

from client.site import SiteConfig
from common.codec import read_json, record, write_json
from common.errors import ConfigError

QUESTION = "question.json"


@record
class Question:
    """What was asked. Stays at the site."""

    message: str
    """Flower's number of it."""
    run: str | None = None
    method: str | None = None
    round: int | None = None


def keep_question(site: SiteConfig, message_id: str, task: object) -> None:
    """Write down what is being answered."""
    question = Question(
        message=message_id,
        run=getattr(task, "run", None),
        method=getattr(task, "method", None),
        round=getattr(task, "round", None),
    )
    write_json(site.state_folder / QUESTION, question)


def question_of(folder: Path, message_id: str) -> Question:
    """Return what a message asked; without its run where that is not known.

    Args:
        folder: the site's state.
        message_id: Flower's number of the question.
    """
    try:
        kept = read_json(Question, folder / QUESTION)
    except ConfigError:
        return Question(message=message_id)
    return kept if kept.message == message_id else Question(message=message_id)
