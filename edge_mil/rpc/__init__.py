"""From messages of `edge_mil.v1` to values and back, so that generated types stay at the edge.

`frames` makes and checks the header and the chunks of a field, `frame_assembly` joins them again
and `image_codecs` decodes them; `results` has answers, scores and regions, `pixel_size` what a
client says of its optics and its stage; `status` turns errors into gRPC statuses and back;
`allocator` makes buffers of large frames cheap. All but `image_codecs` need no more than grpcio,
protobuf and numpy: the light client uses them too.
"""
