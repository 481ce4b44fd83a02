"""Join a field's header and chunks to its bytes, by the rules of the stream."""

from __future__ import annotations

import time

import numpy as np

from edge_mil.errors import EdgeMilError, ProtocolError
from edge_mil.rpc.frames import check_header, check_limits
from edge_mil.types import UInt8Array
from edge_mil.v1 import edge_mil_pb2 as pb


class FrameAssembly:
    """One field that is being received, in a buffer of its own.

    Attributes:
        header: What the client declared.
        rejected: Why the field cannot be taken; its bytes are then read and discarded, and the
            stream goes on.
        payload: The bytes so far, uint8, shape (total_bytes,); empty when rejected.
        started: When the header came, seconds of the monotonic clock.
        received: Bytes that came.
    """

    def __init__(self, header: pb.FieldHeader) -> None:
        """Check the header and make the buffer.

        Raises:
            ProtocolError: The header contradicts itself, which ends the stream.
        """
        check_header(header)
        self.header = header
        self.rejected: EdgeMilError | None = None
        self.started = time.monotonic()
        self.received = 0
        try:
            check_limits(header)
        except EdgeMilError as error:
            self.rejected = error
        # Not zeroed, and never used for a second field: the frame's pixels are these bytes.
        size = 0 if self.rejected else header.total_bytes
        self.payload: UInt8Array = np.empty(size, dtype=np.uint8)

    @property
    def complete(self) -> bool:
        """Whether every byte has come."""
        shared = self.header.encoding == pb.ENCODING_SHARED_MEMORY
        return shared or self.received == self.header.total_bytes

    def add(self, chunk: pb.FieldChunk) -> None:
        """Take the next chunk.

        Raises:
            ProtocolError: It does not follow the one before, or goes beyond the field's end.
        """
        # Reading `data` copies it, so it is read once.
        data = chunk.data
        if chunk.offset != self.received:
            raise ProtocolError(
                f"A chunk of field {self.header.sequence} has offset {chunk.offset} and "
                f"{self.received} bytes came before it; send chunks in order, without gaps.",
                field="offset",
                offset=chunk.offset,
                received=self.received,
            )
        end = self.received + len(data)
        if end > self.header.total_bytes:
            raise ProtocolError(
                f"The chunks of field {self.header.sequence} hold {end} bytes and its header says "
                f"{self.header.total_bytes}; total_bytes is the sum of the chunks.",
                field="data",
                total_bytes=self.header.total_bytes,
                received=end,
            )
        if not self.rejected:
            self.payload[self.received : end] = np.frombuffer(data, dtype=np.uint8)
        self.received = end
