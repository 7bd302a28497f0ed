"""The hospital's folder: its layouts and files, and everything that may be wrong with them."""
