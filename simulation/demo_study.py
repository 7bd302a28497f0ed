"""The study of `consilium demo`: four training sites of unequal size and one unseen scanner."""

from simulation.phantoms import PhantomSite, PhantomStudy

HELD_OUT_SITE = "site-5"


def demo_study(seed: int = 1) -> PhantomStudy:
    """Return 40 training cases at `site-1` to `site-4` and 10 cases at the held-out `site-5`.

    Args:
        seed: of all cases; another seed gives other patients on the same scanners.
    """
    return PhantomStudy(
        seed=seed,
        field_of_view_mm=(140.0, 168.0, 144.0),  # 10 mm around the largest brain
        sites=(
            PhantomSite(
                name="site-1",
                n_cases=4,
                spacing_mm=(3.5, 3.5, 3.5),
                gain=(400.0, 450.0, 500.0, 300.0),
                gamma=(1.0, 1.0, 1.0, 1.0),
                noise_fraction=0.03,
                bias_fraction=0.05,
                tumour_radius_mm=28.0,
                tumour_radius_spread=0.20,
                without_enhancing_fraction=0.25,
            ),
            PhantomSite(
                name="site-2",
                n_cases=8,
                spacing_mm=(4.0, 3.5, 3.5),
                gain=(900.0, 1100.0, 700.0, 800.0),
                gamma=(1.25, 1.2, 0.85, 0.9),
                noise_fraction=0.05,
                bias_fraction=0.09,
                tumour_radius_mm=24.0,
                tumour_radius_spread=0.25,
                without_enhancing_fraction=0.125,
            ),
            PhantomSite(
                name="site-3",
                n_cases=12,
                spacing_mm=(3.5, 3.5, 3.5),
                gain=(150.0, 160.0, 220.0, 180.0),
                gamma=(0.8, 0.85, 1.2, 1.15),
                noise_fraction=0.04,
                bias_fraction=0.12,
                tumour_radius_mm=26.0,
                tumour_radius_spread=0.25,
                without_enhancing_fraction=0.25,
            ),
            PhantomSite(
                name="site-4",
                n_cases=16,
                spacing_mm=(3.5, 3.75, 3.75),
                gain=(600.0, 620.0, 400.0, 500.0),
                gamma=(1.1, 1.0, 1.1, 0.8),
                noise_fraction=0.045,
                bias_fraction=0.07,
                tumour_radius_mm=22.0,
                tumour_radius_spread=0.25,
                without_enhancing_fraction=0.125,
            ),
            PhantomSite(
                name=HELD_OUT_SITE,
                n_cases=10,
                spacing_mm=(4.0, 3.75, 3.75),
                gain=(1300.0, 1200.0, 950.0, 1000.0),
                gamma=(0.9, 1.1, 0.95, 1.25),
                noise_fraction=0.06,
                bias_fraction=0.1,
                tumour_radius_mm=25.0,
                tumour_radius_spread=0.25,
                without_enhancing_fraction=0.2,
            ),
        ),
    )
