"""Serve sessions: open them, stream fields to them, remove fields, close them.

`servicer` answers the calls. `opening` checks a request and makes settings of it; `registry` finds
sessions and opens them (`request_ids`), each through its `life_cycle` in this process, and lets
those whose idle time is over expire (`expiry`); `live_session` is an open session with its writer
and its watchers.
`field_stream` is one stream of one client; it hands each whole field to `field_worker`, which
decodes and folds it in the background. `messages` and `session_report` write what clients get.
"""
