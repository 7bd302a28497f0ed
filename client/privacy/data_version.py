"""Which patients and files took part, as a word that says nothing else.

The word is keyed with a secret that lies beside the ledger: who has only the ledger cannot find
names of patients by trying. Another word is another version of the data; the patients may be the
same, so that what they cost is never told apart by it.
"""

import hmac
import secrets
from collections.abc import Iterable
from pathlib import Path

from common.case import Case
from common.codec import canonical_json
from common.errors import DiskError
from common.files import PRIVATE, write_atomically
from common.secure_sum import Key

SECRET_BYTES = 32


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
    return hmac.digest(_secret(ledger), canonical_json(facts), "sha256").hex()


def _secret(ledger: Path) -> bytes:
    path = ledger.with_name(f"{ledger.stem}.key")
    if not path.exists():
        write_atomically(path, secrets.token_bytes(SECRET_BYTES), mode=PRIVATE)
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise DiskError(f"{path}: expected {SECRET_BYTES} bytes, found {len(secret)}; delete it")
    return secret
