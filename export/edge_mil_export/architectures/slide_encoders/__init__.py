"""Slide encoders that pool with attention: most have no classifier and give a pooled vector."""
