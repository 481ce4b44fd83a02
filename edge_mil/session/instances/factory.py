"""Choose how a session finds positions and what it counts."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from edge_mil.errors import BundleError, UsageError
from edge_mil.pipeline import Model
from edge_mil.session.instances.base import InstanceMap, Localizer
from edge_mil.session.instances.declared_localizer import DeclaredLocalizer
from edge_mil.session.instances.field_instances import FieldInstances
from edge_mil.session.instances.grid_instances import GridInstances
from edge_mil.session.instances.registration_localizer import RegistrationLocalizer
from edge_mil.session.instances.stage_localizer import StageLocalizer
from edge_mil.session.settings import SessionSettings


def open_instances(
    model: Model, settings: SessionSettings, frame_size: tuple[int, int] | None
) -> tuple[Localizer[Any], InstanceMap[Any]]:
    """Return a localizer and an empty instance map.

    Args:
        model: Its input says what an instance is.
        settings: Pixel size, outline, stage, and whether fields are independent.
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
        fields = FieldInstances(spec, settings, frame_size)
        return DeclaredLocalizer(independent=settings.independent), fields
    if settings.independent:
        raise UsageError(
            f"{model.bundle.manifest.name} counts cells of a grid, so its fields need stage "
            "positions; independent fields go with a bundle whose instance is a whole field "
            "(--instances field)."
        )
    cells = GridInstances(spec, settings, frame_size)
    if settings.stage:
        return StageLocalizer(settings), cells
    return RegistrationLocalizer(cells.geometry, cells.tissue), cells
