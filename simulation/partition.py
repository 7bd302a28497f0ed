"""Partition of one data set's cases into sites: from a file, by sizes, by folds, or by a draw.

Every function gives the same partition for the same seed whatever the order of the cases.
"""

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from common.errors import ConfigError
from common.files import write_atomically
from common.random import step_rng

COLUMNS = ("Partition_ID", "Subject_ID")  # FeTS challenge, partitioning_1.csv
SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # sites name files and folders of a run


@dataclass(frozen=True)
class Partition:
    """Which case belongs to which site; no case at two sites, no site without a case."""

    sites: Mapping[str, tuple[str, ...]]
    """Case names by site, both in natural order (`site-2` before `site-10`)."""

    def __post_init__(self) -> None:
        """Bring sites and cases into natural order.

        Raises:
            ConfigError: with one line per unusable site name, empty site and repeated case.
        """
        ordered = {
            site: tuple(sorted(self.sites[site], key=_natural))
            for site in sorted(self.sites, key=_natural)
        }
        object.__setattr__(self, "sites", MappingProxyType(ordered))
        defects = _defects(ordered)
        if defects:
            raise ConfigError("\n".join(f"partition: {defect}" for defect in defects))


def from_csv(path: Path) -> Partition:
    """Read a partition with the columns `Partition_ID,Subject_ID`; the ids become site names.

    Raises:
        ConfigError: when the file cannot be read, has other columns, a row with a missing or an
            extra value, a subject twice or a site id that cannot name a file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: expected a readable CSV file, found {error}") from None
    header = rows[0] if rows else []
    if sorted(header) != sorted(COLUMNS):
        raise ConfigError(
            f"{path}: expected the columns {','.join(COLUMNS)}, found {','.join(header) or 'none'}"
        )
    sites: dict[str, list[str]] = {}
    for site, case in _pairs(path, rows):
        sites.setdefault(site, []).append(case)
    try:
        return Partition(sites={site: tuple(cases) for site, cases in sites.items()})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def write_csv(partition: Partition, path: Path) -> None:
    """Write a partition as `from_csv` reads it, whole or not at all."""
    rows = [",".join(COLUMNS)]
    rows += [f"{site},{case}" for site, cases in partition.sites.items() for case in cases]
    write_atomically(path, ("\n".join(rows) + "\n").encode())


def by_sizes(
    cases: Sequence[str], sizes: Mapping[str, int] | Sequence[int], seed: int
) -> Partition:
    """Deal the cases out at random, a fixed number to each site; what is left over is not used.

    Args:
        cases: names of all cases, in any order.
        sizes: cases per site; a plain sequence means `site-1`, `site-2`, ...
        seed: of the draw.

    Raises:
        ConfigError: when a size is below 1, there is none, or they add up to more than the cases.
    """
    named = _named(sizes)
    too_small = [f"{site} = {size}" for site, size in named.items() if size < 1]
    if too_small:
        raise ConfigError(f"sizes: expected at least 1 case per site, found {', '.join(too_small)}")
    if not 0 < sum(named.values()) <= len(cases):
        raise ConfigError(
            f"sizes: expected a sum of 1 to {len(cases)}, the number of cases, "
            f"found {sum(named.values())}"
        )
    shuffled = _shuffled(cases, _rng(seed, "partition by sizes"))
    ends = np.cumsum(list(named.values()))
    return Partition(
        sites={
            site: tuple(shuffled[end - size : end])
            for (site, size), end in zip(named.items(), ends, strict=True)
        }
    )


def by_dirichlet(
    cases: Sequence[str],
    n_sites: int,
    alpha: float,
    seed: int,
    strata: Mapping[str, str] | None = None,
) -> Partition:
    """Deal the cases out in random proportions, drawn anew for each stratum.

    Where the draw leaves a site empty, it gets one case of the then largest site.

    Args:
        cases: names of all cases, in any order.
        n_sites: number of sites, called `site-1`, `site-2`, ...
        alpha: concentration: near 0 one site gets almost all of a stratum, large is even.
        seed: of the draw.
        strata: class of each case (for example its size group); None puts all into one.

    Raises:
        ConfigError: when alpha or the number of sites is out of range, or a case has no stratum.

    Source: T. H. Hsu et al., Measuring the effects of non-identical data distribution for
        federated visual classification, 2019, section 3.
    """
    if not 0 < alpha <= 1e6:  # even enough; far larger ones overflow
        raise ConfigError(f"alpha: expected above 0 and at most 1e6, found {alpha}")
    if not 1 <= n_sites <= len(cases):
        raise ConfigError(f"n_sites: expected 1 to {len(cases)}, found {n_sites}")
    groups = _groups(cases, strata)
    rng = _rng(seed, "partition by dirichlet")
    sites: list[list[str]] = [[] for _ in range(n_sites)]
    for stratum in sorted(groups):
        shuffled = _shuffled(groups[stratum], rng)
        shares = np.cumsum(rng.dirichlet(np.full(n_sites, alpha)))
        ends = np.round(shares[:-1] * len(shuffled)).astype(int)
        for site, part in zip(sites, np.split(np.array(shuffled), ends), strict=True):
            site.extend(map(str, part))
    for site in sites:
        if not site:
            site.append(max(sites, key=len).pop())
    return Partition(sites={f"site-{i}": tuple(site) for i, site in enumerate(sites, start=1)})


def by_folds(cases: Sequence[str], n: int, held_out: int) -> Partition:
    """Pool all folds but one at a single site; the remaining one is held out.

    The folds are those of nnU-Net for the same names, so that results compare fold by fold.

    Args:
        cases: names of all cases, in any order.
        n: number of folds.
        held_out: number of the fold at the site `held-out`, from 0; the others are `pooled`.

    Raises:
        ConfigError: when there are fewer than two folds, more than cases, or no such fold.

    Source: nnU-Net 2.8.1, crossval_split.py: scikit-learn's KFold, shuffled with seed 12345.
    """
    if not 2 <= n <= len(cases):
        raise ConfigError(f"folds: n: expected 2 to {len(cases)}, the number of cases, found {n}")
    if not 0 <= held_out < n:
        raise ConfigError(f"folds: held_out: expected 0 to {n - 1}, found {held_out}")
    ordered = np.array(sorted(cases))  # as text, not in natural order: as there
    order = np.arange(len(cases))
    np.random.RandomState(12345).shuffle(order)  # the generator of the source
    fold = np.array_split(order, n)[held_out]
    return Partition(
        sites={
            "pooled": tuple(map(str, np.delete(ordered, fold))),
            "held-out": tuple(map(str, ordered[fold])),
        }
    )


def check_cases(partition: Partition, cases: Collection[str]) -> None:
    """Check that the data set has every case of the partition.

    Raises:
        ConfigError: with all missing cases in one message.
    """
    present = set(cases)
    missing = [name for names in partition.sites.values() for name in names if name not in present]
    if missing:
        raise ConfigError(
            f"partition: expected cases of the data set, found {len(missing)} that it lacks: "
            + ", ".join(sorted(missing, key=_natural))
        )


def _pairs(path: Path, rows: list[list[str]]) -> list[tuple[str, str]]:
    site_column, case_column = (rows[0].index(column) for column in COLUMNS)
    pairs, defects = [], []
    for line, cells in enumerate(rows[1:], start=2):
        if len(cells) == len(COLUMNS) and all(cells):
            pairs.append((cells[site_column], cells[case_column]))
        elif any(cells):
            defects.append(f"{path}: line {line}: expected 2 values, found '{','.join(cells)}'")
    if defects:
        raise ConfigError("\n".join(defects))
    return pairs


def _defects(sites: Mapping[str, tuple[str, ...]]) -> list[str]:
    defects = [] if sites else ["expected at least one site, found none"]
    first_site: dict[str, str] = {}
    for site, cases in sites.items():
        if not SITE_NAME.fullmatch(site):
            defects.append(f"site '{site}': expected letters, digits, '.', '_' and '-' only")
        if not cases:
            defects.append(f"site '{site}': expected at least one case, found none")
        for case in cases:
            if case in first_site:
                defects.append(f"case '{case}': found twice, at '{first_site[case]}' and '{site}'")
            first_site.setdefault(case, site)
    return defects


def _named(sizes: Mapping[str, int] | Sequence[int]) -> dict[str, int]:
    if isinstance(sizes, Mapping):
        return {site: sizes[site] for site in sorted(sizes, key=_natural)}
    return {f"site-{i}": size for i, size in enumerate(sizes, start=1)}


def _groups(cases: Sequence[str], strata: Mapping[str, str] | None) -> dict[str, list[str]]:
    if strata is None:
        return {"": list(cases)}
    unknown = sorted(set(cases) - set(strata), key=_natural)
    if unknown:
        raise ConfigError(f"strata: expected one per case, found none for {', '.join(unknown)}")
    groups: dict[str, list[str]] = {}
    for case in cases:
        groups.setdefault(strata[case], []).append(case)
    return groups


def _shuffled(cases: Sequence[str], rng: np.random.Generator) -> list[str]:
    ordered = sorted(cases)
    return [ordered[i] for i in rng.permutation(len(ordered))]


def _rng(seed: int, purpose: str) -> np.random.Generator:
    return step_rng(seed, site="", round_=0, step=0, purpose=purpose)


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Return a sort key by which `site-2` comes before `site-10`."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return tuple((int(part), part) if part.isdecimal() else (-1, part) for part in parts)
