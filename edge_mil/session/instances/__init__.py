"""Say which instances a frame shows: find the position of the frame, then plan its instances.

A `Localizer` finds the position; `stage_localizer` takes the stage's word and checks it against
the images, `registration_localizer` finds a frame without a stage by its content. An
`InstanceMap` plans what the frame changes: `grid_instances` counts cells of the global grid,
`field_instances` whole fields. `factory` chooses both for a session, `relocation` moves what is
held when a loop closes, `rows` writes cells as rows of the store.
"""
