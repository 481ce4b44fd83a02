"""What the service promises every client: its protocol versions, and how much it takes at once."""

PROTOCOL_VERSIONS = ("edge_mil.v1",)

CREDITS = 3
"""Fields under way on one stream: two keep the pipeline busy, more than four only add latency
(`docs/design/serving-and-durability.md`, "Credits")."""

MAX_LIVE_SESSIONS = 32
"""Sessions that are streamed to at once, and as many more that are only read. Idle ones are let go
for others, and opened again when asked for."""
MAX_SILENT_STREAMS = 64
"""Streams that have not said which session they want; one more, and the oldest of them ends."""
MAX_FIELD_STREAMS = 2 * (MAX_LIVE_SESSIONS + MAX_SILENT_STREAMS)
"""Streams of fields: those of all sessions, those that say nothing yet, and as many that end."""
MAX_WATCHERS = 64
MAX_CALIBRATIONS = 4
"""Each holds up to half a gigabyte of frames."""
MAX_CALIBRATION_STREAMS = 4 * MAX_CALIBRATIONS
"""Those, and some that say nothing yet."""
MAX_CALLS = 256
MAX_OTHER_STREAMS = 64
"""Loading of models, health and reflection."""
MAX_CONNECTIONS = 512
"""Half of the 1 024 descriptors that a process has unless told otherwise."""

MAX_FIELDS_PER_SESSION = 2 * CREDITS
"""Fields of one session that are received or processed: those of a stream, and of one before it."""
MAX_BYTES_UNDER_WAY = 1 << 30
"""Bytes of all fields that are received or processed, as they came and decoded: 71 of 15 MB, five
of the largest."""

START_S = 10.0
"""Until the first message of a stream."""
CHUNK_S = 10.0
"""Between two chunks of a field."""
SLOWEST_BYTES_PER_S = 125_000
"""A field has ten seconds, and what its bytes take at this rate: a network of one megabit."""
IDLE_STREAM_S = 600.0
"""A stream that sends no field for so long is ended, and its session can be resumed."""
IDLE_CALIBRATION_S = 60.0
"""Between two frames of a calibration: somebody may move the slide by hand."""
IDLE_CONNECTION_S = 300.0
"""A connection without a call."""
