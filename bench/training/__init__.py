"""Training upsamplers on images alone: FeatUp (Fu et al. 2024), SimFeatUp (SegEarth-OV, section 4.1)."""
