"""The report's plots: deterministic, self-contained, distinguishable."""

import re
import xml.etree.ElementTree as ET

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from common.figures import for_page
from common.planning.plan import Configuration
from server.events import FloorMeasured, SiteTrained, SiteValidated, SumOpened
from server.reporting.cost_plots import round_times_svg
from server.reporting.costs import RoundTime
from server.reporting.network_plot import network_svg
from server.reporting.plan_stages import fields_of_view
from server.reporting.plots import dice_svg, held_out_svg, loss_svg, site_styles

SITES = ("north", "south")
METHODS = ("fedavg", "local-only")


def _trained(site: str = "north") -> list[SiteTrained]:
    return [
        SiteTrained(
            method=method,
            round=number,
            site=site,
            n_cases=4,
            n_steps=10,
            loss=1.0 / number,
            update_norm=1.0,
            seconds=2.0,
            upload_bytes=100,
        )
        for method in METHODS
        for number in (1, 2, 3)
    ]


def _validated() -> list[SiteValidated]:
    dice = {"WT": 0.8, "ET": 0.6}
    return [SiteValidated(method="fedavg", round=n, site="north", dice=dice) for n in (1, 2)]


def _scores() -> pd.DataFrame:
    rows = [
        (method, region, dice, hd95)
        for method in METHODS
        for region in ("WT", "ET")
        for dice, hd95 in ((0.9, 3.0), (0.8, 5.5), (0.0, 373.1287), (1.0, 0.0))
    ]
    return pd.DataFrame(rows, columns=["method", "region", "dice", "hd95"])


def _texts(svg: str) -> set[str]:
    """Return the texts of a plot: glyphs are drawn as paths, the text stands in a comment."""
    return {text.strip() for text in re.findall(r"<!--(.*?)-->", svg)}


def _floor(region: str) -> FloorMeasured:
    return FloorMeasured(
        site="east", region=region, channel="flair", mean_dice=0.6123, threshold=0.7
    )


def test_same_events_give_the_same_bytes() -> None:
    assert loss_svg(_trained(), SITES, METHODS) == loss_svg(_trained(), SITES, METHODS)


def test_plots_are_xml_without_dates() -> None:
    svg = loss_svg(_trained(), SITES, METHODS)
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - our own text
    assert "date" not in svg.lower()


def test_curves_have_a_panel_per_method_and_a_key_per_site() -> None:
    texts = _texts(loss_svg(_trained(), SITES, METHODS))
    assert {"FedAvg", "Local only", "Round", "Training loss (no unit)", "north", "south"} <= texts


def test_a_method_without_values_has_no_panel() -> None:
    texts = _texts(dice_svg(_validated(), SITES, METHODS))
    assert "FedAvg" in texts
    assert "Local only" not in texts


def test_rounds_of_which_only_a_sum_is_seen_are_one_curve() -> None:
    opened = [
        SumOpened(
            method="fedavg",
            round=number,
            sites=SITES,
            count=8,
            loss=1.0 / number,
            dice={"WT": 0.5} if number > 1 else None,
            update_norm=1.0,
            seconds=0.1,
        )
        for number in (1, 2, 3)
    ]
    for svg in (loss_svg([], SITES, METHODS, opened), dice_svg([], SITES, METHODS, opened)):
        texts = _texts(svg)
        assert {"FedAvg", "all sites (one sum)"} <= texts
        assert not {"north", "south"} & texts


def test_the_time_of_rounds_has_units_a_key_and_only_rounds_that_were() -> None:
    times = {"fedavg": (RoundTime(2, 40.0, 30.0), RoundTime(4, 20.0, 25.0))}
    texts = _texts(round_times_svg(times))
    assert {"Time (s)", "Round", "training", "transport, waiting, checks, aggregation"} <= texts
    assert {"2", "4"} <= texts
    assert not {"1", "3"} & texts


def test_the_network_is_drawn_with_the_sizes_features_and_strides_of_its_stages() -> None:
    plan = Configuration(
        spacing_mm=(3.0, 1.0, 1.0),
        median_shape=(20.0, 90.0, 90.0),
        patch_size=(20, 96, 80),
        batch_size=2,
        strides=((1, 2, 2), (2, 2, 2)),
        kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        features_per_stage=(32, 64, 128),
        batch_dice=False,
        deep_supervision_weights=(1.0,),
    )
    svg = network_svg("3d_fullres", plan, n_inputs=1, n_outputs=3)
    words = re.findall(r"<!--(.*?)-->", svg)
    texts = " ".join(" ".join(words).split()).replace("\N{MULTIPLICATION SIGN}", "x")
    for text in ("32 features", "20 x 96 x 80", "20 x 48 x 40", "10 x 24 x 20", "1 x 2 x 2"):
        assert text in texts
    assert "1 channel 3 outputs" in texts
    assert fields_of_view(plan) == [(1, 5, 5), (5, 11, 11), (11, 23, 23)]


def test_held_out_plots_name_regions_methods_and_units() -> None:
    texts = _texts(held_out_svg(_scores(), "hd95", METHODS))
    assert {"WT", "ET", "FedAvg", "Local only", "HD95 (mm)", "373"} <= texts


def test_the_floor_is_drawn_only_into_dice() -> None:
    floors = [_floor("WT")]
    assert "floor 0.612" in _texts(held_out_svg(_scores(), "dice", METHODS, floors))
    assert "floor 0.612" not in _texts(held_out_svg(_scores(), "hd95", METHODS, floors))
    assert "floor 0.612" not in _texts(held_out_svg(_scores(), "dice", METHODS, [_floor("TC")]))


def test_a_page_may_hold_all_plots_without_a_repeated_identifier() -> None:
    plots = (
        loss_svg(_trained(), SITES, METHODS),
        dice_svg(_validated(), SITES, METHODS),
        held_out_svg(_scores(), "dice", METHODS),
        held_out_svg(_scores(), "hd95", METHODS),
    )
    identifiers = [name for svg in plots for name in re.findall(r'\bid="([^"]+)"', svg)]
    assert len(identifiers) == len(set(identifiers))
    for svg in plots:
        used = set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
        assert used <= set(identifiers)


def test_on_a_page_text_takes_the_pages_colour_and_nothing_points_outside() -> None:
    page = for_page(held_out_svg(_scores(), "dice", METHODS))
    assert page.startswith("<svg")
    assert "currentColor" in page
    assert "http" not in page
    assert "#1b1e24" not in page


def test_odd_site_names_are_neither_formulas_nor_markup() -> None:
    odd = "$x_1$ --><script>alert(1)</script>"
    svg = loss_svg(_trained(odd), (odd, "_south"), METHODS)
    assert "<script" not in re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    ET.fromstring(svg)  # noqa: S314 - our own text


@given(st.integers(min_value=0, max_value=42))
def test_sites_look_different_and_keep_their_look_when_others_join(n_sites: int) -> None:
    sites = [f"site-{number}" for number in range(n_sites)]
    styles = site_styles(sites)
    assert list(styles) == sites
    assert len(set(styles.values())) == n_sites
    assert styles.items() <= site_styles([*sites, "newcomer"]).items()
