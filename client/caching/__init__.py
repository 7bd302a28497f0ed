"""Prepared cases on the site's disk: filled by several processes, whole or not at all."""
