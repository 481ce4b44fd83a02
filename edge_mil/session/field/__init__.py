"""Process one frame of a session, without changing the session.

`setup` settles what is fixed before the first frame; `field_gate` corrects the frame and runs the
quality gates; `processor` calls the steps from there to the state of the new instances.
"""
