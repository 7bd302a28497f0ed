"""Rankings of files: scores by method, or rank sums by institution."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.codec import read_json
from common.errors import ConfigError
from common.evaluation.scores import ScoreTable, read_scores, require_one_definition
from common.ranks.case_ranks import Ties, pool_of
from common.ranks.composite import CompositeRanking, rank_by_composite
from common.ranks.permutation import MonteCarlo
from common.ranks.rank_schemes import CUSTOMARY_TIES, Scheme
from common.ranks.rank_sums import RankSums, merge_all
from common.ranks.ranking import Ranking, pool_sums, rank_by_sums, rank_methods
from common.ranks.stability import Resampling

N_BOOTSTRAP_SAMPLES = 1000  # customary for percentile intervals


@dataclass(frozen=True)
class RankOptions:
    """How to rank."""

    scheme: Scheme
    ties: Ties | None
    """None for what is customary with the scheme, or what the sums were made with."""
    convergence: Path | None
    n_draws: int | None
    """Of the Monte Carlo test; None for the exact one."""
    n_bootstrap: int | None
    """None for the customary number where the metrics of cases are at hand."""
    seed: int
    lesion_wise: bool = False
    """Whether lesion-wise Dice and HD95 are ranked, as in BraTS 2023 and later."""

    @property
    def ties_of_cases(self) -> Ties:
        """Which rank equal values of cases get."""
        return self.ties or CUSTOMARY_TIES[self.scheme]

    @property
    def monte_carlo(self) -> MonteCarlo | None:
        """How to estimate the permutation test, if at all."""
        return MonteCarlo(n_draws=self.n_draws, seed=self.seed) if self.n_draws else None


def ranked_files(paths: Sequence[Path], options: RankOptions, *, sums: bool) -> tuple[Ranking, str]:
    """Rank methods by their files.

    Returns:
        The ranking, and what it was made from, in words.

    Raises:
        ConfigError: for files that are malformed or do not fit each other or the options.
    """
    convergence = read_json(dict[str, float], options.convergence) if options.convergence else None
    if sums:
        merged = _merged(paths, options)
        ranking = rank_by_sums(
            merged,
            scheme=options.scheme,
            convergence=convergence,
            monte_carlo=options.monte_carlo,
        )
        return ranking, "sums of ranks that the institutions released"
    n_samples = N_BOOTSTRAP_SAMPLES if options.n_bootstrap is None else options.n_bootstrap
    ranking = rank_methods(
        _read(paths, lesion_wise=options.lesion_wise),
        scheme=options.scheme,
        ties=options.ties_of_cases,
        convergence=convergence,
        monte_carlo=options.monte_carlo,
        resampling=Resampling(n_samples=n_samples, seed=options.seed) if n_samples else None,
    )
    return ranking, "scores of cases"


def ranked_by_composite(paths: Sequence[Path], tie_breaker: str) -> CompositeRanking:
    """Rank methods by their mean composite Dice over all cases, as KiTS does.

    Raises:
        ConfigError: for files that are malformed or do not fit each other.
    """
    tables = {
        method: {
            f"{site}/{case}": regions
            for site, table in by_site.items()
            for case, regions in table.items()
        }
        for method, by_site in _read(paths, lesion_wise=False).items()
    }
    return rank_by_composite(tables, tie_breaker)


def released_sums(paths: Sequence[Path], institution: str, options: RankOptions) -> RankSums:
    """Return the rank sums of one institution, in which no case is left.

    Args:
        paths: one score file per method.
        institution: its name.
        options: of which only the ties matter.

    Raises:
        ConfigError: for folders, or files that are malformed or do not fit each other.
    """
    if folders := [path for path in paths if path.is_dir()]:
        raise ConfigError(f"{folders[0]}: expected the score file of one institution")
    tables = {
        method: {institution: one[""]}
        for method, one in _read(paths, lesion_wise=options.lesion_wise).items()
    }
    return pool_sums(pool_of(tables), options.ties_of_cases)


def _merged(paths: Sequence[Path], options: RankOptions) -> RankSums:
    if options.n_bootstrap:
        raise ConfigError("--bootstrap: needs the metrics of cases, found rank sums (--sums)")
    parts = [(path, read_json(RankSums, path)) for path in paths]
    owner: dict[str, Path] = {}
    for path, sums in parts:
        if options.ties not in {None, sums.ties}:
            raise ConfigError(f"{path}: ties: expected {options.ties!r}, found {sums.ties!r}")
        for name in sums.institutions:
            if name in owner:
                raise ConfigError(f"{path}: {name}: expected once, found in {owner[name]} too")
            owner[name] = path
    return merge_all([sums for _, sums in parts])


def _read(paths: Sequence[Path], *, lesion_wise: bool) -> dict[str, dict[str, ScoreTable]]:
    """Return scores by method and institution."""
    files = {method: _score_files(path) for method, path in _named(paths).items()}
    every = {str(path): path for by_site in files.values() for path in by_site.values()}
    require_one_definition(every, lesion_wise=lesion_wise)
    return {
        method: {site: read_scores(path, lesion_wise=lesion_wise) for site, path in by_site.items()}
        for method, by_site in files.items()
    }


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Name each method after its file, or after its folder where file names repeat."""
    by_stem = {path.stem: path for path in paths}
    named = by_stem if len(by_stem) == len(paths) else {path.parent.name: path for path in paths}
    if len(named) != len(paths):
        raise ConfigError(
            "rank: expected one file per method with different names, "
            f"found {', '.join(map(str, paths))}"
        )
    return named


def _score_files(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        return {"": path}
    files = {file.stem: file for file in sorted(path.glob("*.csv"))}
    if not files:
        raise ConfigError(f"{path}: expected score files (.csv), found none")
    return files
