"""Which patients and files took part, as a word that says nothing else.

The word is keyed with a secret that lies beside the ledger: who has only the ledger cannot find
names of patients by trying. Another word is another version of the data; the patients may be the
same, so that what they cost is never told apart by it.
"""

import hmac
from collections.abc import Iterable
from pathlib import Path

from client.kept_secrets import kept_secret
from common.case import Case
from common.codec import canonical_json
from common.secure_sum import Key


def data_version(ledger: Path, cases: Iterable[Case]) -> Key:
    """Return the version of the data of cases, by their names and the sizes of their files.

    Args:
        ledger: beside which the secret lies; it is made there once.
        cases: that take part.

    Raises:
        DiskError: when the secret cannot be written, or is damaged.
    """
    facts = sorted(
        [case.name, *(path.stat().st_size for path in (*case.images, case.label) if path)]
        for case in cases
    )
    return hmac.digest(
        kept_secret(ledger.with_name(f"{ledger.stem}.key")), canonical_json(facts), "sha256"
    ).hex()
