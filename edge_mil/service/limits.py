"""What the service promises every client: its protocol versions, and how much it takes at once."""

PROTOCOL_VERSIONS = ("edge_mil.v1",)

CREDITS = 3
"""Fields under way on one stream: two keep the pipeline busy, more than four only add latency
(`docs/design/serving-and-durability.md`, "Credits")."""

MAX_LIVE_SESSIONS = 32
"""Sessions kept open; above it the idle ones are closed, and opened again when asked for."""
