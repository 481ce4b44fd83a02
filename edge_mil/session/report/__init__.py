"""Write a session as files: one HTML page, or tables and images for other programs.

`content` gathers what the page shows from a session's records; `charts` computes the drawings'
coordinates and colours; `page` fills `templates/`, which a designer can edit, with both. `files`
writes the export of `edge-mil session export`.
"""
