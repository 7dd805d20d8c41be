"""Backbones that are no CLIP: SAM 3, C-RADIO with SigLIP 2, dino.txt. Each is imported when it is first used."""
