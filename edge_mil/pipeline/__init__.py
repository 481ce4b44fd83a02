"""From tiles or saved features to a bag that can be scored: what a session runs, without a store.

A bundle goes in; a `Model` comes out that turns tiles into features and features into an
`InstanceBatch`. `loading` loads one; `model` extracts and attends; `runners/` chooses and verifies
what runs the extractor on this device; `ood/` finds images that the model was not made for;
`instance_order` gives instances the order that whole-bag heads need. `saved_features/` and
`whole_slide/` score a file of features and a slide file by the same steps as a live session.
"""

from edge_mil.pipeline.loading import load_model
from edge_mil.pipeline.model import Model

__all__ = ["Model", "load_model"]
