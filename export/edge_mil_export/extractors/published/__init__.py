"""Read an extractor from the file that its authors publish: `checkpoint:FILE`, `preset:NAME`.

`opening` runs the steps: `layouts` finds the network inside of the file and what lies beside it,
`vit_layouts` brings the names of a transformer's weights to one form, `questions` collects what the
file cannot tell and asks for it, and `vit_building` and `networks` make what computes the features.
`config_files` reads what model hubs put beside the weights; `presets` holds what authors of
published extractors use (`preset_table`).
"""
