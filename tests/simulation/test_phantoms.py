"""Synthetic multi-site brains: layout, determinism, nested tumours, differences of the sites."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.dataset.nifti import read_channels, read_labels
from common.codec import decode, encode
from common.errors import ConfigError
from common.evaluation.floor import best_threshold_floor
from simulation.anatomy import smooth_field
from simulation.demo_study import HELD_OUT_SITE, demo_study
from simulation.partition import from_csv
from simulation.phantoms import (
    Phantom,
    PhantomSite,
    PhantomStudy,
    draw_phantom,
    partition_of,
    write_study,
)

T1, T1CE, T2, FLAIR = range(4)

SITE = PhantomSite(
    name="site-1",
    n_cases=2,
    spacing_mm=(5.0, 4.0, 4.0),
    gain=(100.0, 200.0, 300.0, 400.0),
    gamma=(1.0, 1.0, 1.0, 1.0),
    noise_fraction=0.02,
    bias_fraction=0.05,
    tumour_radius_mm=26.0,
    tumour_radius_spread=0.1,
    without_enhancing_fraction=0.5,
)
STUDY = PhantomStudy(
    seed=7,
    field_of_view_mm=(140.0, 168.0, 144.0),
    sites=(SITE, replace(SITE, name="site-2", n_cases=1, without_enhancing_fraction=0.0)),
)


@pytest.fixture(scope="module")
def demo_cases() -> dict[str, list[Phantom]]:
    study = demo_study()
    return {
        site.name: [draw_phantom(study, site, number) for number in range(site.n_cases)]
        for site in study.sites
    }


def test_a_study_is_written_in_the_brats_layout_with_its_partition(tmp_path: Path) -> None:
    files = write_study(STUDY, tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "partition.csv",
        "phantom_0001/phantom_0001_flair.nii.gz",
        "phantom_0001/phantom_0001_seg.nii.gz",
        "phantom_0001/phantom_0001_t1.nii.gz",
        "phantom_0001/phantom_0001_t1ce.nii.gz",
        "phantom_0001/phantom_0001_t2.nii.gz",
        "phantom_0002/phantom_0002_flair.nii.gz",
        "phantom_0002/phantom_0002_seg.nii.gz",
        "phantom_0002/phantom_0002_t1.nii.gz",
        "phantom_0002/phantom_0002_t1ce.nii.gz",
        "phantom_0002/phantom_0002_t2.nii.gz",
        "phantom_0003/phantom_0003_flair.nii.gz",
        "phantom_0003/phantom_0003_seg.nii.gz",
        "phantom_0003/phantom_0003_t1.nii.gz",
        "phantom_0003/phantom_0003_t1ce.nii.gz",
        "phantom_0003/phantom_0003_t2.nii.gz",
    ]
    assert files.folder == tmp_path
    assert dict(from_csv(files.partition_csv).sites) == {
        "site-1": ("phantom_0001", "phantom_0002"),
        "site-2": ("phantom_0003",),
    }


def test_files_hold_what_was_drawn_at_the_site_s_voxel_size(tmp_path: Path) -> None:
    write_study(STUDY, tmp_path)
    drawn = draw_phantom(STUDY, SITE, 1)
    case = tmp_path / "phantom_0002"
    flair, grid = read_channels(case / "phantom_0002_flair.nii.gz")
    labels, label_grid = read_labels(case / "phantom_0002_seg.nii.gz", None)
    assert grid.spacing_mm == label_grid.spacing_mm == (5.0, 4.0, 4.0)
    assert flair.shape == (1, 28, 42, 36)
    np.testing.assert_array_equal(flair[0], drawn.image[FLAIR])
    np.testing.assert_array_equal(labels, drawn.labels)


def test_progress_counts_the_cases(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_study(STUDY, tmp_path, lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_case_depends_on_seed_site_and_number_alone() -> None:
    first = draw_phantom(STUDY, SITE, 1)
    again = draw_phantom(replace(STUDY, sites=(SITE,)), replace(SITE, n_cases=9), 1)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    for other in (
        draw_phantom(replace(STUDY, seed=8), SITE, 1),
        draw_phantom(STUDY, replace(SITE, name="site-9"), 1),
        draw_phantom(STUDY, SITE, 3),
    ):
        assert np.any(first.labels != other.labels)


def test_two_sites_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="found 'site-1' twice"):
        partition_of(replace(STUDY, sites=(SITE, SITE)))


def test_a_study_survives_its_file() -> None:
    assert decode(PhantomStudy, encode(STUDY), source="study") == STUDY


def test_a_study_that_cannot_be_drawn_is_refused_with_every_defect() -> None:
    plain = encode(STUDY)
    plain["sites"][0]["spacing_mm"][0] = 0.0
    plain["sites"][1]["without_enhancing_fraction"] = 1.5
    with pytest.raises(ConfigError, match=r"sites\.0\.spacing_mm\.0: (.|\n)*sites\.1\.without_enh"):
        decode(PhantomStudy, plain, source="study")


def test_intensities_are_zero_outside_the_brain_and_positive_inside(
    demo_cases: dict[str, list[Phantom]],
) -> None:
    for cases in demo_cases.values():
        for case in cases:
            inside = case.image[FLAIR] > 0
            assert 0.25 < inside.mean() < 0.6
            assert np.all((case.image > 0) == inside)
            assert not case.labels[~inside].any()
            assert np.isfinite(case.image).all()


def test_every_case_has_oedema_and_core_with_brats_labels(
    demo_cases: dict[str, list[Phantom]],
) -> None:
    for cases in demo_cases.values():
        for case in cases:
            assert set(np.unique(case.labels)) - {4} == {0, 1, 2}


def test_the_stated_share_of_cases_lacks_enhancing_tumour(
    demo_cases: dict[str, list[Phantom]],
) -> None:
    lacking = {
        site: sum(not np.any(case.labels == 4) for case in cases)
        for site, cases in demo_cases.items()
    }
    assert lacking == {"site-1": 1, "site-2": 1, "site-3": 3, "site-4": 2, "site-5": 2}


def test_each_channel_shows_its_own_part_of_the_tumour() -> None:
    case = draw_phantom(STUDY, replace(SITE, without_enhancing_fraction=0.0), 0)
    brain = (case.labels == 0) & (case.image[FLAIR] > 0)
    core, oedema, enhancing = (case.labels == label for label in (1, 2, 4))

    def median(channel: int, mask: np.ndarray) -> float:
        return float(np.median(case.image[channel][mask]))

    assert median(T1CE, enhancing) > 1.2 * median(T1CE, brain)
    assert median(T1CE, core) < 0.8 * median(T1CE, brain)
    assert median(T1, core) < 0.8 * median(T1, brain)
    assert median(T2, oedema) > 1.2 * median(T2, brain)
    assert median(FLAIR, oedema) > 1.2 * median(FLAIR, brain)


def test_gain_scales_its_channel_only() -> None:
    plain = draw_phantom(STUDY, SITE, 0).image
    doubled = draw_phantom(STUDY, replace(SITE, gain=(100.0, 400.0, 300.0, 400.0)), 0).image
    np.testing.assert_allclose(doubled[T1CE], 2.0 * plain[T1CE], rtol=1e-6)
    np.testing.assert_array_equal(doubled[[T1, T2, FLAIR]], plain[[T1, T2, FLAIR]])


def test_a_site_with_larger_tumours_has_larger_tumours() -> None:
    small = draw_phantom(STUDY, replace(SITE, tumour_radius_mm=16.0), 0).labels
    large = draw_phantom(STUDY, replace(SITE, tumour_radius_mm=30.0), 0).labels
    assert np.count_nonzero(large) > 2 * np.count_nonzero(small)


def test_more_noise_is_seen_where_nothing_else_changes() -> None:
    quiet = draw_phantom(STUDY, replace(SITE, noise_fraction=0.0), 0).image
    noisy = draw_phantom(STUDY, replace(SITE, noise_fraction=0.1), 0).image
    inside = quiet[T1] > 0
    assert np.std((noisy - quiet)[T1][inside]) == pytest.approx(10.0, rel=0.1)  # 0.1 of gain 100


def test_the_demo_has_four_unequal_training_sites_and_an_unseen_scanner() -> None:
    study = demo_study()
    assert {site.name: site.n_cases for site in study.sites} == {
        "site-1": 4,
        "site-2": 8,
        "site-3": 12,
        "site-4": 16,
        "site-5": 10,
    }
    assert HELD_OUT_SITE == "site-5"
    assert len({site.gamma for site in study.sites}) == 5


def test_a_flair_threshold_finds_part_of_the_demo_s_tumours_but_not_all(
    demo_cases: dict[str, list[Phantom]],
) -> None:
    thresholds = [0.80, 0.84, 0.86, 0.88, 0.90, 0.92]
    every = [case for cases in demo_cases.values() for case in cases]
    for cases in (every, demo_cases[HELD_OUT_SITE]):
        floor = best_threshold_floor(
            [case.image[FLAIR] for case in cases], [case.labels > 0 for case in cases], thresholds
        )
        assert 0.45 < floor.mean_dice < 0.65


def test_a_smooth_field_has_unit_variance_and_neighbours_alike() -> None:
    field = smooth_field(np.random.default_rng(1), (60, 60, 60), (2.0, 2.0, 2.0), 6.0)
    assert field.dtype == np.float32
    assert field.shape == (60, 60, 60)
    assert abs(float(field.mean())) < 0.05
    assert float(field.std()) == pytest.approx(1.0, abs=0.05)
    assert float(np.mean(field[1:] * field[:-1])) > 0.9  # 2 mm apart, control points 6 mm apart
