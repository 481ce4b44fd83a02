"""Play the main job from end to end: `edge-mil demo`.

`painted_slide` paints a slide (`slide_layout` decides where things lie, `stain_canvas` paints them
with `nuclei` and `tissue_texture`) and `tiled_tiff` writes it as a slide file. `run` plays it
through a real service (`service_process`), shows the score as it settles (`terminal`), and ends
with the session's report. `readme_picture` draws such a run for the README. `bundle/` holds the
demo's model, which knows painted tissue only.
"""
