"""The hospital's service: check a kit, run the site, stop it, read its log."""
