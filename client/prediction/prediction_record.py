"""What a folder of predictions says about itself: by what it was made, and which cases are done."""

from collections.abc import Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Final

from client.export import TrainedModel
from client.prediction.segment import Wanted
from common.case import Case
from common.codec import read_json, record, write_json
from common.config import Precision
from common.errors import ConfigError
from common.evaluation.postprocess import Chain
from common.packing import weights_digest

RECORD: Final = "prediction.json"
MAPS: Final = "maps"


@record
class Source:
    """One model of a prediction."""

    run: str
    method: str
    plan_hash: str
    weights_sha256: str
    first_stage_sha256: str | None = None
    """Of the weights of a cascade's first stage."""


@record
class PredictionRecord:
    """By what a folder's predictions were made, and which cases are whole. Stays at the site."""

    models: tuple[Source, ...]
    mirroring: tuple[bool, ...]
    """By model."""
    precision: tuple[Precision, ...]
    """By model."""
    postprocessing: Chain = ()
    """What was done to the labels."""
    cases: tuple[str, ...] = ()


def record_of(models: Sequence[TrainedModel], steps: Chain = ()) -> PredictionRecord:
    """Return by what the predictions are made; no case is done."""
    configs = [model.agreement.terms.config for model in models]
    return PredictionRecord(
        models=tuple(
            Source(
                run=model.agreement.terms.run,
                method=model.method,
                plan_hash=model.agreement.plan.hash,
                weights_sha256=weights_digest(model.weights),
                first_stage_sha256=weights_digest(model.first.weights) if model.first else None,
            )
            for model in models
        ),
        mirroring=tuple(config.evaluation.mirroring for config in configs),
        precision=tuple(config.training.precision for config in configs),
        postprocessing=steps,
    )


def started(
    now: PredictionRecord, cases: Sequence[Case], output: Path, wanted: Wanted, *, go_on: bool
) -> PredictionRecord:
    """Write the folder's record, with the cases that need not be done again.

    Args:
        now: by what predictions are made now.
        cases: that are asked for.
        output: folder of the predictions.
        wanted: maps that a case must have to be done.
        go_on: whether to keep what is there; else every case is done again.

    Raises:
        ConfigError: when the folder's predictions cannot go on: others made them.
    """
    path = output / RECORD
    written = [case.name for case in cases if (output / f"{case.name}.nii.gz").exists()]
    if go_on and path.exists():
        before = read_json(PredictionRecord, path)
        if replace(before, cases=()) != now:
            raise ConfigError(
                f"{path}: expected predictions of the same models and options to go on with, "
                "found others; name another folder, or leave out --continue to replace them"
            )
        done = set(before.cases) & set(written)
        now = replace(
            now,
            cases=tuple(case for case in before.cases if _is_whole(case, output, done, wanted)),
        )
    elif go_on and written:
        raise ConfigError(
            f"{output}: expected {RECORD}, which says who made the predictions there, found none; "
            "name another folder, or leave out --continue to replace them"
        )
    write_json(path, now)
    return now


def _is_whole(name: str, output: Path, written: set[str], wanted: Wanted) -> bool:
    """Return whether labels are there, and all maps that are wanted."""
    maps = output / MAPS
    uncertainty = maps / "uncertainty" / f"{name}.nii.gz"
    probability = (maps / "probability").glob(f"{escape(name)}_*.nii.gz")
    return (
        name in written
        and (not wanted.uncertainty or uncertainty.exists())
        and (not wanted.probabilities or any(probability))
    )
