"""optimize: packs the tree's images as LitData chunks."""
