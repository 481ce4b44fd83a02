"""Serve sessions: opening, streaming of fields, closing.

`servicer` answers the calls; `opening` checks a request and makes settings of it; `field_stream`
is one stream of one client, `frame_assembly` joins its chunks to frames; `live_session` is a
session with those who write to it and watch it; `field_worker` processes its fields in the
background.
"""
