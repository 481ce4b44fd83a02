"""Serve what people look at: scores, fields, influence, layers of cells, mosaic.

`servicer` answers the calls of ViewService from a session's records.
"""
