"""Heads whose state has a fixed size: states of parts of a slide merge to the state of the whole.

`attention` is the online softmax that most heads use, `multihead` the same with learned queries;
`columnwise` pools by mean or maximum; `top_instance` keeps the instance with the largest
probability; `dtfd` and `dtfd_top` pool pseudo-bags and pool again what each of them gives;
`merged_tokens` lets tokens that attend the bag join it.
"""
