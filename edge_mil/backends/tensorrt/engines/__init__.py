"""Engines on the disk: what each is built from, its file, and the folder that holds them."""
