"""Every error that edge_mil raises on purpose, grouped by what the caller can do about it.

    EdgeMilError
    ├── UnavailableError             something that is needed is not here (yet): start it, wait
    │   ├── ServiceUnavailableError
    │   ├── BundleNotReadyError
    │   ├── BackendLostError
    │   ├── EngineError
    │   ├── DependencyError
    │   ├── ListenError
    │   └── NotThereYetError
    ├── BusyError                    somebody else has it, or too much was sent: try again later
    │   ├── SessionBusyError
    │   ├── SessionFencedError
    │   └── CreditError
    ├── BadInputError                what the caller gave, or asked for, is wrong: change the call
    │   ├── UsageError
    │   ├── SourceError
    │   ├── FrameError
    │   ├── PixelSizeError
    │   ├── PositionError
    │   ├── SequenceError
    │   ├── ProtocolError
    │   ├── RequestReusedError
    │   ├── SessionNotFoundError
    │   ├── SessionClosedError
    │   ├── SessionStateError
    │   ├── UnknownBundleError
    │   ├── InvalidFeaturesError
    │   ├── InvalidInstancesError
    │   ├── EmptyBagError
    │   └── CalibrationError
    ├── DamagedDataError             data on the disk cannot be used: restore it, or make it anew
    │   ├── BundleError
    │   ├── BundleVersionError
    │   ├── StoreError
    │   └── DamagedCalibrationError  (a CalibrationError too)
    └── RemoteError                  the service answered a call with an error of its own
        ├── RemoteUnavailableError   (an UnavailableError too, and so on for the other groups)
        ├── RemoteBusyError
        ├── RemoteBadInputError
        └── RemoteDamagedDataError

So `except BusyError` catches a busy session in this process and a busy service alike. Errors of
the exporter (`edge_mil_export.errors`) are children of `UsageError`.
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


class UnavailableError(EdgeMilError):
    """Something that is needed is not here: start it, wait for it, install or update it."""


class BusyError(EdgeMilError):
    """Somebody else has what is needed, or too much was sent at once: try again later."""


class BadInputError(EdgeMilError):
    """What the caller gave, or asked for at this moment, is wrong: the same call fails again."""


class DamagedDataError(EdgeMilError):
    """Data on the disk cannot be read, written or trusted: restore it, or make it anew."""


# UnavailableError


class ServiceUnavailableError(UnavailableError):
    """The service cannot be reached, or went away and did not come back in time."""


class BundleNotReadyError(UnavailableError):
    """The service still loads the bundle; `details["retry_after_s"]` says how long to wait."""


class BackendLostError(UnavailableError):
    """An accelerator went away or failed; whoever meets this goes to the next backend."""


class EngineError(UnavailableError):
    """A TensorRT engine cannot be built, kept, or used here; the message says why.

    `details["transient"]` is "True" where memory, time or space ran out: a later try may succeed.
    """


class DependencyError(UnavailableError):
    """An optional package is not installed; the message holds the command that installs it."""


class ListenError(UnavailableError):
    """The service cannot listen at that address."""


class NotThereYetError(UnavailableError):
    """The command, option or rpc belongs to a later release."""


# BusyError


class SessionBusyError(BusyError):
    """Another client is writing to the session."""


class SessionFencedError(BusyError):
    """Another client took the session over."""


class CreditError(BusyError):
    """A client sent more fields than it had credit for."""


# BadInputError


class UsageError(BadInputError):
    """A command or a call was given arguments that do not make sense, alone or together."""


class SourceError(BadInputError):
    """A slide, folder or camera cannot be read."""


class FrameError(BadInputError):
    """A frame is malformed: wrong size or format, truncated or corrupt."""


class PixelSizeError(BadInputError):
    """The pixel size is unknown, impossible, or does not fit the bundle."""


class PositionError(BadInputError):
    """A field has no usable stage position or location."""


class SequenceError(BadInputError):
    """A sequence number was used for two different fields, or for none."""


class ProtocolError(BadInputError):
    """A message came that the protocol does not allow at this point of the stream."""


class RequestReusedError(BadInputError):
    """A request id was used for two different requests."""


class SessionNotFoundError(BadInputError):
    """There is no session of that id."""


class SessionClosedError(BadInputError):
    """The session was closed and takes no more fields."""


class SessionStateError(BadInputError):
    """The session is not in the state that the call needs."""


class UnknownBundleError(BadInputError):
    """The service has no bundle of that name or digest."""


class InvalidFeaturesError(BadInputError):
    """A features file, or an array of features, cannot be scored by this bundle."""


class InvalidInstancesError(BadInputError):
    """The arrays of an instance batch do not fit together or are not finite."""


class EmptyBagError(BadInputError):
    """A slide-level score was asked for while the bag is empty."""

    def __init__(self) -> None:
        super().__init__(
            "The bag holds no instance, so it has no score yet. Send at least one field of view "
            "that is accepted, then ask again."
        )


class CalibrationError(BadInputError):
    """A calibration is missing, damaged, stale or of other optics, or cannot be measured."""


# DamagedDataError


class BundleError(DamagedDataError):
    """A bundle is missing a part, was changed, or does not fit its own manifest."""


class BundleVersionError(DamagedDataError):
    """A bundle was written by a newer edge_mil than this one."""


class StoreError(DamagedDataError):
    """The session's records cannot be written or read."""


class DamagedCalibrationError(CalibrationError, DamagedDataError):
    """A calibration's file is not what was written."""


# RemoteError


class RemoteError(EdgeMilError):
    """The service answered a call with an error of its own.

    Attributes:
        code: Name of the gRPC status, as "INVALID_ARGUMENT".
        reason: The machine-readable reason, as "PIXEL_SIZE_UNKNOWN"; empty when there is none.
    """

    def __init__(self, message: str, code: str, reason: str = "", **details: object) -> None:
        super().__init__(message, **details)
        self.code, self.reason = code, reason


class RemoteUnavailableError(RemoteError, UnavailableError):
    """The service lacks something that the call needs, or is about to stop."""


class RemoteBusyError(RemoteError, BusyError):
    """The service is busy with the session, the bundle or the calibration."""


class RemoteBadInputError(RemoteError, BadInputError):
    """The service refuses what it was sent; the same call would be refused again."""


class RemoteDamagedDataError(RemoteError, DamagedDataError):
    """The service cannot read or write what it keeps on its disk."""
