"""What a site sends of what it learned, and what it keeps back for the next round."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from client.site import ROUNDS_KEPT, SiteConfig
from common.axes import Weights
from common.errors import ConfigError
from common.federation import Upload
from common.files import keep_recent, newest_up_to, write_atomically
from common.messages import TrainTask
from common.transport import rounded


def prepare_upload(
    site: SiteConfig, task: TrainTask, sent: Weights, trained: Weights, upload: Upload
) -> tuple[Weights, dict[str, float] | None]:
    """Return what is sent beside an update, and the units of what is rounded in it.

    What rounding takes away stays on the site's disk, per run, method and round, so that a round
    which is asked for again gives the same answer.

    Args:
        site: whose disk it is.
        task: the round that was asked for.
        sent: weights that were received.
        trained: those of them after training.
        upload: as the run's configuration says.
    """
    if upload == "float32":
        return trained, None
    result = rounded(sent, trained, _residual(residual_file(site, task, task.round - 1)), upload)
    path = residual_file(site, task, task.round)
    write_atomically(path, save(dict(result.residual)))
    keep_recent(path, ROUNDS_KEPT)
    return result.payload, result.scales


def residual_file(site: SiteConfig, task: TrainTask, round_: int) -> Path:
    """Return where the rest of a round's change lies."""
    return site.round_file(task.run, "residuals", task.method, round_)


def _residual(path: Path) -> Weights:
    """Return what is left of a round, or of the site's last one before; nothing before its first.

    Raises:
        ConfigError: when the file is damaged.
    """
    newest = newest_up_to(path)
    if newest is None:
        return {}
    try:
        found: Weights = load_file(newest)
    except SafetensorError as error:
        raise ConfigError(f"{newest}: expected the rest of an update: {error}") from None
    return found
