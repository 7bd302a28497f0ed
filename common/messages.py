"""Everything that crosses the wire, as records: one per arrow between coordinator and site.

What a site sends is listed here and nowhere else. None of it names a case, a file or a patient:
cases are numbers, errors are codes (`common.errors.ErrorCode`).
"""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import StringConstraints

from common.codec import record
from common.config import Model, RunConfig
from common.evaluation.aggregates import Aggregate
from common.evaluation.postprocess import Chain
from common.federation import SiteName
from common.planning.fingerprint import Fingerprint
from common.planning.plan import Plan
from common.privacy.mechanism import Spent
from common.ranks.rank_sums import RankSums
from common.secure_round import Sealed, SecureRound, Share
from common.secure_sum import MAX_SITES, Key, Nonce, Roster
from common.task import Task

Count = Annotated[int, Ge(0)]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,139}$")]
"""A method, or ``method@site`` for one of several models; also names a file at the site."""


@record
class MeasureTask:
    """Coordinator to site: describe your data for this task."""

    run: str
    task: Task
    roster: Roster | None = None
    """With it: answer your counts beside this message, masked for the sum of these sites."""


@record
class SecureSum:
    """Of a site that lets its counts out only in a sum (`common.secure_sum`)."""

    min_sites: Annotated[int, Ge(3)]
    """Fewest sites in that sum, by this site's policy."""
    data_digest: Key
    """Tells only whether the data are those that a run began with; keyed with a secret of the
    site's, so that nobody can find the counts by trying."""


@record
class Measured:
    """Site to coordinator: name and mergeable counts."""

    site: SiteName
    fingerprint: Fingerprint
    """Where `secure_sum` is present, that of no cases: it says task, channels and labels only."""
    version: str
    memory_gb: Annotated[float, Gt(0)] | None = None
    """Of the accelerator that trains there; None where training is on the CPU."""
    secure_sum: SecureSum | None = None
    metrics_min_sites: Annotated[int, Ge(3)] | None = None
    """Of a site that, where it is held out, lets out metrics only in a sum: fewest held-out sites
    in that sum, by its policy."""

    @property
    def n_cases(self) -> int | None:
        """How many cases the site has; None where it does not tell."""
        return self.fingerprint.n_cases if self.secure_sum is None else None


@record
class KeysTask:
    """Coordinator to site: make a key for one sum; `MaskKey` is the answer."""

    run: str
    nonce: Nonce
    """Of the attempt; never used before."""
    sites: Annotated[tuple[SiteName, ...], MaxLen(MAX_SITES)]
    """All that will mask together."""
    purpose: Literal["counts", "metrics", "updates"] = "counts"
    """For "updates" the site has one key for the whole run (`common.secure_round`)."""


@record
class FirstStage:
    """The model whose labels are further input channels of a cascade's second stage."""

    model: Model
    weights_sha256: Key
    """`common.packing.weights_digest`; the weights themselves come with `FirstStageTask`."""


@record
class PrepareTask:
    """Coordinator to site: plan again from the merged fingerprint, then fill your cache."""

    run: str
    task: Task
    config: RunConfig
    fingerprint: Fingerprint
    plan_hash: str
    edited_plan: Plan | None = None
    """A plan that a person changed: no site can derive it, each site's policy decides."""
    first_stage: FirstStage | None = None
    """Of a cascade's second stage."""


@record
class Prepared:
    """Site to coordinator: which plan came out; if it is the same, this many cases are ready."""

    plan_hash: str
    n_training_cases: Count
    """0 also where a site's policy lets numbers of cases out in a sum only."""
    n_validation_cases: Count


@record
class FirstStageTask:
    """Coordinator to site, beside the agreed first stage's weights: predict all your cases."""

    run: str
    plan_hash: str


@record
class FirstStageDone:
    """Site to coordinator: the first stage's labels of all cases lie in the site's cache."""

    n_cases: Count
    """As in `Prepared`."""


@record
class TrainTask:
    """Coordinator to site, beside weights: train from them for one round."""

    run: str
    plan_hash: str
    method: str
    round: Annotated[int, Ge(1)]
    proximal_mu: Annotated[float, Ge(0)]
    dynamic: bool = False
    """FedDyn: the proximal term is about the received weights and the site's own drift."""
    withheld_fraction: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the update that the site is not to send (`common.partial_sharing`)."""
    rate_factor: Annotated[float, Gt(0), Le(1)] = 1.0
    """What the learning rate is multiplied by, after plateaus (`common.schedules`)."""
    secure: SecureRound | None = None
    """With it: answer your update masked for the sum of these sites."""


@record
class MaskedUpdate:
    """Beside a masked update: what lets the other sites take off its masks, if need be."""

    nonce: Nonce
    """Of the attempt (`SecureRound.roster`)."""
    shares: dict[SiteName, Sealed]
    """For every other site of the roster; the coordinator cannot read them."""


@record
class Update:
    """Site to coordinator, beside weights: what the round did."""

    round: Annotated[int, Ge(1)]
    n_cases: Count
    """0 where the update is masked, as `n_steps` is; what is counted is masked as well."""
    n_steps: Count
    seconds: Annotated[float, Ge(0)]
    loss: float | None = None
    """Mean training loss over the round's steps; None under privacy, for it has no noise, and
    where the update is masked."""
    scales: dict[str, Annotated[float, Gt(0)]] | None = None
    """Units of the tensors whose change was rounded (`common.transport`); None if none was."""
    validation: dict[str, float] | None = None
    """Mean Dice per region of the weights as received, on the site's validation cases."""
    spent: Spent | None = None
    """What training has cost; None without differential privacy."""
    masked: MaskedUpdate | None = None
    """Where only the sum is seen: then one masked vector lies beside this, and no weights."""


@record
class AgreeTask:
    """Coordinator to a site of a secure round: these sites survived; agree to that, once."""

    run: str
    plan_hash: str
    method: str
    round: Annotated[int, Ge(1)]
    nonce: Nonce
    survivors: Annotated[tuple[SiteName, ...], MaxLen(MAX_SITES)]
    """Whose masked updates will be opened, as their sum."""


@record
class Agreed:
    """Site to coordinator: codes by which the other survivors know that it agreed."""

    nonce: Nonce
    codes: dict[SiteName, Key]


@record
class UnmaskTask:
    """Coordinator to a survivor: take the masks off the sum, as far as it is yours to do."""

    run: str
    plan_hash: str
    method: str
    round: Annotated[int, Ge(1)]
    nonce: Nonce
    survivors: Annotated[tuple[SiteName, ...], MaxLen(MAX_SITES)]
    codes: dict[SiteName, Key]
    """By which other survivors tell this one that they agreed to the same survivors."""
    shares: dict[SiteName, Sealed]
    """What every other survivor sealed for this one."""


@record
class Unmasked:
    """Survivor to coordinator: its shares of what is to be taken off the sum; nothing else.

    Of a survivor never a share of a seed that it has with another survivor, of a site that
    dropped out never a share of its own seed.
    """

    nonce: Nonce
    own: dict[SiteName, Share]
    """Of every survivor's own seed."""
    pairs: dict[SiteName, dict[SiteName, Share]]
    """By survivor: of its seeds with those who dropped out."""


@record
class ValidateTask:
    """Coordinator to site, beside weights: test them on your validation cases."""

    run: str
    plan_hash: str
    method: str
    round: Annotated[int, Ge(1)]


@record
class Validated:
    """Site to coordinator: mean Dice per region, or None without validation cases."""

    dice: dict[str, float] | None = None


@record
class PersonaliseTask:
    """Coordinator to training site, beside the final weights: train them further for yourself."""

    run: str
    plan_hash: str
    method: str
    round: Annotated[int, Ge(1)]
    """After which the weights were made."""
    n_steps: Annotated[int, Ge(1)]


@record
class Personalised:
    """Site to coordinator: mean Dice per region on its validation cases; its model stays there."""

    shared: dict[str, float] | None = None
    """Of the weights as received, with this site's statistics; None without validation cases."""
    own: dict[str, float] | None = None
    """Of the same weights after the site's further steps."""


@record
class PostprocessTask:
    """Coordinator to training site, beside weights: try these steps on your validation cases.

    `ValidationSums` is the answer.
    """

    run: str
    plan_hash: str
    method: str
    round: Annotated[int, Ge(1)]
    """After which the weights were made."""
    candidates: Annotated[tuple[Chain, ...], MinLen(1), MaxLen(200)]


@record
class TestTask:
    """Coordinator to held-out site, beside weights: predict and score all your cases."""

    __test__ = False  # not a test class for pytest

    run: str
    plan_hash: str
    method: ModelName
    pictures: bool
    postprocessing: Chain = ()
    """What is done to the labels before they are scored."""


@record
class CaseScore:
    """Metrics of one numbered case and one region."""

    case: Annotated[int, Ge(1)]
    region: str
    dice: float
    hd95: float
    sensitivity: float
    specificity: float


@record
class Picture:
    """An overlay picture, PNG in base64, without any text about the patient."""

    kind: Literal["best", "median", "worst"]
    dice: float
    png_base64: str


@record
class Tested:
    """Held-out site to coordinator, as far as its policy allows."""

    __test__ = False  # not a test class for pytest

    metrics: Literal["secure-sum", "ranks", "aggregates", "cases"]
    """How much this site releases; below "cases" the scores stay there until `RankTask`."""
    n_cases: Annotated[int, Ge(1)] | None = None
    """None under "secure-sum"."""
    data: Key
    """A random word that stays the same while images and references do; it tells nothing else."""
    scores: tuple[CaseScore, ...]
    """Empty unless `metrics` is "cases"; so are the pictures."""
    pictures: tuple[Picture, ...]
    note: str


@record
class RankTask:
    """Coordinator to held-out site: rank the models that you tested in this run."""

    run: str
    plan_hash: str
    methods: dict[ModelName, Annotated[tuple[ModelName, ...], MinLen(1)]]
    """Models by method; the scores of a method are the mean over its models in every case."""
    roster: Roster | None = None
    """With it: answer your sums beside the message, masked for the sum of these held-out sites."""


@record
class Ranked:
    """Held-out site to coordinator: sums over all its cases, nothing of a single one."""

    data: Key
    """As in `Tested`."""
    sums: RankSums
    """Of no cases where a masked vector lies beside this (`common.ranks.held_out_sums`)."""
    aggregates: tuple[Aggregate, ...] = ()
    """As far as the policy allows and the site has enough cases."""


@record
class FloorTask:
    """Coordinator to held-out site: measure the task's learning-free baseline."""

    run: str
    plan_hash: str


@record
class FloorMeasured:
    """Held-out site to coordinator: mean Dice at the threshold that is best there."""

    mean_dice: Annotated[float, Ge(0), Le(1)]
    threshold: Annotated[float, Ge(0), Le(1)]
