"""optimize: pack the tree's images into LitData chunks."""
