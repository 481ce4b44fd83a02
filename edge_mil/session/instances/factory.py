"""Chooses the survey that a bundle and a session need."""

from __future__ import annotations

from msgspec import structs

from edge_mil.errors import BundleError, UsageError
from edge_mil.pipeline import Model
from edge_mil.session.instances.base import InstanceMap
from edge_mil.session.instances.field_instances import FieldInstances
from edge_mil.session.instances.grid_instances import GridInstances
from edge_mil.session.instances.registration_localizer import RegistrationLocalizer
from edge_mil.session.instances.stage_localizer import StageLocalizer
from edge_mil.session.settings import SessionSettings


def open_instance_map(
    model: Model, settings: SessionSettings, frame_size: tuple[int, int] | None
) -> InstanceMap:
    """Return an empty survey.

    Args:
        model: Its input says what an instance is.
        settings: Pixel size, outline, and whether fields are independent.
        frame_size: (height, width) of the session's fields, px; None before the first.

    Raises:
        BundleError: The bundle has no extractor, so it takes no fields.
        PixelSizeError: The pixel size does not fit the bundle.
        UsageError: Independent fields, and a bundle whose instances are cells.
    """
    spec = model.input
    if spec is None:
        raise BundleError(
            f"{model.bundle.manifest.name} has no extractor, so it takes no fields; score saved "
            "features with edge-mil score, or export it with an extractor."
        )
    if settings.background is not None:
        tissue = structs.replace(spec.tissue, background=settings.background)
        spec = structs.replace(spec, tissue=tissue)
    if spec.instances == "field":
        return FieldInstances(spec, settings, frame_size)
    if settings.independent:
        raise UsageError(
            f"{model.bundle.manifest.name} counts cells of a grid, so its fields need stage "
            "positions; independent fields go with a bundle whose instance is a whole field "
            "(--instances field)."
        )
    if settings.stage:
        return StageLocalizer(GridInstances(spec, settings, frame_size), settings)
    return RegistrationLocalizer(lambda: GridInstances(spec, settings, frame_size))
