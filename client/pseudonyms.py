"""The numbers under which cases leave: random, made once per run, and known to the site alone.

Numbers in the order of names would say who comes first in the hospital's folder, and the same
numbers in two runs would say which case is which. Within a run they stay, so that the scores of
several models are of the same cases.
"""

import secrets
from collections.abc import Sequence

from client.site import SiteConfig
from common.codec import read_json, write_json


def numbers_of(site: SiteConfig, run: str, cases: Sequence[str]) -> dict[str, int]:
    """Return the number of every case, from 1; stays at the site.

    Args:
        site: whose cases they are.
        run: whose numbers are asked for.
        cases: names. A case that has no number yet gets a random one of those that are left.
    """
    path = site.run_folder(run) / "pseudonyms.json"
    known = read_json(dict[str, int], path) if path.exists() else {}
    new = sorted(set(cases) - set(known))
    if new:
        left = sorted(set(range(1, len(known) + len(new) + 1)) - set(known.values()))
        secrets.SystemRandom().shuffle(left)
        known = {**known, **dict(zip(new, left, strict=True))}
        write_json(path, known)
    return {case: known[case] for case in cases}
