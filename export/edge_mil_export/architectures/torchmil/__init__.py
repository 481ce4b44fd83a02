"""Heads as torchmil writes them: one bag logit, of which the probability is the sigmoid."""
