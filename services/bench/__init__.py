"""bench: measure how fast an arm (a loader on a layout) feeds a training loop."""
