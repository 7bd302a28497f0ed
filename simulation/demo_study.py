"""The study of `consilium demo`: four training sites of unequal size and one unseen scanner."""

from dataclasses import replace
from importlib import resources

from common.codec import read_toml
from simulation.phantoms import PhantomStudy

HELD_OUT_SITE = "site-5"


def demo_study(seed: int = 1) -> PhantomStudy:
    """Return 40 training cases at `site-1` to `site-4` and 10 cases at the held-out `site-5`.

    Args:
        seed: of all cases; another seed gives other patients on the same scanners.
    """
    with resources.as_file(resources.files("simulation") / "demo_study.toml") as path:
        return replace(read_toml(PhantomStudy, path), seed=seed)
