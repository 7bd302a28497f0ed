"""What the release mode secure-sum means, in plain words, for a data-protection officer.

It needs no data: a site can be told before it decides.
"""

from textwrap import fill

from client.policy import FEWEST_SITES
from common.planning.fingerprint import TICKS_PER_MM
from common.planning.fingerprint_grid import (
    COARSE_STEP_TICKS,
    COARSE_TICKS,
    EXTENT_STEP_TICKS,
    FINE_TICKS,
    MAX_EXTENT_TICKS,
    MAX_SHAPE_VOXELS,
    n_words,
)

WIDTH = 96

TEXT = """
Release mode secure-sum: this site's counts leave it only masked. The coordinator can read the sum
of all training sites that use this mode, at least {min_sites} of them (policy.min_secure_sites),
and no site's own counts. With fewer sites no count leaves. A file cannot be masked alone: the mode
applies in federated runs.

What leaves, readable: the site's name; the task, its version, its channels and labels; the version
of the program; the memory of the accelerator; the policy's smallest number of sites; a public key
made for this one sum; and a hash of the counts, keyed with a secret that stays here, which tells
only whether the data are the same when an interrupted run goes on. A held-out site sends this part
only, and no key.

What leaves, masked: {n_words:,} numbers ({n_words_ct:,} with a CT channel). To each number a random
one is added for every other site, with which it is shared and which subtracts it. Taken alone the
result looks random, whatever the counts are; in the sum over all sites the random parts cancel.
The keys are used once and then deleted. No image, no name, no date and no list of cases is among
the numbers, masked or not.

Against whom this protects: a coordinator that runs the program as it is and looks at all that it
receives; also if up to all but two of the sites show it their own counts, for it then learns the
sum of the others. If all other sites do, it learns this site's counts.

Against whom it does not: a coordinator that changes the program could send this site false keys
and read its counts. A site that knows the others' long-term keys ([peers] in site.toml) notices
that and refuses. Pin them where the coordinator is not trusted.

What the sum tells: every site of the run receives it, because it plans from it. A count of 1 says
that one patient of one of the sites has this value, not at which site; a site can subtract its own
counts. Two sums, over almost the same sites or from before and after a case was added, tell by
their difference what was added. Within a run the sites stay the same; every sum in which this site
took part is a line in its site.log.

What this mode does not cover: the numbers of cases that train and validate are told after planning
and with every update, because updates are weighted by them. Weights, losses and scores leave as in
every other mode.

How exact the sum is: numbers of cases, image sizes up to {voxels:,} voxels and CT intensities are
exact. Voxel sizes are exact up to {fine} (to 0.0001 mm, as in every mode), and up to {coarse} no
more than {step} off. Lengths are exact where all cases share such a voxel size, and elsewhere no
more than {extent_step} off. What is larger than {coarse}, or longer than {longest}, is counted as
that.
"""


def secure_sum_in_words(min_sites: int = FEWEST_SITES) -> str:
    """Return who sees what of a masked fingerprint, against whom it protects, how exact it is.

    Args:
        min_sites: the policy's `min_secure_sites`.
    """
    text = TEXT.format(
        min_sites=min_sites,
        n_words=n_words(()),
        n_words_ct=n_words(("CT",)),
        voxels=MAX_SHAPE_VOXELS,
        fine=_mm(FINE_TICKS),
        coarse=_mm(COARSE_TICKS),
        step=_mm(COARSE_STEP_TICKS // 2),
        extent_step=_mm(EXTENT_STEP_TICKS),
        longest=_mm(MAX_EXTENT_TICKS),
    )
    return "\n\n".join(fill(paragraph, WIDTH) for paragraph in text.strip().split("\n\n"))


def _mm(ticks: int) -> str:
    return f"{ticks / TICKS_PER_MM:g} mm"
