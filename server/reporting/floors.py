"""The learning-free floor beside the federated models, from what held-out sites released."""

from dataclasses import dataclass

from server.events import FloorMeasured
from server.reporting.report_data import ReportData


@dataclass(frozen=True)
class FloorComparison:
    """The learning-free floor and the federated models' mean Dice on the same site and region."""

    floor: FloorMeasured
    mean_dice: dict[str, float]
    released: frozenset[str] = frozenset()
    """Methods whose mean the site itself told, instead of the metrics of cases."""

    @property
    def beaten_by(self) -> tuple[str, ...]:
        """Methods whose mean Dice is strictly above the floor."""
        return tuple(name for name, dice in self.mean_dice.items() if dice > self.floor.mean_dice)


def compare_with_floors(data: ReportData) -> tuple[FloorComparison, ...]:
    """Set every measured floor against the federated models on the same site and region."""
    comparisons = []
    for floor in data.floors:
        scores = data.scores
        rows = scores[(scores["site"] == floor.site) & (scores["region"] == floor.region)]
        of_cases = rows.groupby("method")["dice"].mean().to_dict()
        told = {
            row.method: row.dice.mean
            for row in data.aggregates.get(floor.site, ())
            if row.region == floor.region
        }
        means = told | of_cases
        federated = {name: float(means[name]) for name in data.federated_methods if name in means}
        released = frozenset(federated.keys() - of_cases.keys())
        comparisons.append(FloorComparison(floor, federated, released))
    return tuple(comparisons)
