"""The bundles of this server: loading, ready or failed, each with one thread of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from edge_mil.bundle import Bundle, open_bundle
from edge_mil.errors import (
    BundleNotReadyError,
    EdgeMilError,
    SessionStateError,
    UnknownBundleError,
    UsageError,
)
from edge_mil.limits import printable
from edge_mil.pipeline import Model
from edge_mil.pipeline.runners.runner import Runner
from edge_mil.pipeline.trial import try_model
from edge_mil.service.models.description import describe
from edge_mil.v1 import edge_mil_pb2 as pb

LOG = logging.getLogger("edge_mil.service")

STARTING, READY, FAILED, UNLOADED = "STARTING", "READY", "FAILED", "UNLOADED"

MAX_DIGEST_CHARS = len("sha256:") + 64
"""Length of a bundle's digest."""


Loader = Callable[[Bundle], Model]


class ServedBundle:
    """One bundle, the state of its model, and the thread that loads it.

    Attributes:
        path: Folder or `.milb` file.
        bundle: The verified bundle; None until it was opened.
        model: The loaded model; None unless it is READY.
        state: STARTING, READY, FAILED or UNLOADED.
        error: Why it is FAILED.
        worker: Its one thread: it loads the model, tries it, and frees it.
        preparing: Returns which runner is being prepared and its progress; None when none is.
        next_runner: A verified runner that takes over between two sessions.
        remark: Why a runner that was asked for does not serve; "" where it does.
    """

    def __init__(self, path: Path, loader: Loader) -> None:
        self.path = path
        self.bundle: Bundle | None = None
        self.model: Model | None = None
        self.state = STARTING
        self.error: EdgeMilError | None = None
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"model-{path.name}")
        self.preparing: Callable[[], str] | None = None
        self.next_runner: Runner | None = None
        self.remark = ""
        self._loader = loader

    @property
    def name(self) -> str:
        """The bundle's name; the file's until it was opened."""
        return self.bundle.manifest.name if self.bundle else self.path.stem

    @property
    def digest(self) -> str:
        """The bundle's digest; "" until it was opened."""
        return self.bundle.digest if self.bundle else ""

    def open(self) -> None:
        """Read and verify the bundle; slow."""
        self.bundle = open_bundle(self.path)

    def load(self) -> None:
        """Load the model, which is slow, and set the state.

        Raises:
            EdgeMilError: The bundle cannot be read or run.
        """
        try:
            if self.bundle is None:
                self.open()
            assert self.bundle is not None
            model = self._loader(self.bundle)
            try:
                try_model(model)
            except BaseException:
                model.close()
                raise
            self.model = model
        except EdgeMilError as error:
            self.state, self.error = FAILED, error
            raise
        self.state, self.error = READY, None

    def switch(self, runner: Runner) -> None:
        """Run fields that start from now on with another runner, verified before."""
        extractor = self.ready().extractor
        if extractor is not None:
            self._drop_next()
            extractor.switch(runner)

    def take_next(self) -> None:
        """Switch to the runner that waits; no session may be in use."""
        runner, self.next_runner = self.next_runner, None
        if runner is not None:
            self.switch(runner)

    def retire(self) -> Callable[[], None]:
        """Take the model out of use at once, on the event loop.

        Returns:
            What frees its memory; slow.
        """
        model, runner = self.model, self.next_runner
        self.model, self.next_runner, self.state = None, None, UNLOADED

        def free() -> None:
            if model is None:
                return
            if runner is not None and model.extractor is not None:
                model.extractor.discard(runner)
            model.close()

        return free

    def pulse(self) -> None:
        """Extract one black tile; on a CPU it waits for the fields under way.

        Raises:
            EdgeMilError: The extractor failed.
        """
        model = self.model
        if model is not None and model.input is not None:
            spec = model.input
            model.extract(np.zeros((1, spec.tile_height_px, spec.tile_width_px, 3), np.uint8))

    def _drop_next(self) -> None:
        runner, self.next_runner = self.next_runner, None
        if runner is not None and self.model is not None and self.model.extractor is not None:
            self.model.extractor.discard(runner)

    def close(self) -> None:
        """Free everything; the bundle can no longer be used."""
        self.worker.shutdown(wait=True, cancel_futures=True)
        self.retire()()

    def ready(self) -> Model:
        """Return the model.

        Raises:
            BundleNotReadyError: It is still loading, or was unloaded.
            EdgeMilError: Loading it failed.
        """
        if self.model is not None:
            return self.model
        if self.state == FAILED and self.error is not None:
            raise self.error
        if self.state == UNLOADED:
            raise SessionStateError(
                f"Bundle {self.name} is unloaded; load it (LoadModel), then ask again.",
                reason="BUNDLE_UNLOADED",
            )
        raise BundleNotReadyError(
            f"Bundle {self.name} is still loading; ask again in a second.", retry_after_s=1
        )

    def info(self) -> pb.ModelInfo:
        """Return the bundle's description for clients."""
        message = pb.ModelInfo(bundle_id=self.name, bundle_digest=self.digest, state=self.state)
        if self.error is not None:
            message.detail = str(self.error)
        if self.model is not None:
            waiting = self.next_runner and f"{self.next_runner.name} waits for the next session"
            parts = [self.model.backend, self.preparing and self.preparing(), waiting, self.remark]
            message.detail = "; ".join(part for part in parts if part)
            message.precision = self.model.precision
        if self.bundle is not None:
            describe(self.bundle, message)
        return message


class BundleRegistry:
    """Every bundle of this server, by name."""

    def __init__(self, paths: Iterable[Path], loader: Loader) -> None:
        self.bundles = [ServedBundle(path, loader) for path in paths]

    async def load_all(
        self,
        opened: Callable[[ServedBundle], Awaitable[None]],
        ready: Callable[[ServedBundle], Awaitable[None]],
    ) -> None:
        """Open all bundles, then load them in the order they were named; report each of both.

        Raises:
            EdgeMilError: One cannot be loaded.
            UsageError: Two have one name.
        """
        loop = asyncio.get_running_loop()
        for at, served in enumerate(self.bundles):
            await loop.run_in_executor(served.worker, served.open)
            for other in self.bundles[:at]:
                if other.name == served.name:
                    raise UsageError(
                        f"{other.path} and {served.path} are both named {served.name}; clients "
                        "could not tell them apart. Serve one of them."
                    )
            await opened(served)
        for served in self.bundles:
            await loop.run_in_executor(served.worker, served.load)
            await ready(served)

    async def pulse(self) -> None:
        """Extract one tile with every model that is ready."""
        loop = asyncio.get_running_loop()
        for served in self.bundles:
            if served.model is not None:
                await loop.run_in_executor(served.worker, served.pulse)

    def pick(self, name: str, digest: str) -> ServedBundle:
        """Return the bundle that a client names; "" takes the only one.

        Raises:
            UnknownBundleError: There is no bundle of that name.
            UsageError: None is named and there are several.
            SessionStateError: The bundle of that name has another digest.
        """
        known = ", ".join(served.name for served in self.bundles)
        if not name:
            named = [served for served in self.bundles if digest and served.digest == digest]
            if not named and len(self.bundles) != 1:
                raise UsageError(
                    f"This service has several bundles ({known}); name the one to use.",
                    field="bundle_id",
                )
            served = (named or self.bundles)[0]
        else:
            found = [served for served in self.bundles if served.name == name]
            if not found:
                if any(served.bundle is None and not served.error for served in self.bundles):
                    raise BundleNotReadyError(
                        f"The service is still opening its bundles, so it cannot say whether "
                        f"{printable(name, 40)} is among them; ask again in a second.",
                        retry_after_s=1,
                    )
                raise UnknownBundleError(
                    f"This service has no bundle {printable(name, 40)!r}; it has {known}.",
                    bundles=known,
                )
            served = found[0]
        if digest and served.bundle is not None and served.digest != digest:
            raise SessionStateError(
                f"Bundle {served.name} is loaded here with digest {served.digest[:19]}..., not "
                f"{printable(digest, 19)}...; serve that version, or ask for this one.",
                reason="BUNDLE_DIGEST_MISMATCH",
                loaded=served.digest,
                asked=printable(digest, MAX_DIGEST_CHARS),
            )
        return served

    def by_digest(self, digest: str) -> ServedBundle:
        """Return the bundle of a stored session.

        Raises:
            UnknownBundleError: It is not served here.
            BundleNotReadyError: It may be served, once all bundles are opened.
        """
        for served in self.bundles:
            if served.digest == digest:
                return served
        if any(served.bundle is None and not served.error for served in self.bundles):
            raise BundleNotReadyError(
                "The service is still opening its bundles; ask again in a second.", retry_after_s=1
            )
        raise UnknownBundleError(
            f"The session needs bundle {digest[:19]}..., which this service does not have; start "
            "it with that --bundle too.",
            digest=digest,
        )

    def close(self) -> None:
        """Free every model."""
        for served in self.bundles:
            served.close()
