"""A site: its configuration and its folder. Everything here stays at the site."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt

from client.policy import Policy
from common.codec import read_json, read_toml, record, write_json
from common.errors import MessageError, PolicyError
from common.federation import SiteName
from common.files import make_folder
from common.messages import PrepareTask
from common.planning.plan import AnyConfiguration, Plan, configuration_of
from common.privacy.settings import NoiseMultiplier
from common.secure_sum import Key

if TYPE_CHECKING:  # torch takes 200 MB of every process that only reads a site's file
    from torch import nn

ROUNDS_KEPT = 2  # the round that may be asked for again starts from the one before


@record
class SiteConfig:
    """One hospital's own file; the coordinator never sees it."""

    name: SiteName
    data: str
    """Folder with the cases."""
    state: str
    """Folder for cache, agreed plan, batch-norm statistics and log."""
    policy: Policy
    cases: tuple[str, ...] | None = None
    """Names of the cases that take part; all in the folder if absent."""
    patients: str | None = None
    """CSV with the columns Subject_ID and Patient_ID: the patient of every case. Without it the
    case's name tells (`client.dataset.patients`). If two scans of one patient count as two
    patients, differential privacy protects each scan, and not the patient."""
    memory_gb: Annotated[float, Gt(0)] | None = None
    """Accelerator memory that training may use; all that it has if absent."""
    privacy_ledger: str | None = None
    """File of what training has cost the patients (`client.privacy.ledger`); several federations
    on the same data share one. In the state folder if absent."""
    identity: str | None = None
    """File with this site's own long-term Ed25519 private key (PEM), which signs its keys."""
    peers: dict[SiteName, Key] | None = None
    """The other sites' long-term Ed25519 public keys, in hexadecimal digits; where they are given,
    a secure sum with a key that none of them signed is refused."""

    @property
    def data_folder(self) -> Path:
        """Folder with the cases."""
        return Path(self.data)

    @property
    def state_folder(self) -> Path:
        """Folder that belongs to Consilium alone."""
        return Path(self.state)

    @property
    def egress_ledger(self) -> Path:
        """What left the building (`client.egress`)."""
        return self.state_folder / "egress.jsonl"

    @property
    def privacy_ledger_file(self) -> Path:
        """What training with differential privacy has cost the patients, all runs together."""
        named = self.privacy_ledger
        return Path(named) if named is not None else self.state_folder / "privacy.jsonl"

    def run_folder(self, run: str) -> Path:
        """Return where the state of one run lies."""
        if not run.replace("-", "").replace("_", "").isalnum():
            raise MessageError(f"run {run!r}: expected letters, digits, - and _ only")
        return self.state_folder / "runs" / run

    def round_file(self, run: str, kind: str, method: str, round_: int) -> Path:
        """Return where what the site keeps of one kind lies after a round.

        Raises:
            ValueError: for a method that is no name of a folder.
        """
        if not method.replace("-", "").isalnum():
            raise ValueError(f"method {method!r}: expected letters, digits and -")
        return self.run_folder(run) / kind / method / f"round-{round_:04d}.safetensors"


@record
class Agreement:
    """What site and coordinator agreed on before training; survives restarts."""

    terms: PrepareTask
    plan: Plan
    cases: tuple[str, ...] = ()
    """Names of the cases that train, or that a held-out site tests."""
    validation_cases: tuple[str, ...] = ()
    """Names of the cases that only validate; fixed here, so that a new case moves none."""
    noise_multiplier: NoiseMultiplier | None = None
    """Deviation of the noise, in units of what one patient can change; None without privacy."""

    @property
    def configuration(self) -> AnyConfiguration:
        """The network configuration that this run uses."""
        return configuration_of(self.plan, self.terms.config.model.configuration)

    @property
    def cascade_labels(self) -> tuple[int, ...]:
        """Labels of a first stage that are further input channels; empty without a cascade."""
        return self.terms.task.foreground_labels if self.terms.first_stage else ()

    def of_first_stage(self) -> "Agreement":
        """Return by what the cascade's first stage was trained."""
        if self.terms.first_stage is None:
            raise ValueError("expected a cascade")
        config, model = self.terms.config, self.terms.first_stage.model
        training = replace(config.training, trained="all")  # done; and it may have had no start
        config = replace(config, model=model, training=training)
        return replace(self, terms=replace(self.terms, config=config, first_stage=None))

    def network(self) -> "nn.Module":
        """Build the run's network."""
        from common.network import build_network

        return build_network(self.terms.task, self.configuration, self.terms.config.model)

    def local_names(self, network: "nn.Module") -> frozenset[str]:
        """Return the tensors that stay at the site."""
        from common.batchnorm import local_names

        return local_names(network, self.terms.config.model.batch_norm)


def load_site(path: Path) -> SiteConfig:
    """Read a site's TOML file; relative folders are relative to the file."""
    site = read_toml(SiteConfig, path)
    base = path.resolve().parent
    return replace(
        site,
        data=str(base / Path(site.data).expanduser()),
        state=str(base / Path(site.state).expanduser()),
        patients=_from(base, site.patients),
        identity=_from(base, site.identity),
        privacy_ledger=_from(base, site.privacy_ledger),
    )


def _from(base: Path, path: str | None) -> str | None:
    return str(base / Path(path).expanduser()) if path else None


def save_agreement(site: SiteConfig, agreement: Agreement) -> None:
    """Keep the agreed terms and plan for later messages and restarts."""
    write_json(site.run_folder(agreement.terms.run) / "agreed.json", agreement)


def load_agreement(site: SiteConfig, run: str, plan_hash: str) -> Agreement:
    """Return what was agreed for a run.

    Raises:
        PolicyError: when nothing was agreed, or another plan.
    """
    path = site.run_folder(run) / "agreed.json"
    if not path.exists():
        raise PolicyError(
            f"run {run}: no plan was agreed; expected a prepare message first", "plan"
        )
    agreement = read_json(Agreement, path)
    if agreement.plan.hash != plan_hash:
        raise PolicyError(
            f"run {run}: agreed plan {agreement.plan.hash}, asked for {plan_hash}", "plan"
        )
    return agreement


def site_log(site: SiteConfig) -> logging.Logger:
    """Return the site's own log file; errors in full are written there and only there."""
    logger = logging.getLogger(f"consilium.site {site.state}")  # two runs may share a process
    if not logger.handlers:
        make_folder(site.state_folder)
        handler = logging.FileHandler(site.state_folder / "site.log", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger
