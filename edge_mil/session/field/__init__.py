"""Process one frame of a session, without changing the session.

`setup` fixes thresholds and corrections before the first frame; `gate` corrects a frame and runs
the quality gates; `light_history` keeps what earlier fields said of the light; `processor` holds
every step, from the check of the frame to the state of its instances. `edge_mil.session.session`
lists them in their order.
"""
