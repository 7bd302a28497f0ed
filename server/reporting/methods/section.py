"""The methods section of a report, paragraph by paragraph."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from common.config import RunConfig
from server.reporting.methods.evaluation import held_out_test, ranking, scoring
from server.reporting.methods.federation import aggregation, rounds
from server.reporting.methods.network import network
from server.reporting.methods.optimisation import loss, optimiser
from server.reporting.methods.preparation import prepared, varied
from server.reporting.methods.privacy import privacy
from server.reporting.methods.study import design, planning
from server.reporting.model_size import ModelSize
from server.reporting.report_data import ReportData

UNKNOWN = (
    "The configuration of this run is absent or does not fit this version, so the methods cannot "
    "be described."
)


@dataclass(frozen=True)
class Paragraph:
    """One topic, as a paper prints it."""

    heading: str
    text: str


def methods_section(data: ReportData, size: ModelSize | None) -> tuple[Paragraph, ...]:
    """Return the methods of a run; one paragraph that says why where they are not known."""
    if data.config is None:
        return (Paragraph("Methods", UNKNOWN),)
    topics = _topics(data, data.config, size)
    return tuple(Paragraph(heading, " ".join(said)) for heading, said in topics if said)


def _topics(
    data: ReportData, config: RunConfig, size: ModelSize | None
) -> Iterator[tuple[str, Sequence[str]]]:
    trained, n_channels = data.configurations, len(data.plan.channels) if data.plan else 1
    yield "Sites and data", design(data, config)
    if data.plan is not None:
        yield "Plan", planning(data, data.plan)
        yield "Preparation", prepared(data.plan)
    yield "Network", network(config, data.task, trained, size)
    yield "Patches and augmentation", varied(config, trained, n_channels)
    yield "Loss and optimiser", [*loss(config), *optimiser(config)]
    yield "Rounds", rounds(config)
    yield "Aggregation", aggregation(config)
    yield "Privacy", privacy(config)
    yield "Test", held_out_test(config) if config.federation.held_out else []
    yield "Metrics", scoring(config)
    yield "Ranking and tests", ranking(data.ranking)
