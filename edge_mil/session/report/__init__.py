"""Write a session as files: one HTML page, or tables and images for other programs.

`content` gathers what the page shows, `page` renders it, `charts` and `layer_charts` draw it;
`files` writes the export of `edge-mil session export`.
"""
