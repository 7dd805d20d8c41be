"""Training and probes of the demo's tiny CLIP and of its upsamplers (bench/demo/MODEL_CARD.md)."""
