"""Algorithmic unit tests of a head: can it score high because something is absent?"""
