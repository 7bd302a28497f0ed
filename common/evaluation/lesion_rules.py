"""What counts as one lesion, and which lesions count: one set of rules per challenge, as data.

Source: the evaluation scripts of BraTS 2023, "lesion-wise performance metrics" (Saluja et al.).
"""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from annotated_types import Ge

from common.codec import record

LesionRulesName: TypeAlias = Literal[
    "glioma", "sub-saharan", "paediatric", "meningioma", "metastases"
]


@record
class LesionRules:
    """What counts as one lesion, and which lesions count. May leave the site."""

    name: LesionRulesName
    dilations: Annotated[int, Ge(1)]
    """Lesions of the reference that touch after so many dilations are one."""
    dropped_mm3: Annotated[float, Ge(0)]
    """Lesions of the reference of at most this volume are not counted, neither as found nor as
    missed."""
    penalty_hd95_mm: float = 374.0
    """HD95 of a missed and of a false lesion."""


LESION_RULES: Mapping[LesionRulesName, LesionRules] = {
    rules.name: rules
    for rules in (  # BraTS 2023, `get_LesionWiseResults`
        LesionRules(name="glioma", dilations=3, dropped_mm3=50),
        LesionRules(name="sub-saharan", dilations=3, dropped_mm3=50),
        LesionRules(name="paediatric", dilations=3, dropped_mm3=50),
        LesionRules(name="meningioma", dilations=1, dropped_mm3=50),
        LesionRules(name="metastases", dilations=1, dropped_mm3=2),
    )
}
