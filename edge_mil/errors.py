"""Every error that edge_mil raises on purpose, in one tree, one level deep.

* EdgeMilError
  - BundleError              a bundle lacks a part, was changed, or does not fit its own manifest
  - BundleVersionError       a bundle was written by a newer edge_mil
  - BundleNotReadyError      the service still loads the bundle
  - UnknownBundleError       the service has no bundle of that name or digest
  - NotThereYetError         the command or option belongs to a later release
  - DependencyError          an optional package is not installed
  - EngineError              a TensorRT engine cannot be built, kept, or used here
  - BackendLostError         an accelerator went away, or failed in the middle of its work
  - InvalidFeaturesError     a features file, or an array of features, cannot be scored
  - InvalidInstancesError    the arrays of an instance batch do not fit together or are not finite
  - EmptyBagError            a score was asked for before any instance arrived
  - PixelSizeError           the pixel size is unknown, impossible, or does not fit the bundle
  - PositionError            a field has no usable position or place
  - FrameError               a frame is malformed: size, format, truncated, corrupt
  - SequenceError            a sequence number was used for two different fields
  - ProtocolError            a message came that the protocol does not allow at this point
  - CreditError              a client sent more fields than it had credit for
  - SessionNotFoundError     no session of that id
  - SessionBusyError         another client is writing to the session
  - SessionFencedError       another client took the session over
  - SessionClosedError       the session was closed and takes no more fields
  - SessionStateError        the session is not in the state that the call needs
  - RequestReusedError       a request id was used for two different requests
  - SourceError              a slide, folder or camera cannot be read
  - ListenError              the service cannot listen at that address
  - ServiceUnavailableError  the service cannot be reached, or went away
  - RemoteError              the service answered a call with an error of its own
  - CalibrationError         a calibration is missing, stale, of other optics, or cannot be measured
  - StoreError               the session's records cannot be written or read
  - UsageError               a command was given arguments that do not make sense together
"""

from __future__ import annotations


class EdgeMilError(Exception):
    """Root of the tree: catch this to catch what edge_mil foresaw.

    The message is one sentence or two that say what was met, what was expected and what to do.

    Attributes:
        details: The numbers and names behind the message; they travel as gRPC error metadata.
    """

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.details: dict[str, str] = {name: str(value) for name, value in details.items()}


class BundleError(EdgeMilError):
    """A bundle is missing a part, was changed, or does not fit its own manifest."""


class BundleVersionError(EdgeMilError):
    """A bundle was written by a newer edge_mil than this one."""


class BundleNotReadyError(EdgeMilError):
    """The service still loads the bundle; `details["retry_after_s"]` says how long to wait."""


class UnknownBundleError(EdgeMilError):
    """The service has no bundle of that name or digest."""


class NotThereYetError(EdgeMilError):
    """The command, option or rpc belongs to a later release."""


class DependencyError(EdgeMilError):
    """An optional package is not installed; the message holds the command that installs it."""


class EngineError(EdgeMilError):
    """A TensorRT engine cannot be built, kept, or used here; the message says why."""


class BackendLostError(EdgeMilError):
    """An accelerator went away or failed; whoever meets this goes to the next backend."""


class InvalidFeaturesError(EdgeMilError):
    """A features file, or an array of features, cannot be scored by this bundle."""


class InvalidInstancesError(EdgeMilError):
    """The arrays of an instance batch do not fit together or are not finite."""


class EmptyBagError(EdgeMilError):
    """A slide-level score was asked for while the bag is empty."""

    def __init__(self) -> None:
        super().__init__(
            "The bag holds no instance, so it has no score yet. Send at least one field of view "
            "that is accepted, then ask again."
        )


class PixelSizeError(EdgeMilError):
    """The pixel size is unknown, impossible, or does not fit the bundle."""


class PositionError(EdgeMilError):
    """A field has no usable position or place."""


class FrameError(EdgeMilError):
    """A frame is malformed: wrong size or format, truncated or corrupt."""


class SequenceError(EdgeMilError):
    """A sequence number was used for two different fields."""


class ProtocolError(EdgeMilError):
    """A message came that the protocol does not allow at this point of the stream."""


class CreditError(EdgeMilError):
    """A client sent more fields than it had credit for."""


class SessionNotFoundError(EdgeMilError):
    """There is no session of that id."""


class SessionBusyError(EdgeMilError):
    """Another client is writing to the session."""


class SessionFencedError(EdgeMilError):
    """Another client took the session over."""


class SessionClosedError(EdgeMilError):
    """The session was closed and takes no more fields."""


class SessionStateError(EdgeMilError):
    """The session is not in the state that the call needs."""


class RequestReusedError(EdgeMilError):
    """A request id was used for two different requests."""


class SourceError(EdgeMilError):
    """A slide, folder or camera cannot be read."""


class ListenError(EdgeMilError):
    """The service cannot listen at that address."""


class ServiceUnavailableError(EdgeMilError):
    """The service cannot be reached, or went away and did not come back in time."""


class RemoteError(EdgeMilError):
    """The service answered a call with an error of its own.

    Attributes:
        code: Name of the gRPC status, as "INVALID_ARGUMENT".
        reason: The machine-readable reason, as "PIXEL_SIZE_UNKNOWN"; empty when there is none.
    """

    def __init__(self, message: str, code: str, reason: str = "", **details: object) -> None:
        super().__init__(message, **details)
        self.code, self.reason = code, reason


class CalibrationError(EdgeMilError):
    """A calibration is missing, damaged, stale or of other optics, or cannot be measured."""


class StoreError(EdgeMilError):
    """The session's records cannot be written or read."""


class UsageError(EdgeMilError):
    """A command was given arguments that do not make sense together."""
