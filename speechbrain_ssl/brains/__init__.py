"""Conductors: the only floor that knows ``speechbrain.Brain``."""
