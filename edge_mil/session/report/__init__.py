"""Write a session as files: one HTML page, or tables and images for other programs.

`gather` collects a session's records into the values of `content`; `charts` computes the drawings'
coordinates and colours; `page` fills `templates/`, which a designer can edit, with both. `files`
writes the export of `edge-mil session export`.
"""
