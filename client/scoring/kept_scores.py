"""The scores of tested models, kept at a held-out site until the methods are ranked.

One file per model in the run's folder, by name of case; none of them ever leaves the site.
"""

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from client.caching.digests import contents_of
from client.site import SiteConfig
from common.case import Case
from common.codec import content_hash, read_json, record, write_json
from common.errors import PolicyError
from common.evaluation.empty_rules import RegionScore
from common.secure_sum import Key

WORD_BYTES = 32


@record
class KeptScores:
    """What one model scored. Never leaves the site."""

    data: Key
    """The word for the images and references that it was tested on."""
    scores: dict[str, dict[str, RegionScore]]
    """By case and region."""
    n_empty_references: dict[str, int]
    """Number of cases whose reference lacks a region, in the task's order of regions."""
    tested: Key | None = None
    """Hash of the weights as received and of the steps after the network: what else the scores
    depend on, and has to be the same at all sites that mask their sums for each other."""


def keep_scores(site: SiteConfig, run: str, model: str, kept: KeptScores) -> None:
    """Write what a model scored; a model that is tested again replaces it."""
    write_json(_folder(site, run) / f"{model}.json", kept)


def kept_scores(site: SiteConfig, run: str, models: Iterable[str]) -> Mapping[str, KeptScores]:
    """Return what models scored.

    Raises:
        PolicyError: when one of them was not tested here in this run.
    """
    paths = {model: _folder(site, run) / f"{model}.json" for model in models}
    absent = [model for model, path in paths.items() if not path.exists()]
    if absent:
        raise PolicyError(
            f"run {run}: expected tested models, found no scores of {absent}", "metrics"
        )
    return {model: read_json(KeptScores, path) for model, path in paths.items()}


def word_of_data(site: SiteConfig, run: str, cases: Iterable[Case]) -> Key:
    """Return a random word that is the same while the files of the cases hold the same.

    A hash would tell the coordinator whether it guessed a file; a random word tells nothing.
    """
    files = {case.name: [*case.images, *([case.label] if case.label else [])] for case in cases}
    contents = contents_of(
        [path for paths in files.values() for path in paths], site.state_folder / "cache"
    )
    digest = content_hash(
        {name: [contents[path].sha256 for path in paths] for name, paths in sorted(files.items())}
    )
    path = site.run_folder(run) / "data-words.json"
    words = read_json(dict[str, Key], path) if path.exists() else {}
    if digest not in words:
        words = {**words, digest: secrets.token_hex(WORD_BYTES)}
        write_json(path, words)
    return words[digest]


def _folder(site: SiteConfig, run: str) -> Path:
    return site.run_folder(run) / "tested"
