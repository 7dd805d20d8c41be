"""Maps of own images: scenes of any size, strip by strip, in the formats of mapping programs."""
