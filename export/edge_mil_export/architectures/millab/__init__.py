"""Heads as MIL-Lab writes them: `patch_embed`, an attention of their own, `classifier`."""
