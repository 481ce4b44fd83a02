"""Heads as STAMP trains them; its Lightning files carry `model.` before every key."""
