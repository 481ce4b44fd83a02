"""Serve what people look at: scores, fields, influence, layers, mosaic and reports.

`servicer` answers the calls; `session_report` writes a session as a message, in the canonical
JSON of `canonical`.
"""
